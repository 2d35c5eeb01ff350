"""What a check would like to know besides: asked on a thread of its own, so that it cannot hold the check up."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from resilient.clock import Clock
from resilient.policy import deadline
from resilient.runtime import after_fork, fork_safe_lock, start_thread

__all__ = ["Aside"]

T = TypeVar("T")

_LIMIT = 5.0  # seconds for one question; a client that obeys no deadline has its own


class Aside(Generic[T]):
    """One question beside a check's own. It is asked once at a time, and one that hangs is never asked a second time.

    Args:
        name: What its thread is called.
        ask: The question.
        keep: Seconds for which an answer is good, and for which nobody is asked again after a failure.
        clock: Where the time comes from.

    Examples:
        >>> from resilient.clock import SYSTEM
        >>> aside = Aside("age", lambda: 3.0, keep=60.0, clock=SYSTEM)
        >>> aside.begin()
        >>> aside.known(within=5.0)
        (3.0,)
    """

    def __init__(self, name: str, ask: Callable[[], T], *, keep: float, clock: Clock) -> None:
        self._name = name
        self._ask = ask
        self._keep = keep
        self._clock = clock
        self._lock = fork_safe_lock()
        self._reset()
        after_fork(self._reset)

    def _reset(self) -> None:
        """Know nothing, and wait for nobody.

        In a forked child the thread that asks is the parent's, and it may hold the answer's lock.
        """
        self._started = self._good_until = -math.inf
        self._answer: Future[tuple[T] | None] = Future()
        self._answer.set_result(None)

    def begin(self) -> None:
        """Have it asked, unless the answer is known or on its way."""
        with self._lock:
            now = self._clock.monotonic()
            if now < self._good_until or not self._answer.done():
                return
            self._started, self._answer = now, Future()
            try:
                # An empty context: the check's deadline binds what waits for the answer, and not the question.
                contextvars.Context().run(start_thread, self._run, self._answer, name=f"health-{self._name}")
            except RuntimeError:  # the machine has no thread to spare
                self._reset()
            except BaseException:  # a signal's handler raised here: a thread that has begun has an answer of its own
                self._reset()
                raise

    def _run(self, answer: Future[tuple[T] | None]) -> None:
        found: tuple[T] | None
        try:
            with deadline(_LIMIT, clock=self._clock):
                found = (self._ask(),)
        except BaseException:  # noqa: BLE001 - even an exit is only the end of this question: there is no answer
            found = None
        self._good_until = self._clock.monotonic() + self._keep
        answer.set_result(found)

    def known(self, within: float) -> tuple[T] | None:
        """The answer, in a tuple; ``None`` where there is none.

        Args:
            within: Seconds to wait, counted from when it was asked: who comes later waits for the rest alone.
        """
        answer = self._answer
        try:
            return answer.result(max(0.0, self._started + within - self._clock.monotonic()))
        except TimeoutError:
            return None
