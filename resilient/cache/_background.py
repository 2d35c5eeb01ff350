"""Loads that nobody waits for, or not to their end; and how many loads run at once.

Written twice, since a thread and a task are started and held up in different ways.
"""

from __future__ import annotations

import contextvars
import queue
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from resilient.clock import Clock
from resilient.errors import Overloaded, Unavailable
from resilient.policy import deadline
from resilient.policy._deadline import current  # what is begun here outlives its caller's deadline
from resilient.runtime import PerLoop, WorkerPool, after_fork, fork_safe_lock

if TYPE_CHECKING:
    import asyncio

__all__ = ["AsyncBackground", "AsyncCap", "Background", "Cap"]

_inside: contextvars.ContextVar[frozenset[int]] = contextvars.ContextVar("resilient_cache_loading", default=frozenset())
"""The caps under which the running code loads already: what a loader loads in turn needs no place of its own."""


class Background:
    """Threads for loads that their callers do not wait for. The first is started when first needed.

    Args:
        name: The cache's namespace.
        size: How many loads at most.
        limit: Seconds that a load has; what it calls obeys that as a deadline.
        clock: Where time is read.
    """

    def __init__(self, name: str, size: int, limit: float, clock: Clock) -> None:
        self._name = name
        self._size = size
        self._limit = limit
        self._clock = clock
        self._lock = fork_safe_lock()
        self._pool: WorkerPool | None = None
        self._ends: WorkerPool | None = None
        self._closed = False

    def start(self, job: Callable[..., Any], *args: Any) -> bool:
        """Run a job that handles its own errors. ``False`` where there is no room, or when it is closed."""
        pool = self._pool
        if pool is None:
            with self._lock:
                if self._closed:
                    return False
                pool = self._pool = self._pool or WorkerPool(f"cache-{self._name}", self._size, backlog=0)
        try:
            contextvars.copy_context().run(self._submit, pool, job, args)
        except (Overloaded, Unavailable):
            return False
        return True

    def finish(self, job: Callable[..., Any], *args: Any) -> None:
        """Run what ends a load, such as giving its lease back: there is room for it, and closing waits for it.

        A load that ends after the closing ends on the thread that it runs on.
        """
        ends = self._ends
        if ends is None:
            with self._lock:
                if not self._closed:
                    ends = self._ends = self._ends or WorkerPool(f"cache-{self._name}-ends", 1, backlog=sys.maxsize)
        context = contextvars.copy_context()
        try:
            if ends is not None:
                context.run(self._submit, ends, job, args)
                return
        except Unavailable:
            pass  # closed at this moment
        context.run(self._run_alone, job, args)

    def _submit(self, pool: WorkerPool, job: Callable[..., Any], args: tuple[Any, ...]) -> None:
        _leave_caller()
        pool.submit(self._run, job, args)

    def _run_alone(self, job: Callable[..., Any], args: tuple[Any, ...]) -> None:
        _leave_caller()
        self._run(job, args)

    def _run(self, job: Callable[..., Any], args: tuple[Any, ...]) -> None:
        with deadline(self._limit, clock=self._clock):
            job(*args)

    def close(self) -> None:
        """Begin no more; loads that run are left to end, and what ends others is waited for, a second at most."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
            ends, self._ends = self._ends, None
        if pool is not None:
            pool.close()
        if ends is not None:
            ends.close(min(self._limit, 1.0))


class AsyncBackground:
    """Tasks for loads that their callers do not wait for; see `Background`."""

    def __init__(self, name: str, size: int, limit: float, clock: Clock) -> None:
        self._name = name
        self._size = size
        self._limit = limit
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._closing = False

    def start(self, job: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> bool:
        """Run a job that handles its own errors. ``False`` where there is no room."""
        if self._closing:
            return False
        if len(self._tasks) >= self._size:
            self._tasks -= {task for task in self._tasks if task.get_loop().is_closed()}
            if len(self._tasks) >= self._size:
                return False
        self._begin(self._tasks, job, args)
        return True

    def finish(self, job: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Run what ends a load, such as giving its lease back: there is room for it, and closing waits for it."""
        self._ends -= {task for task in self._ends if task.get_loop().is_closed()}
        self._begin(self._ends, job, args)

    def _begin(
        self, tasks: set[asyncio.Task[None]], job: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...]
    ) -> None:
        import asyncio  # who never awaits does without it

        context = contextvars.copy_context()
        context.run(_leave_caller)
        task = asyncio.get_running_loop().create_task(
            self._run(job, args), name=f"resilient-cache-{self._name}", context=context
        )
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _run(self, job: Callable[..., Coroutine[Any, Any, Any]], args: tuple[Any, ...]) -> None:
        async with deadline(self._limit, clock=self._clock):
            await job(*args)

    async def close(self) -> None:
        """Begin no more, and end what runs in this loop; what it leaves to be ended is waited for."""
        import asyncio  # who never awaits does without it

        self._closing = True
        try:
            loads = self._here(self._tasks)
            for task in loads:
                task.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
            while ends := self._here(self._ends):
                await asyncio.gather(*ends, return_exceptions=True)
        finally:
            self._closing = False

    @staticmethod
    def _here(tasks: set[asyncio.Task[None]]) -> list[asyncio.Task[None]]:
        import asyncio

        loop = asyncio.get_running_loop()
        return [task for task in tasks if task.get_loop() is loop and task is not asyncio.current_task()]


def _leave_caller() -> None:
    """What is begun here outlives its caller: neither the caller's deadline nor its place under a cap go with it."""
    current.set(None)
    _inside.set(frozenset())


# ------------------------------------------------------------------------------------------------- how many at once


class Cap:
    """So many loads at once, so that a cache that is away does not bring its source down.

    Args:
        name: The cache's namespace.
        size: How many.
        limit: Seconds that a load waits for its turn at most, where its caller's deadline is not nearer.
    """

    def __init__(self, name: str, size: int, limit: float) -> None:
        self._name = name
        self._size = size
        self._limit = limit
        self._reset()
        after_fork(self._reset)

    def _reset(self) -> None:
        self._places: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(self._size):
            self._places.put(None)

    def inside(self) -> bool:
        """Whether the caller runs inside a place."""
        return id(self) in _inside.get()

    def take(self) -> Any:
        """Take a place, to be given back with what this returns; inside another place there is always one.

        Raises:
            Overloaded: None came free in time.
        """
        inside = _inside.get()
        if id(self) in inside:
            return None
        places = self._places
        try:
            places.get_nowait()
        except queue.Empty:
            try:
                places.get(timeout=_patience(self._limit))
            except queue.Empty:
                raise _crowded(self._name, self._size) from None
        return places, _inside.set(inside | {id(self)})

    def give(self, taken: Any) -> None:
        """Give a place back."""
        if taken is not None:
            places, token = taken
            _inside.reset(token)
            places.put(None)


class AsyncCap:
    """So many loads at once in each event loop; see `Cap`."""

    def __init__(self, name: str, size: int, limit: float) -> None:
        import asyncio  # who never awaits does without it

        self._name = name
        self._size = size
        self._limit = limit
        self._places = PerLoop(lambda: asyncio.Semaphore(size))

    def inside(self) -> bool:
        """Whether the caller runs inside a place."""
        return id(self) in _inside.get()

    async def take(self) -> Any:
        """Take a place; see `Cap.take`."""
        inside = _inside.get()
        if id(self) in inside:
            return None
        import asyncio

        places = self._places.get()
        try:
            async with asyncio.timeout(_patience(self._limit)):
                await places.acquire()
        except TimeoutError:
            raise _crowded(self._name, self._size) from None
        return places, _inside.set(inside | {id(self)})

    def give(self, taken: Any) -> None:
        """Give a place back."""
        if taken is not None:
            places, token = taken
            _inside.reset(token)
            places.release()


def _patience(limit: float) -> float:
    left = deadline.remaining()
    return limit if left is None else min(left, limit)


def _crowded(name: str, size: int) -> Overloaded:
    return Overloaded(
        f"{size} loads of the cache {name!r} run already, and none ended in time",
        advice="serve a substitute, come back later, or raise max_loads if the source can take it",
    )
