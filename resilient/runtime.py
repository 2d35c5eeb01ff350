"""Threads, forks and event loops: the only place that starts a thread or hooks a fork.

Every thread started here is a daemon (a hung call cannot keep the process from ending), carries a copy of the
starter's context variables (a deadline crosses into it) and is forgotten in a forked child, where it does not exist.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from resilient.clock import SYSTEM
from resilient.errors import ConfigurationError, Overloaded, Unavailable

if TYPE_CHECKING:
    import asyncio

__all__ = ["PerLoop", "Periodic", "WorkerPool", "after_fork", "at_exit", "fork_safe_lock", "start_thread"]

P = ParamSpec("P")
T = TypeVar("T")


# ---------------------------------------------------------------------------------------------------------- forks

_fork_hooks: list[weakref.WeakMethod[Callable[[], None]]] = []
_fork_locks: weakref.WeakSet[threading.Lock] = weakref.WeakSet()


def fork_safe_lock() -> threading.Lock:
    """A lock that is free in a forked child, whoever held it in the parent.

    A plain lock that another thread of the parent holds while a third one forks stays locked in the child for
    ever: its holder does not exist there. This one is an ordinary `threading.Lock`, so that taking it costs the
    same, which the child frees before anything else of this library runs in it. Every lock of an object or a
    module that may live across a fork is made here.

    What the lock guards may have been half changed by the thread that held it: an object whose parts must agree
    also makes them anew, in a hook of `after_fork`. The thread that forks must not hold the lock itself.

    Examples:
        >>> lock = fork_safe_lock()
        >>> with lock:
        ...     lock.locked()
        True
    """
    lock = threading.Lock()
    _fork_locks.add(lock)
    return lock


_fork_lock = fork_safe_lock()
_full = [64]
"""How many hooks there may be until those of dead objects are dropped."""


def after_fork(method: Callable[[], None]) -> None:
    """Call a bound method in every forked child, for as long as its object lives.

    Locks need no hook: see `fork_safe_lock`. They are free again when the hooks run.

    Args:
        method: A bound method that drops what a child must not share: sockets, threads, pools.

    Examples:
        >>> class Client:
        ...     def __init__(self) -> None:
        ...         self.sockets: list[object] = []
        ...         after_fork(self.forget)
        ...     def forget(self) -> None:
        ...         self.sockets = []
        >>> client = Client()
    """
    with _fork_lock:
        if len(_fork_hooks) >= _full[0]:  # now and then, so that many objects cost no more than few
            _fork_hooks[:] = [hook for hook in _fork_hooks if hook() is not None]
            _full[0] = 64 + 2 * len(_fork_hooks)
        _fork_hooks.append(weakref.WeakMethod(method))


def _run_in_child() -> None:
    for lock in _fork_locks:
        lock._at_fork_reinit()  # type: ignore[attr-defined] # noqa: SLF001 - what the standard library calls too
    for hook in _fork_hooks:
        method = hook()
        if method is not None:
            method()


if hasattr(os, "register_at_fork"):  # a system without it does not fork
    os.register_at_fork(after_in_child=_run_in_child)


# ----------------------------------------------------------------------------------------------------------- exit

_exit_hooks: list[weakref.WeakMethod[Callable[[], object]]] = []


def at_exit(method: Callable[[], object]) -> None:
    """Call a bound method when the process ends in order, for as long as its object lives.

    A process that is killed, or that ends by a signal it does not handle, calls nothing.

    Args:
        method: A bound method that brings to its end what would be lost otherwise, in a short time. It starts no
            threads, which cannot be started any more, and its exceptions are dropped.

    Examples:
        >>> class Buffer:
        ...     def __init__(self) -> None:
        ...         at_exit(self.drain)
        ...     def drain(self) -> None:
        ...         print("drained")
        >>> buffer = Buffer()
    """
    with _fork_lock:
        if not _exit_hooks:
            atexit.register(_run_at_exit)
        # The first hook stays, so that this is registered once.
        _exit_hooks[1:] = [hook for hook in _exit_hooks[1:] if hook() is not None]
        _exit_hooks.append(weakref.WeakMethod(method))


def _run_at_exit() -> None:
    for hook in _exit_hooks:
        method = hook()
        if method is not None:
            with contextlib.suppress(Exception):  # documented: the process ends all the same
                method()


# -------------------------------------------------------------------------------------------------------- threads


def start_thread(target: Callable[..., object], *args: object, name: str) -> threading.Thread:
    """Start a daemon thread that sees the caller's context variables.

    Args:
        target: What to run.
        *args: Its arguments.
        name: What the thread is called in a stack dump; starts with ``resilient-``.
    """
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(target, *args), name=f"resilient-{name}", daemon=True)
    thread.start()
    return thread


class WorkerPool:
    """A bounded pool of daemon threads with a bounded queue.

    Unlike `concurrent.futures.ThreadPoolExecutor` it does not wait for a hung job at exit, refuses work instead of
    queueing without end, and hands each job the caller's context variables.

    Args:
        name: What its threads are called.
        size: How many threads at most; they are started when needed.
        backlog: How many jobs may wait for a thread.

    Examples:
        >>> pool = WorkerPool("sums", size=2)
        >>> pool.submit(sum, [1, 2, 3]).result()
        6
        >>> pool.close(timeout=1.0)
        True
    """

    def __init__(self, name: str, size: int, backlog: int = 1000) -> None:
        if size < 1 or backlog < 0:
            raise ConfigurationError(f"a pool needs size >= 1 and backlog >= 0, got {size} and {backlog}")
        self.name = name
        self.size = size
        self.backlog = backlog
        self._lock = fork_safe_lock()
        self._reset()
        after_fork(self._reset)

    def _reset(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._free = 0  # threads that wait for a job, less the jobs queued for them
        self._closed = False

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function on a thread of the pool.

        Raises:
            Overloaded: All threads are busy and the backlog is full, or the machine has no thread to spare for the
                first one; the function was not run.
            Unavailable: The pool is closed.
        """
        future: Future[T] = Future()
        context = contextvars.copy_context()
        with self._lock:
            if self._closed:
                raise Unavailable(f"the worker pool {self.name!r} is closed")
            if self._free <= 0 and len(self._threads) < self.size:
                # The new thread must not inherit this caller's context: it outlives the caller.
                thread = threading.Thread(
                    target=self._work, name=f"resilient-{self.name}-{len(self._threads)}", daemon=True
                )
                self._threads.append(thread)
                self._free += 1
                try:
                    thread.start()
                except RuntimeError as error:  # too many threads on this machine, or the interpreter ends
                    self._threads.remove(thread)
                    self._free -= 1
                    if not self._threads:
                        raise Overloaded(f"no thread can be started for the worker pool {self.name!r}") from error
            if -self._free >= self.backlog and self._free <= 0:
                raise Overloaded(f"the worker pool {self.name!r} has {self.size} busy threads and a full backlog")
            self._free -= 1
            self._jobs.put((future, lambda: context.run(function, *args, **kwargs)))
        return future

    def _work(self) -> None:
        jobs = self._jobs
        while (job := jobs.get()) is not None:
            future, run = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(run())
                except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the waiter
                    future.set_exception(error)
            del job, future, run  # hold nothing of the last job while waiting for the next
            with self._lock:
                self._free += 1

    def close(self, timeout: float = 0.0) -> bool:
        """Take no more jobs, and wait for those that were taken.

        Args:
            timeout: How many seconds to wait; a job still running then is left to its daemon thread.

        Returns:
            Whether every thread has ended.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._jobs.put(None)
        until = SYSTEM.monotonic() + timeout
        for thread in self._threads:
            with contextlib.suppress(RuntimeError):  # not started: its `submit` was interrupted, as by Ctrl-C
                thread.join(max(0.0, until - SYSTEM.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)


class Periodic:
    """A method that is called again and again on a thread of its own, until closed or its object is gone.

    Args:
        method: A bound method; held weakly, so that the thread does not keep its object alive.
        interval: Seconds between the end of one call and the start of the next.
        name: What the thread is called.

    The thread starts with the first `ensure`, so that making the object costs nothing, and starts anew in a forked
    child that calls `ensure`. An exception of the method ends neither the thread nor the process: the method is
    expected to report its own failures.
    """

    def __init__(self, method: Callable[[], object], interval: float, name: str) -> None:
        self.interval = interval
        self._method = weakref.WeakMethod(method)
        self._name = name
        self._lock = fork_safe_lock()
        self._reset()
        after_fork(self._reset)

    def _reset(self) -> None:
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Start the thread where it does not run; if the machine has none to spare, the next call tries again."""
        if self._thread is not None or self._closed:
            return
        with self._lock:
            if self._thread is None:
                context = contextvars.Context()  # no caller's deadline or scope: it outlives them
                thread = threading.Thread(
                    target=context.run,
                    args=(_run_periodically, self._method, self._wake, self.interval),
                    name=f"resilient-{self._name}",
                    daemon=True,
                )
                with contextlib.suppress(RuntimeError):
                    thread.start()
                    self._thread = thread

    def close(self, timeout: float = 1.0) -> None:
        """Stop the calls; wait at most that many seconds for one that runs."""
        with self._lock:
            self._closed = True
            self._wake.set()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


def _run_periodically(method: weakref.WeakMethod[Callable[[], object]], stop: threading.Event, interval: float) -> None:
    while not stop.is_set():
        call = method()
        if call is None:
            return
        with contextlib.suppress(Exception):  # documented: the method reports its own failures
            call()
        del call  # do not keep the object alive while waiting
        stop.wait(interval)


# ---------------------------------------------------------------------------------------------------- event loops


class PerLoop(Generic[T]):
    """One value for each running event loop, made on first use and dropped with its loop.

    Args:
        factory: Makes the value; called inside the loop it is for.

    Examples:
        >>> import asyncio
        >>> locks = PerLoop(asyncio.Lock)
        >>> async def same() -> bool:
        ...     return locks.get() is locks.get()
        >>> asyncio.run(same())
        True
    """

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._values: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, T] = weakref.WeakKeyDictionary()

    def get(self) -> T:
        """The value of the running loop. Raises RuntimeError where no loop runs."""
        import asyncio  # who never awaits does without it

        loop = asyncio.get_running_loop()
        try:
            return self._values[loop]
        except KeyError:
            return self._values.setdefault(loop, self._factory())
