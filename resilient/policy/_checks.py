"""Bad input is refused where a policy is made, with words that say what to write instead; policies as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resilient.errors import ConfigurationError
from resilient.policy.classify import Failure

__all__ = ["at_least_one", "kinds", "positive", "share", "shown"]


LONGEST = 1e9
"""Seconds, some 30 years: what is longer is a mistake, and beyond it the system's own waits overflow."""

MOST = 1e12
"""The largest rate."""


def positive(owner: str, name: str, value: Any, *, zero: bool = False, most: float = LONGEST) -> float:
    """A time or rate that is not absurd: above zero, or not below it where zero has a meaning."""
    low = "0 or more" if zero else "more than 0"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= most or (value == 0 and not zero):
        top = f" and at most {most:g}" if number and value > most else ""
        raise ConfigurationError(f"{owner}({name}=...) takes a number that is {low}{top}, got {shortly(value)}")
    return float(value)


def at_least_one(owner: str, name: str, value: Any, advice: str | None = None, *, most: int = 10**9) -> int:
    """A count."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        top = f"to {most}" if isinstance(value, int) and value > most else "up"
        raise ConfigurationError(
            f"{owner}({name}=...) takes a whole number from 1 {top}, got {shortly(value)}", advice=advice
        )
    return value


def yes_or_no(owner: str, name: str, value: Any) -> bool:
    """A switch."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{owner}({name}=...) takes True or False, got {shortly(value)}")
    return value


def shortly(value: Any) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


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
    given: Any = value  # what a caller without a type checker hands in
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = [given]
    found: frozenset[Any] = frozenset(given)
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
