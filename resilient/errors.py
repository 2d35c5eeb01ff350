"""Every exception raised by this library, in one tree.

```text
ResilientError                what went wrong, and what to do about it
├── ConfigurationError        the code that sets something up is wrong (also a ValueError)
│   └── MissingExtra          an optional dependency is not installed (also an ImportError)
├── InvalidInput              a value handed to a call is wrong; nothing was sent (also a ValueError)
├── Refused                   a rule of yours forbids it: another owner's key, a write on a replica
├── NotFound                  there is no such thing (also a LookupError)
├── Conflict                  it exists already, or another version of it does
├── Unavailable               a dependency cannot serve this now; nothing took effect
│   ├── CircuitOpen           not even tried: the breaker of that dependency is open
│   └── Overloaded            not even tried: no room here (bulkhead, rate limit, full queue)
├── DeadlineExceeded          time ran out (also a TimeoutError)
└── OutcomeUnknown            it may or may not have taken effect; look before you repeat it
```

Each message says what was tried, what is known of the outcome and what to do. None holds a password, a URL with
credentials, or a value of the user's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

__all__ = [
    "CircuitOpen",
    "ConfigurationError",
    "Conflict",
    "DeadlineExceeded",
    "InvalidInput",
    "MissingExtra",
    "NotFound",
    "OutcomeUnknown",
    "Overloaded",
    "Refused",
    "ResilientError",
    "Unavailable",
    "needs_extra",
]


_ErrorT = TypeVar("_ErrorT", bound="ResilientError")


class ResilientError(Exception):
    """The root of the tree: catch it to catch everything raised here.

    Args:
        message: What was tried and what is known of the outcome.
        advice: What the reader can do about it; shown after the message.
        retry_after: Seconds after which another try is worth making, where that is known.

    A pickled error keeps its message, advice and fields. Its cause stays behind, since causes of other libraries
    often cannot be pickled and may hold secrets; ``caused_by`` keeps the name of the cause's type.

    Examples:
        >>> error = ResilientError("the cache did not answer in 50 ms", advice="look at its load")
        >>> str(error)
        'the cache did not answer in 50 ms; look at its load'
    """

    def __init__(self, message: str = "", *, advice: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.advice = advice
        self.retry_after = retry_after

    @property
    def message(self) -> str:
        """What was tried and what is known of the outcome, without the advice."""
        return str(self.args[0]) if self.args else ""

    @property
    def caused_by(self) -> str | None:
        """The dotted name of the cause's type, also after pickling; ``None`` where there is no cause."""
        if self.__cause__ is not None:
            kind = type(self.__cause__)
            return f"{kind.__module__}.{kind.__qualname__}"
        return self.__dict__.get("_caused_by")

    def __str__(self) -> str:
        return f"{self.message}; {self.advice}" if self.advice else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (type(self), self.args, {**self.__dict__, "_caused_by": self.caused_by})

    def __copy__(self) -> Self:
        twin: Self = _revive(type(self), self.args, dict(self.__dict__))
        twin.__cause__ = self.__cause__
        return twin


def _revive(kind: type[_ErrorT], args: tuple[Any, ...], state: dict[str, Any]) -> _ErrorT:
    """Rebuild an error without running its ``__init__``, so that subclasses may take any arguments."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(ResilientError, ValueError):
    """Something was set up wrongly; raised where it is set up, not where it is first used."""


class MissingExtra(ConfigurationError, ImportError):
    """An optional dependency is needed and not installed.

    Args:
        extra: The extra that brings it, as in ``pip install 'resilient-patterns[redis]'``.
        module: The module that could not be imported.
    """

    def __init__(self, extra: str, module: str) -> None:
        super().__init__(
            f"{module} is not installed",
            advice=f"install it with: pip install 'resilient-patterns[{extra}]'",
        )
        self.extra = extra
        self.module = module


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around imports of an optional dependency: where it is missing, the error names the extra that brings it.

    Raises:
        MissingExtra: An import inside failed.

    Examples:
        >>> with needs_extra("redis"):
        ...     import redis
    """
    try:
        yield
    except ImportError as missing:
        raise MissingExtra(extra, missing.name or extra) from missing


class InvalidInput(ResilientError, ValueError):
    """A value handed to a call is wrong. It was noticed here; nothing was sent or changed."""


class Refused(ResilientError):
    """A rule forbids it: a key outside its owner's prefix, a write through a replica, a second shard."""


class NotFound(ResilientError, LookupError):
    """There is no such thing. A cache loader may raise it to say so."""


class Conflict(ResilientError):
    """It exists already, or its version is not the one that was expected."""


class Unavailable(ResilientError):
    """A dependency cannot serve this now. Nothing took effect, so it may be tried again."""


class CircuitOpen(Unavailable):
    """The call was not made: its breaker is open because the dependency fails."""


class Overloaded(Unavailable):
    """The call was not made: there is no room for it here now."""


class DeadlineExceeded(ResilientError, TimeoutError):
    """Time ran out. What had been sent by then may have taken effect."""


class OutcomeUnknown(ResilientError):
    """It was sent and no answer came: it may or may not have taken effect. Look before you repeat it."""
