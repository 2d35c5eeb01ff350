"""Bad input is refused where a policy is made, with words that say what to write instead; policies as text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from resilient.errors import ConfigurationError
from resilient.policy.classify import Failure

__all__ = ["at_least_one", "kinds", "positive", "share", "shown"]


def positive(owner: str, name: str, value: Any, *, zero: bool = False) -> float:
    """A finite time or rate: above zero, or not below it where zero has a meaning."""
    low = "0 or more" if zero else "more than 0"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ConfigurationError(f"{owner}({name}=...) takes a number that is {low}, got {value!r}")
    return float(value)


def at_least_one(owner: str, name: str, value: Any, advice: str | None = None) -> int:
    """A count."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{owner}({name}=...) takes a whole number from 1 up, got {value!r}", advice=advice)
    return value


def share(owner: str, name: str, value: Any) -> float:
    """A part of a whole: above 0, to 1."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= 1:
        raise ConfigurationError(
            f"{owner}({name}=...) takes a part of 1, got {value!r}", advice=f"write {name}=0.5 for one half"
        )
    return float(value)


def kinds(owner: str, name: str, value: Iterable[Failure]) -> frozenset[Failure]:
    """Kinds of failure; one alone will do."""
    found = frozenset([value] if isinstance(value, Failure) else value)
    for kind in found:
        if not isinstance(kind, Failure):
            raise ConfigurationError(
                f"{owner}({name}=...) takes kinds of failure, got {kind!r}",
                advice="write Failure.TRANSIENT, and tell which error that is with Pipeline(classify=table({...}))",
            )
    return found


def shown(policy: Any, *, first: str | None = None, always: tuple[str, ...] = ()) -> str:
    """A policy as the shortest call that makes it."""
    parts = []
    for name, slot in policy.__dataclass_fields__.items():
        value = getattr(policy, name)
        text = f"{value:g}" if isinstance(value, float) else repr(value)
        if isinstance(value, frozenset):
            text = "{" + ", ".join(sorted(kind.value for kind in value)) + "}"
        if name == first:
            parts.append(text)
        elif name in always or value != slot.default:
            parts.append(f"{name}={text}")
    return f"{type(policy).__name__}({', '.join(parts)})"
