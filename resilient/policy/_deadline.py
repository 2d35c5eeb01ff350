"""The moment by which everything below must be done, as a context variable."""

from __future__ import annotations

import contextlib
import math
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError, DeadlineExceeded

if TYPE_CHECKING:
    import asyncio

__all__ = ["Expiry", "current", "deadline", "expired", "left_of", "moment", "nearest", "unbind"]

_LONGEST = 10**18
"""A whole number of seconds above it has no float that means the same; write ``math.inf`` for no end."""


class Expiry(float):
    """A moment on a clock that is not the machine's own. A plain float is a moment on `SYSTEM`."""

    __slots__ = ("clock",)
    clock: Clock

    def __new__(cls, moment: float, clock: Clock) -> Self:
        self = super().__new__(cls, moment)
        self.clock = clock
        return self


current: ContextVar[float | None] = ContextVar("resilient_deadline", default=None)
"""The monotonic moment that binds the calls made here; ``None`` where there is no deadline."""


def left_of(expires: float) -> float:
    """Seconds until a moment; negative when it has passed."""
    clock = SYSTEM if type(expires) is float else expires.clock  # type: ignore[attr-defined] # an Expiry has its clock
    return expires - clock.monotonic()


def moment(seconds: float, clock: Clock) -> float:
    """The moment that many seconds from now."""
    expires = clock.monotonic() + seconds
    return expires if clock is SYSTEM else Expiry(expires, clock)


def nearest(outer: float | None, expires: float) -> float:
    """Whichever comes first; the two may be on different clocks."""
    if outer is None:
        return expires
    return outer if left_of(outer) <= left_of(expires) else expires


def unbind(token: Token[float | None]) -> None:
    """Go back to the deadline there was before."""
    with contextlib.suppress(ValueError):  # a generator that is ended in another context: there it was never set
        current.reset(token)


def expired() -> DeadlineExceeded:
    """The error for a call that was refused because no time is left for it."""
    return DeadlineExceeded("the deadline has passed, so the call was not made", advice="allow the request more time")


class deadline:  # noqa: N801 - reads as a statement: with deadline(1.5)
    """Bound everything called below: cache, SQL, S3, SQS, retries and waits.

    Nested deadlines never extend each other: the nearest wins. The clients this library builds hand the time that is
    left to their sockets and servers; nothing sleeps past it. ``async with`` cancels what is still running; a sync
    block kills nothing: it relies on what it calls to obey.

    Args:
        seconds: How long, from the moment the block is entered. Zero has expired at once.
        clock: Where time is read; tests give a fake one. A fake clock never cancels an ``async with`` block by
            itself: calls below see that it has passed.

    Raises:
        ConfigurationError: The time is negative or not a number.

    Examples:
        >>> with deadline(1.5):
        ...     deadline.remaining() <= 1.5
        True
        >>> deadline.remaining() is None
        True
    """

    __slots__ = ("_clock", "_timer", "_token", "expires", "seconds")

    def __init__(self, seconds: float, *, clock: Clock = SYSTEM) -> None:
        given: Any = seconds
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if not number or not 0 <= given <= math.inf or (isinstance(given, int) and given > _LONGEST):
            raise ConfigurationError(f"a deadline takes seconds >= 0, got {seconds!r}", advice="write deadline(1.5)")
        self.seconds = float(seconds)
        self.expires: float | None = None
        self._clock = clock
        self._token: Token[float | None] | None = None
        self._timer: asyncio.Timeout | None = None

    @staticmethod
    def remaining() -> float | None:
        """Seconds left for the calls made here: never negative, ``None`` where there is no deadline."""
        expires = current.get()
        return None if expires is None else max(0.0, left_of(expires))

    @staticmethod
    def bound(limit: float) -> float:
        """The time a call may take: its own limit, or what the deadline leaves of it.

        Raises:
            DeadlineExceeded: Nothing is left.

        Examples:
            >>> deadline.bound(5.0)
            5.0
        """
        expires = current.get()
        if expires is None:
            return limit
        left = left_of(expires)
        if left <= 0:
            raise expired()
        return min(left, limit)

    @staticmethod
    def check() -> None:
        """Raise DeadlineExceeded where the deadline has passed: for long loops of your own."""
        expires = current.get()
        if expires is not None and left_of(expires) <= 0:
            raise expired()

    def __enter__(self) -> Self:
        if self._token is not None:
            raise ConfigurationError("this deadline is entered already", advice="make a new one: with deadline(...)")
        self.expires = nearest(current.get(), moment(self.seconds, self._clock))
        self._token = current.set(self.expires)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            unbind(token)

    async def __aenter__(self) -> Self:
        self.__enter__()
        expires = self.expires
        if type(expires) is float and expires != math.inf:
            import asyncio  # who never awaits does without it

            self._timer = asyncio.timeout(left_of(expires))
            await self._timer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        timer, self._timer = self._timer, None
        if timer is None:
            return
        try:
            await timer.__aexit__(kind, error, trace)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the block did not end within its deadline of {self.seconds:g} s and was cancelled",
                advice="what had been sent may have taken effect",
            ) from error

    def __repr__(self) -> str:
        return f"deadline({self.seconds:g})"
