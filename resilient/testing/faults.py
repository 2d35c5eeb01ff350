"""Faults on demand: an error, a delay or another result at a place of your choosing, inert unless armed.

Production code that names a point pays one look at a dictionary that is empty:

    @faults.point("billing.charge")
    def charge(order): ...

and a test arms it:

    with faults.error("billing.charge", ConnectionResetError(), times=2):
        place_order()
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, cast

from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.policy import _waits

__all__ = ["Fault", "armed", "error", "latency", "no_waiting", "point", "result"]

P = ParamSpec("P")
T = TypeVar("T")

_NOTHING = object()


@dataclass
class Fault:
    """What happens at an armed point.

    Args:
        point: The name of the point.
        error: Raised instead of the call.
        seconds: Slept before the call.
        value: Returned instead of the call.
        after: How many calls go through unharmed first.
        times: How many calls are hit; ``None`` means all.
        clock: What sleeps.
    """

    point: str
    error: BaseException | type[BaseException] | None = None
    seconds: float = 0.0
    value: Any = _NOTHING
    after: int = 0
    times: int | None = None
    clock: Clock = SYSTEM
    hits: int = field(default=0, init=False)
    """How many calls were hit."""
    calls: int = field(default=0, init=False)
    """How many calls came by while it was armed."""
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.seconds < 0 or self.after < 0 or (self.times is not None and self.times < 1):
            raise ConfigurationError(
                f"a fault takes seconds >= 0, after >= 0 and times >= 1, got {self!r}",
                advice="leave times out to hit every call",
            )

    def strikes(self) -> bool:
        """Count a call; whether it is hit."""
        with self._lock:
            self.calls += 1
            struck = self.calls > self.after and (self.times is None or self.hits < self.times)
            self.hits += struck
            return struck

    def outcome(self) -> Any:
        """What is returned instead of the call. Raises the error, where the fault has one."""
        if self.error is not None:
            raise self.error
        return self.value


_armed: dict[str, tuple[Fault, ...]] = {}
_lock = threading.Lock()


def point(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Name a place where faults may strike; decorates a function, sync or async.

    Args:
        name: What tests arm.

    Examples:
        >>> @point("billing.charge")
        ... def charge(amount: int) -> int:
        ...     return amount
        >>> with result("billing.charge", 0):
        ...     charge(5)
        0
        >>> charge(5)
        5
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        async def acall(*args: P.args, **kwargs: P.kwargs) -> Any:
            for fault in _striking(name):
                await fault.clock.asleep(fault.seconds)
                if fault.outcome() is not _NOTHING:
                    return fault.value
            return await cast("Any", function(*args, **kwargs))

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            for fault in _striking(name):
                fault.clock.sleep(fault.seconds)
                if fault.outcome() is not _NOTHING:
                    return cast("T", fault.value)
            return function(*args, **kwargs)

        return cast("Callable[P, T]", acall) if inspect.iscoroutinefunction(function) else call

    return decorate


def _striking(name: str) -> Iterable[Fault]:
    """The faults that hit this call, asked one by one: one that raises leaves the next uncounted."""
    faults = _armed.get(name) if _armed else None
    return () if faults is None else (fault for fault in faults if fault.strikes())


@contextmanager
def armed(fault: Fault) -> Iterator[Fault]:
    """Arm a fault for a block, in all threads. Several may be armed at one point; they strike in order."""
    with _lock:
        _armed[fault.point] = (*_armed.get(fault.point, ()), fault)
    try:
        yield fault
    finally:
        with _lock:
            left = tuple(each for each in _armed[fault.point] if each is not fault)
            if left:
                _armed[fault.point] = left
            else:
                del _armed[fault.point]


@contextmanager
def error(
    point: str, error: BaseException | type[BaseException], *, after: int = 0, times: int | None = None
) -> Iterator[Fault]:
    """Raise an error at a point.

    Args:
        point: The name of the point.
        error: What is raised instead of the call.
        after: How many calls go through unharmed first.
        times: How many calls are hit; ``None`` means all.

    Examples:
        >>> @point("mail.send")
        ... def send() -> str:
        ...     return "sent"
        >>> with error("mail.send", ConnectionResetError, times=1) as fault:
        ...     try: send()
        ...     except ConnectionResetError: print("broke off")
        ...     send(), fault.hits
        broke off
        ('sent', 1)
    """
    with armed(Fault(point, error=error, after=after, times=times)) as fault:
        yield fault


@contextmanager
def latency(
    point: str, seconds: float, *, after: int = 0, times: int | None = None, clock: Clock = SYSTEM
) -> Iterator[Fault]:
    """Sleep at a point before the call is made.

    Args:
        point: The name of the point.
        seconds: How long.
        after: How many calls go through unharmed first.
        times: How many calls are hit; ``None`` means all.
        clock: What sleeps; a fake clock takes no time.
    """
    with armed(Fault(point, seconds=seconds, after=after, times=times, clock=clock)) as fault:
        yield fault


@contextmanager
def result(point: str, value: Any, *, after: int = 0, times: int | None = None) -> Iterator[Fault]:
    """Return a value at a point instead of making the call.

    Args:
        point: The name of the point.
        value: What is returned.
        after: How many calls go through unharmed first.
        times: How many calls are hit; ``None`` means all.
    """
    with armed(Fault(point, value=value, after=after, times=times)) as fault:
        yield fault


@contextmanager
def no_waiting() -> Iterator[None]:
    """Turn off the waits between attempts and for rate limits, in all threads, for a block.

    Decisions stay as they are: the same calls are retried, and the same are not.

    Examples:
        >>> from resilient.policy import Pipeline, Retry
        >>> def refuse():
        ...     raise ConnectionRefusedError
        >>> with no_waiting():
        ...     try: Pipeline("doc", Retry(attempts=5, base=60)).call(refuse)
        ...     except ConnectionRefusedError: print("five tries, no time")
        five tries, no time
    """
    with _waits.off():
        yield
