"""The timer that cancels an async call when its deadline passes."""

from __future__ import annotations

import asyncio

from resilient.errors import DeadlineExceeded

__all__ = ["Timer"]


class Timer:
    """Cancels the current task at a moment, and tells its own cancellation from another's."""

    __slots__ = ("_cancelling", "_handle", "_limit", "_task", "fired", "taken")

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs is inside a task
        self._task = task
        self._cancelling = task.cancelling()
        self._limit = seconds
        self.fired = False
        self.taken = False  # whether the cancellation was taken back
        self._handle = asyncio.get_running_loop().call_later(max(0.0, seconds), self._fire)

    def _fire(self) -> None:
        self.fired = True
        self._task.cancel()

    def stop(self) -> None:
        """Cancel nothing from now on; a cancellation that the call swallowed is taken back."""
        self._handle.cancel()
        if self.fired and not self.taken:
            self._task.uncancel()

    def cancelled(self, error: BaseException | None) -> bool:
        """Whether this is the cancellation of this timer, and of nobody else; it is taken back then."""
        return isinstance(error, asyncio.CancelledError) and self.ours()

    def ours(self) -> bool:
        """Whether the cancellation that arrived is this timer's alone; takes it back if it fired."""
        self.taken = self.fired
        return self.fired and self._task.uncancel() <= self._cancelling

    def error(self, name: str) -> DeadlineExceeded:
        """What the caller gets instead of a cancellation it never asked for."""
        return DeadlineExceeded(
            f"{name}: no answer came within {self._limit:.3g} s and the call was cancelled",
            advice="what had been sent may have taken effect",
        )
