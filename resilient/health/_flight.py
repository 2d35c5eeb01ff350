"""Those who wait for the end of one run, on threads and on event loops."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from resilient.health._history import Run

__all__ = ["Flight"]


class Flight:
    """A run of a check under way, and those who wait for it.

    Args:
        run: The run.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.asked = 1
        """How many have come for it."""
        self._lock = threading.Lock()
        self._wakes: set[Callable[[], object]] | None = set()

    def land(self) -> None:
        """Tell everybody who waits that it has ended."""
        with self._lock:
            wakes, self._wakes = self._wakes or set(), None
        for wake in wakes:
            with contextlib.suppress(RuntimeError):  # that waiter's event loop is closed: nobody waits there any more
                wake()

    def join(self, seconds: float) -> None:
        """Block until the run has ended, at most that long."""
        done = threading.Event()
        if seconds > 0 and self._enlist(done.set):
            done.wait(seconds)
            self._dismiss(done.set)

    async def ajoin(self, seconds: float) -> None:
        """Suspend this task until the run has ended, at most that long."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(done.set)

        if seconds > 0 and self._enlist(wake):
            try:
                async with asyncio.timeout(seconds):
                    await done.wait()
            except TimeoutError:
                pass  # whoever waited looks at the outcome, and finds none
            finally:
                self._dismiss(wake)

    def _enlist(self, wake: Callable[[], object]) -> bool:
        with self._lock:
            if self._wakes is None:
                return False
            self._wakes.add(wake)
            return True

    def _dismiss(self, wake: Callable[[], object]) -> None:
        with self._lock:
            if self._wakes is not None:
                self._wakes.discard(wake)
