"""What takes a step again and again: on a thread for the sync face, in a task for the async one."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable

from resilient.runtime import Periodic

__all__ = ["AsyncRunner", "Runner"]


class Runner(Periodic):
    """On a thread of its own; see `Periodic`, which holds its object weakly."""


class AsyncRunner:
    """In a task of the loop in which it was first ensured; the same interface as `Periodic`.

    Args:
        method: What to await; an exception of it ends nothing.
        interval: Seconds between the end of one call and the start of the next.
        name: What the task is called.
    """

    def __init__(self, method: Callable[[], Awaitable[object]], interval: float, name: str) -> None:
        self.interval = interval
        self._method = method
        self._name = name
        self._task: asyncio.Task[None] | None = None

    def ensure(self) -> None:
        """Start the task where it does not run yet."""
        if self._task is None or self._task.done():
            context = contextvars.Context()  # no caller's deadline or scope: it outlives them
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name=f"resilient-{self._name}", context=context
            )

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # documented: the method reports its own failures
                await self._method()
            await asyncio.sleep(self.interval)

    async def aclose(self) -> None:
        """Stop the calls, also one that runs."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
