"""What a report says, as plain functions over plain values: no I/O, no threads, no clock."""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from resilient.errors import ConfigurationError, InvalidInput
from resilient.policy.classify import Classifier, Failure, default

__all__ = [
    "DETAILS",
    "SHARED",
    "VIEWS",
    "Check",
    "CheckFunction",
    "Details",
    "Fault",
    "Outcome",
    "Result",
    "Scope",
    "Shared",
    "Status",
    "View",
    "capped",
    "check_name",
    "check_word",
    "check_worst",
    "effect",
    "http_status",
    "reason_of",
    "settle",
    "worst",
]

View: TypeAlias = str
"""Which question is asked: ``live`` (is the process alive), ``ready`` (may it get traffic), ``startup`` (has it come
up), ``all`` (every check there is), or a group of your own."""

Scope: TypeAlias = Literal["local", "shared"]
"""Whether a fault is this instance's alone, or of something that all instances use."""

Fault: TypeAlias = Literal["local", "shared"]
"""Whose failure it is, as far as the peers know: this instance's alone, or everybody's."""

Shared: TypeAlias = Literal["warn", "fail", "peers"]
"""What the failure of a shared dependency does to readiness: a warning with 200, a failure with 503, or a failure only
where a peer still reaches what fails here."""

Details: TypeAlias = Literal["never", "authorized", "always"]
"""Who sees more than one word."""

VIEWS: Final[tuple[View, ...]] = ("live", "ready", "startup")
SHARED: Final[tuple[Shared, ...]] = ("warn", "fail", "peers")
DETAILS: Final[tuple[Details, ...]] = ("never", "authorized", "always")

_WORD = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Status(enum.Enum):
    """How well something is. Statuses compare by severity: ``PASS < WARN < UNKNOWN < FAIL``.

    Examples:
        >>> max(Status.PASS, Status.WARN).value
        'warn'
    """

    PASS = "pass"  # noqa: S105 - a status, no password
    """It works."""
    WARN = "warn"
    """It works, and somebody should look at it."""
    UNKNOWN = "unknown"
    """Nothing is known of it yet."""
    FAIL = "fail"
    """It does not work."""

    @property
    def severity(self) -> int:
        """0 for ``PASS`` to 3 for ``FAIL``."""
        return _SEVERITY[self]

    def __lt__(self, other: Status) -> bool:
        return self.severity < other.severity

    def __le__(self, other: Status) -> bool:
        return self.severity <= other.severity

    def __gt__(self, other: Status) -> bool:
        return self.severity > other.severity

    def __ge__(self, other: Status) -> bool:
        return self.severity >= other.severity


_SEVERITY: Final = {status: rank for rank, status in enumerate(Status)}


def check_word(text: str) -> str:
    """Return a word that may be shown to anybody who sees details. Raises InvalidInput for anything like a sentence."""
    if not _WORD.fullmatch(text):
        raise InvalidInput(
            "a reason is one word of lower-case letters, digits, '-' and '_', at most 40 long",
            advice="raise an exception to have its text in the log, and only there",
        )
    return text


def check_name(name: str, what: str = "check") -> str:
    """Return the name of a check, or of what else has one. Raises ConfigurationError."""
    given: object = name
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        advice = "write the name first; letters, digits, '.', '_' and '-', at most 64 of them"
        raise ConfigurationError(f"a {what} cannot be called {name!r}", advice=advice)
    return name


def check_worst(status: Status) -> Status:
    """Return the worst that a check is told as. Raises ConfigurationError where that would hide it, or is none."""
    given: object = status
    if not isinstance(given, Status) or status is Status.PASS:
        raise ConfigurationError(f"at_worst={status!r} is no status", advice="use Status.WARN, UNKNOWN or FAIL")
    return status


def _measures(value: object) -> bool:
    """Whether it is a number that a float can hold; nobody who is told a greater one could read it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= sys.float_info.max


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found. A check may also return nothing or a bool, or raise.

    Args:
        status: How well it is.
        reason: One word that says why, such as ``"behind"``. Exception text cannot get in.
        values: Measurements, such as ``{"depth": 12}``. Shown only with the details.

    Raises:
        InvalidInput: The status is none, the reason is more than a word, or a measurement is no number (or an integer
            that is greater than any float).

    Examples:
        >>> Result.warn("deep", depth=1200).status
        <Status.WARN: 'warn'>
    """

    status: Status = Status.PASS
    reason: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        status: object = self.status
        if not isinstance(status, Status):
            raise InvalidInput(f"{status!r} is no status", advice="use one of Status, such as Status.FAIL")
        if self.reason is not None:
            check_word(self.reason)
        for name, value in self.values.items():
            check_word(name)
            if not _measures(value):
                raise InvalidInput(f"the measurement {name!r} is no number")
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    @classmethod
    def ok(cls, **values: float) -> Result:
        """It works."""
        return cls(Status.PASS, None, values)

    @classmethod
    def warn(cls, reason: str, **values: float) -> Result:
        """It works, and somebody should look at it."""
        return cls(Status.WARN, reason, values)

    @classmethod
    def unknown(cls, reason: str, **values: float) -> Result:
        """Nothing is known of it yet."""
        return cls(Status.UNKNOWN, reason, values)

    @classmethod
    def fail(cls, reason: str, **values: float) -> Result:
        """It does not work."""
        return cls(Status.FAIL, reason, values)


CheckFunction: TypeAlias = Callable[[], Any]
"""A check: returns nothing or True (pass), False (fail) or a `Result`, or raises; it may be an async function."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check function with what is known of it. `resilient.health.checks` makes them.

    Args:
        run: The function. It is called on a thread of its own, one call at a time.
        kind: What is checked, as ``application/health+json`` calls it: ``component``, ``datastore`` or ``system``.
        scope: Whether a fault is this instance's alone, or of something that all instances use.
        dependency: Whether it asks something outside the process; liveness refuses such a check.
        close: Called when the `Health` is closed.
        classify: Knows the errors of the library it uses, for the one word that is shown for them.
        at_worst: The worst that it is ever told as, also where it hangs, raises or cannot be started. With
            ``Status.WARN`` it concerns those who operate the application, and takes no instance out.

    Raises:
        ConfigurationError: It has no function to run, or ``at_worst`` is no such status.
    """

    run: CheckFunction
    kind: str = "component"
    scope: Scope = "local"
    dependency: bool = False
    close: Callable[[], object] | None = None
    classify: Classifier | None = None
    at_worst: Status = Status.FAIL

    def __post_init__(self) -> None:
        given: object = self.run
        if not callable(given):
            raise ConfigurationError(f"a check runs a function, not {given!r}", advice="give it without calling it")
        check_worst(self.at_worst)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run of a check ended.

    Args:
        result: What it found.
        at: When it ended, in seconds since 1970-01-01 UTC; ``None`` where it did not end.
        seconds: How long it took, or has taken so far.
    """

    result: Result
    at: float | None
    seconds: float


def settle(returned: Any) -> Result:
    """What a check's return value means. Raises InvalidInput for anything but None, a bool or a Result."""
    if returned is None or returned is True:
        return Result()
    if returned is False:
        return Result.fail("failed")
    if isinstance(returned, Result):
        return returned
    raise InvalidInput(
        f"a check returns None, a bool or a Result, not a {type(returned).__name__}",
        advice='return bool(...) of it, or Result.warn("deep", depth=1200)',
    )


def capped(result: Result, worst: Status) -> Result:
    """What a check found, told as no worse than that.

    Examples:
        >>> capped(Result.fail("timeout"), Status.WARN).status
        <Status.WARN: 'warn'>
    """
    return result if result.status <= worst else Result(worst, result.reason, result.values)


def effect(status: Status, *, critical: bool, scope: Scope, shared: Shared, fault: Fault | None = None) -> Status:
    """What one check does to the report it is in.

    Whatever is worse than a warning becomes one if the check is not critical, or if the fault is of something that all
    instances share: taking every instance out would make it an outage. ``shared="fail"`` takes it as it is, and
    ``shared="peers"`` does where the peers have shown that the fault is this instance's own.

    Args:
        status: How well the thing itself is.
        critical: Whether its failure fails the report.
        scope: Whether all instances use it.
        shared: What a failure of something shared does.
        fault: Whose fault it is, as far as the peers know.

    Examples:
        >>> effect(Status.FAIL, critical=True, scope="shared", shared="warn")
        <Status.WARN: 'warn'>
        >>> effect(Status.FAIL, critical=True, scope="shared", shared="peers", fault="local")
        <Status.FAIL: 'fail'>
    """
    if status <= Status.WARN:
        return status
    if not critical:
        return Status.WARN
    if scope == "local" or shared == "fail" or (shared == "peers" and fault == "local"):
        return status
    return Status.WARN


def worst(statuses: Iterable[Status]) -> Status:
    """The severest of some statuses; ``PASS`` where there are none."""
    return max(statuses, default=Status.PASS)


def http_status(status: Status) -> int:
    """200 while traffic is welcome, 503 when it is not."""
    return 200 if status <= Status.WARN else 503


def reason_of(error: BaseException, classify: Classifier | None = None) -> str:
    """The one word shown for an error: its class of failure, never its text.

    Examples:
        >>> reason_of(TimeoutError("10.0.0.7 did not answer"))
        'timeout'
    """
    try:
        verdict = (classify(error) if classify is not None else None) or default(error)
        failure = Failure.PERMANENT if verdict is None else Failure(verdict.failure)
    except BaseException:  # noqa: BLE001 - an error that cannot even be looked at is still only an error
        failure = Failure.PERMANENT
    return "error" if failure is Failure.PERMANENT else str(failure.value)
