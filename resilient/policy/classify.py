"""What an error means, in nine words, so that every policy judges it alike.

A classifier is any callable that takes an error and returns a `Verdict`, or ``None`` where it does not know the error.
The wire modules bring tables for Redis, SQL and AWS; `default` knows Python's own exceptions and this library's; yours
are asked first:

    Pipeline("billing", Retry(), classify=classify.table({BillingBusy: Failure.THROTTLED}))
"""

from __future__ import annotations

import enum
import errno
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from resilient.errors import (
    CircuitOpen,
    ConfigurationError,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    Refused,
    Unavailable,
)

__all__ = ["Classifier", "Failure", "Verdict", "chain", "default", "table"]


class Failure(enum.Enum):
    """What kind of failure an error is."""

    TRANSIENT = "transient"
    """It broke off; the next try may well succeed."""
    THROTTLED = "throttled"
    """The dependency asks for fewer calls; it did nothing for this one."""
    TIMEOUT = "timeout"
    """No answer came in time."""
    UNAVAILABLE = "unavailable"
    """The dependency is not there or says that it cannot serve."""
    READ_ONLY = "read_only"
    """The server takes no writes: a replica, or a primary that was demoted."""
    CONFLICT = "conflict"
    """Another writer was there: a deadlock, a version that moved, a thing that exists already."""
    AUTH = "auth"
    """The caller is not known or may not do this."""
    INVALID = "invalid"
    """The request itself is wrong."""
    PERMANENT = "permanent"
    """It will fail the same way each time, or nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one error.

    Args:
        failure: Its kind.
        no_effect: Whether it is certain that the call changed nothing. Only then may a call that was not declared
            idempotent be made again.
        retry_after: Seconds the dependency asked to wait, where it did.

    Examples:
        >>> Verdict(Failure.THROTTLED, no_effect=True, retry_after=2.0).failure.value
        'throttled'
    """

    failure: Failure
    no_effect: bool = False
    retry_after: float | None = None

    def __post_init__(self) -> None:
        given: tuple[Any, ...] = (self.failure, self.no_effect, self.retry_after)
        if not isinstance(given[0], Failure):
            raise ConfigurationError(f"a verdict is of a Failure, got {given[0]!r}", advice="write Failure.TRANSIENT")
        if not isinstance(given[1], bool):
            raise ConfigurationError(
                f"Verdict(no_effect=...) takes True or False, got {given[1]!r}", advice="write retry_after= for seconds"
            )
        if given[2] is not None and not _is_number(given[2]):
            raise ConfigurationError(
                f"Verdict(retry_after=...) takes seconds as a number, got {given[2]!r}",
                advice="write retry_after=float(text) for the text of a header",
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Classifier: TypeAlias = Callable[[BaseException], Verdict | None]
"""Takes an error; returns what it means, or ``None`` where it is not known here."""

UNCLASSIFIED = Verdict(Failure.PERMANENT)
"""Stands for an error no classifier knows. It is never retried, yet a breaker counts it: something went wrong."""

# Raised by policies before anything was sent. A layer above neither retries nor counts them.
NOT_TRIED = (CircuitOpen, Overloaded)

_UNAVAILABLE_NOTHING_SENT = Verdict(Failure.UNAVAILABLE, no_effect=True)

# An OSError is judged by its number first: the same class may mean "refused" (nothing was sent) or "broke off".
_BY_NUMBER = {
    errno.ECONNREFUSED: _UNAVAILABLE_NOTHING_SENT,
    errno.EHOSTUNREACH: _UNAVAILABLE_NOTHING_SENT,
    errno.EHOSTDOWN: _UNAVAILABLE_NOTHING_SENT,
    errno.ENETUNREACH: _UNAVAILABLE_NOTHING_SENT,
    errno.ENETDOWN: Verdict(Failure.UNAVAILABLE),
    errno.EADDRNOTAVAIL: _UNAVAILABLE_NOTHING_SENT,  # the machine has no free port: nothing was sent
    errno.EMFILE: _UNAVAILABLE_NOTHING_SENT,
    errno.ENFILE: _UNAVAILABLE_NOTHING_SENT,
    errno.ETIMEDOUT: Verdict(Failure.TIMEOUT),
    errno.EAGAIN: Verdict(Failure.TRANSIENT),
}

# The first class that fits wins: special ones stand before the general ones they belong to.
_BY_CLASS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Verdict], ...] = (
    (CircuitOpen, Verdict(Failure.UNAVAILABLE, no_effect=True)),
    (Overloaded, Verdict(Failure.THROTTLED, no_effect=True)),
    (Unavailable, _UNAVAILABLE_NOTHING_SENT),
    (DeadlineExceeded, Verdict(Failure.TIMEOUT)),
    (OutcomeUnknown, Verdict(Failure.TRANSIENT)),
    (Conflict, Verdict(Failure.CONFLICT, no_effect=True)),
    (NotFound, Verdict(Failure.PERMANENT, no_effect=True)),
    ((InvalidInput, ConfigurationError), Verdict(Failure.INVALID, no_effect=True)),
    (Refused, Verdict(Failure.AUTH, no_effect=True)),
    (ConnectionRefusedError, _UNAVAILABLE_NOTHING_SENT),
    (socket.gaierror, _UNAVAILABLE_NOTHING_SENT),
    (ssl.SSLCertVerificationError, Verdict(Failure.AUTH, no_effect=True)),
    (TimeoutError, Verdict(Failure.TIMEOUT)),
    ((ConnectionError, ssl.SSLError, EOFError), Verdict(Failure.TRANSIENT)),
    (PermissionError, Verdict(Failure.AUTH, no_effect=True)),
    ((FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError), Verdict(Failure.INVALID)),
    (
        (TypeError, ValueError, LookupError, AttributeError, NameError, AssertionError, ImportError, ArithmeticError),
        Verdict(Failure.INVALID),
    ),
    (NotImplementedError, Verdict(Failure.INVALID)),
)


def default(error: BaseException) -> Verdict | None:
    """Judge an error of Python's own, of sockets, or of this library.

    Returns:
        The verdict, or ``None`` for a class of somebody else's.

    Examples:
        >>> default(ConnectionRefusedError()).no_effect
        True
        >>> default(ConnectionResetError()).no_effect
        False
    """
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno in _BY_NUMBER:
        return _BY_NUMBER[error.errno]
    for kinds, verdict in _BY_CLASS:
        if isinstance(error, kinds):
            hint = _hint(error)
            return verdict if hint is None else Verdict(verdict.failure, verdict.no_effect, hint)
    return None


def _hint(error: BaseException) -> float | None:
    """The seconds to wait that an error names; one that names anything else, or fails to, names none."""
    try:
        hint = getattr(error, "retry_after", None)
    except Exception:  # noqa: BLE001 - code of a stranger's class, which must not take the place of its error
        return None
    return hint if _is_number(hint) else None


def table(entries: Mapping[type[BaseException], Failure | Verdict]) -> Classifier:
    """Make a classifier from exception classes.

    Args:
        entries: A kind of failure or a whole verdict for each class. The class nearest to the error's own wins.

    Raises:
        ConfigurationError: An entry is no exception class, or maps to something else.

    Examples:
        >>> class Busy(Exception): ...
        >>> judge = table({Busy: Failure.TRANSIENT})
        >>> judge(Busy()).failure
        <Failure.TRANSIENT: 'transient'>
        >>> judge(OSError()) is None
        True
    """
    verdicts: dict[type, Verdict] = {}
    given: Mapping[Any, Any] = entries  # what a caller without a type checker hands in
    for kind, meaning in given.items():
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise ConfigurationError(f"{kind!r} is no exception class", advice="write table({MyError: Failure.X})")
        if not isinstance(meaning, Failure | Verdict):
            raise ConfigurationError(f"{meaning!r} is neither a Failure nor a Verdict", advice="write Failure.X")
        verdicts[kind] = meaning if isinstance(meaning, Verdict) else Verdict(meaning)

    def judge(error: BaseException) -> Verdict | None:
        for kind in type(error).__mro__:
            if kind in verdicts:
                return verdicts[kind]
        return None

    return judge


def _checked(verdict: Any, member: Classifier) -> Verdict:
    if isinstance(verdict, Verdict):
        return verdict
    raise ConfigurationError(
        f"the classifier {getattr(member, '__qualname__', member)} returned {verdict!r}, which is no Verdict",
        advice="return Verdict(Failure.TRANSIENT), or None where it does not know the error",
    )


def chain(classifiers: Iterable[Classifier]) -> Classifier:
    """Ask several classifiers in turn; the first that knows the error is believed.

    Examples:
        >>> judge = chain([table({KeyError: Failure.CONFLICT}), default])
        >>> judge(KeyError()).failure, judge(TimeoutError()).failure
        (<Failure.CONFLICT: 'conflict'>, <Failure.TIMEOUT: 'timeout'>)
    """
    members = tuple(classifiers)
    for member in members:
        if not callable(member):
            raise ConfigurationError(f"{member!r} is no classifier", advice="pass a callable that returns a Verdict")

    def judge(error: BaseException) -> Verdict | None:
        for member in members:
            verdict = member(error)
            if verdict is not None:
                return _checked(verdict, member)
        return None

    return judge
