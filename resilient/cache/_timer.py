"""Work that is left for later is tried again and again while there is some: by a thread, or by an event loop.

Written twice, since a thread and a loop wait in different ways.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from resilient.runtime import after_fork, at_exit, fork_safe_lock, start_thread

if TYPE_CHECKING:
    import asyncio

__all__ = ["AsyncExit", "AsyncTimer", "Exit", "Timer"]


class Timer:
    """Calls a method at intervals, on a thread that lives only while there is something to do.

    Args:
        method: A bound method, held weakly, that says whether it wants to be called again. An exception counts as yes:
            it is expected to report its own failures.
        interval: Seconds before each call.
        name: What the thread is called.
    """

    def __init__(self, method: Callable[[], bool], interval: float, name: str) -> None:
        self.interval = interval
        self._method = weakref.WeakMethod(method)
        self._name = name
        self._lock = fork_safe_lock()
        self._reset()
        after_fork(self._reset)

    def _reset(self) -> None:
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._wanted = False
        self._closed = False

    def ensure(self) -> None:
        """There is something to do."""
        with self._lock:
            self._wanted = True
            if self._thread is None and not self._closed:
                with contextlib.suppress(RuntimeError):  # the interpreter ends, and starts no threads any more
                    # No caller's deadline or scope goes along: this outlives them.
                    self._thread = contextvars.Context().run(start_thread, self._work, name=self._name)

    def kick(self) -> None:
        """There is something to do, and it should not wait."""
        self.ensure()
        self._wake.set()

    def _work(self) -> None:
        more = True
        while more:
            self._wake.wait(min(self.interval, threading.TIMEOUT_MAX))
            self._wake.clear()
            self._wanted = False
            method = None if self._closed else self._method()
            if method is None:
                more = self._wanted = False
            else:
                try:
                    more = method()
                except Exception:  # noqa: BLE001 - documented: it reports its own failures
                    more = True
            del method  # do not keep the object alive while waiting
            with self._lock:
                more = (more or self._wanted) and not self._closed
                if not more:
                    self._thread = None

    def close(self, timeout: float = 1.0) -> None:
        """Call no more; wait at most that many seconds for a call that runs."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


class AsyncTimer:
    """The same in the event loop that asks for it; see `Timer`."""

    def __init__(self, method: Callable[[], Coroutine[Any, Any, bool]], interval: float, name: str) -> None:
        self.interval = interval
        self._method = weakref.WeakMethod(method)
        self._name = name
        self._reset()
        after_fork(self._reset)

    def _reset(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._wanted = False
        self._closed = False

    def ensure(self) -> None:
        """There is something to do."""
        loop = _running_loop()
        if loop is None or self._closed:
            return
        self._wanted = True
        if self._loop is not None and self._loop.is_running() and (self._handle or self._task):
            return
        self._loop, self._task = loop, None
        self._wait(loop, self.interval)

    def kick(self) -> None:
        """There is something to do, and it should not wait. Raises RuntimeError where no event loop runs."""
        import asyncio  # who never awaits does without it

        running = asyncio.get_running_loop()
        self.ensure()
        loop, handle = self._loop, self._handle
        if handle is not None and loop is running:
            handle.cancel()
            self._wait(running, 0.0)

    def _wait(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        # No caller's deadline or scope goes along: this outlives them.
        self._handle = loop.call_later(seconds, self._fire, loop, context=contextvars.Context())

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = None
        self._wanted = False
        method = self._method()
        if method is not None and not self._closed:
            self._task = loop.create_task(self._work(loop, method), name=f"resilient-{self._name}")

    async def _work(self, loop: asyncio.AbstractEventLoop, method: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        try:
            more = await method()
        except Exception:  # noqa: BLE001 - documented: it reports its own failures
            more = True
        self._task = None
        if (more or self._wanted) and not self._closed:
            self._wait(loop, self.interval)

    async def close(self) -> None:
        """Call no more, and end a call that runs in this loop."""
        import asyncio  # who never awaits does without it

        self._closed = True
        handle, task = self._handle, self._task
        if self._loop is not _running_loop():
            return
        if handle is not None:
            handle.cancel()
            self._handle = None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Exit:
    """What is to be done when the process ends."""

    @staticmethod
    def hook(method: Callable[[], object]) -> None:
        """Call a bound method then, for as long as its object lives."""
        at_exit(method)


class AsyncExit:
    """No event loop runs when the process ends: what is to be done then is done where the cache is closed."""

    @staticmethod
    def hook(method: Callable[[], object]) -> None:
        """Nothing."""
