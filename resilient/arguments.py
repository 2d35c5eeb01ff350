"""Checks of arguments that several rooms make, each in one place."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Collection
from typing import SupportsFloat, TypeVar

from resilient.errors import ConfigurationError, ResilientError

__all__ = ["check_count", "check_name", "check_seconds", "is_name", "is_number", "one_of", "to_name"]

_LONGEST = 64
_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{_LONGEST}}}")
_FOREIGN = re.compile(r"[^A-Za-z0-9_.-]")

_Choice = TypeVar("_Choice", bound=str)


def is_name(text: object) -> bool:
    """Whether something may name a part of a system: it then fits a token, a key, a label and a file's name.

    Examples:
        >>> is_name("eu-west.1"), is_name("a:b"), is_name("")
        (True, False, False)
    """
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def check_name(what: str, text: str) -> str:
    """Return a name as it is.

    Args:
        what: What it names, as in ``"a shard"``.
        text: The name.

    Raises:
        ConfigurationError: It is none.

    Examples:
        >>> check_name("a shard", "eu-1")
        'eu-1'
    """
    if not is_name(text):
        raise ConfigurationError(
            f"{what}'s name has 1 to {_LONGEST} letters, digits, dots, dashes or underscores: {text!r} has not"
        )
    return text


def to_name(text: str, *, otherwise: str) -> str:
    """The nearest name to any text; ``otherwise`` where nothing is left of it.

    Examples:
        >>> to_name("my shop", otherwise="db")
        'my_shop'
    """
    return _FOREIGN.sub("_", text)[:_LONGEST] or otherwise


def is_number(value: object) -> bool:
    """Whether something can be compared with numbers; a text, such as one of the environment's, cannot.

    Examples:
        >>> is_number(0.8), is_number("0.8"), is_number(None)
        (True, False, False)
    """
    return isinstance(value, SupportsFloat)


def check_seconds(argument: str, value: object) -> None:
    """Refuse what is no span of time.

    Args:
        argument: What the argument is called.
        value: What was given.

    Raises:
        ConfigurationError: It is no positive, finite number.

    Examples:
        >>> check_seconds("ttl", 0.5)
    """
    if not (isinstance(value, int | float) and 0 < value < math.inf) or isinstance(value, bool):
        advice = f"write {value.total_seconds():g}" if isinstance(value, dt.timedelta) else None
        raise ConfigurationError(f"{argument} is a positive number of seconds, not {value!r}", advice=advice)


def check_count(argument: str, value: object) -> None:
    """Refuse what is no number of things.

    Args:
        argument: What the argument is called.
        value: What was given.

    Raises:
        ConfigurationError: It is no whole number from 1 up.

    Examples:
        >>> check_count("size", 10)
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{argument} is a whole number from 1 up, not {value!r}")


def one_of(
    argument: str, value: _Choice, allowed: Collection[str], error: type[ResilientError] = ConfigurationError
) -> _Choice:
    """Return a value as it is where it is one of the choices there are.

    Args:
        argument: What the argument is called.
        value: What was given.
        allowed: The choices.
        error: What is raised for anything else.

    Raises:
        ConfigurationError: It is none of them; or what ``error`` says.

    Examples:
        >>> one_of("details", "never", ("never", "always"))
        'never'
    """
    if value not in allowed:
        raise error(f"{argument}={value!r} is unknown", advice=f"use one of {', '.join(map(repr, allowed))}")
    return value
