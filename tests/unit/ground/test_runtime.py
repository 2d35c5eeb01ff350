"""Threads, forks and loops."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import weakref

import pytest
from prometheus_client import CollectorRegistry

from resilient import causality, events, runtime
from resilient.errors import ConfigurationError, Overloaded, Unavailable
from resilient.events import _stream
from resilient.events.prometheus import PrometheusSink
from resilient.ledger import MemoryStore
from resilient.policy import _waits
from resilient.runtime import Periodic, PerLoop, WorkerPool, after_fork, at_exit, fork_safe_lock, start_thread

word: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")


def test_a_pool_runs_jobs_with_the_callers_context() -> None:
    """A job sees the context variables of the one who submitted it, not of the one before."""
    pool = WorkerPool("test", size=1)
    try:
        word.set("first")
        first = pool.submit(word.get)
        word.set("second")
        second = pool.submit(word.get)
        assert (first.result(5), second.result(5)) == ("first", "second")
    finally:
        word.set("none")
        pool.close(1)


def test_a_pool_hands_errors_to_the_waiter() -> None:
    """Whatever a job raises reaches whoever waits for it, and the thread goes on."""
    pool = WorkerPool("test", size=1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result(5)
    assert pool.submit(sum, [1, 2]).result(5) == 3
    assert pool.close(1)


def test_a_full_pool_refuses() -> None:
    """With every thread busy and the backlog full, work is refused and not run."""
    gate, ran = threading.Event(), []
    pool = WorkerPool("test", size=2, backlog=1)
    jobs = [pool.submit(gate.wait, 5) for _ in range(3)]
    with pytest.raises(Overloaded):
        pool.submit(ran.append, 1)
    gate.set()
    assert all(job.result(5) for job in jobs)
    assert pool.submit(sum, [1]).result(5) == 1
    assert ran == []
    assert pool.close(1)


def test_a_pool_starts_threads_only_when_needed() -> None:
    """An idle thread is used before another one is started."""
    pool = WorkerPool("test", size=8)
    assert pool._threads == []
    for _ in range(5):
        pool.submit(sum, [1]).result(5)
        while pool._free < 1:  # the thread reports back just after it has given its result
            threading.Event().wait(0.001)
    assert len(pool._threads) == 1
    pool.close(1)


def test_a_cancelled_job_is_not_run() -> None:
    """A job cancelled while it waits for a thread is skipped."""
    gate, ran = threading.Event(), []
    pool = WorkerPool("test", size=1)
    busy = pool.submit(gate.wait, 5)
    waiting = pool.submit(ran.append, 1)
    assert waiting.cancel()
    gate.set()
    assert busy.result(5)
    assert pool.close(1)
    assert ran == []


def test_a_pool_whose_submit_was_interrupted_can_be_closed(monkeypatch) -> None:
    """Ctrl-C while a thread starts leaves one that never did; the rest of the pool ends as ever."""

    def interrupted(_thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    pool = WorkerPool("test", size=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(len, "abc")
    assert pool.close(timeout=1.0)


def test_a_pool_without_a_thread_to_spare_refuses_or_makes_do(monkeypatch) -> None:
    """No job is taken that nobody would do; where there is a thread already it does them all."""
    start = threading.Thread.start
    spare = [0, 1, 0, 0]

    def starve(thread: threading.Thread) -> None:
        if not spare.pop(0):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starve)
    pool, go = WorkerPool("poor", size=3), threading.Event()
    with pytest.raises(Overloaded, match="no thread"):
        pool.submit(sum, [1, 2])
    jobs = [pool.submit(go.wait, 10), *[pool.submit(sum, [number]) for number in range(2)]]
    go.set()
    assert [job.result(10) for job in jobs] == [True, 0, 1]
    assert pool.close(10)


def test_a_closed_pool_refuses_and_finishes() -> None:
    """close() lets what was taken finish, and what comes later is refused."""
    pool = WorkerPool("test", size=1)
    done = pool.submit(sum, [2, 3])
    assert pool.close(5)
    assert done.result(0) == 5
    with pytest.raises(Unavailable, match="closed"):
        pool.submit(sum, [1])


@pytest.mark.parametrize(("size", "backlog"), [(0, 1), (-1, 1), (1, -1)])
def test_a_pool_of_nothing_is_refused(size: int, backlog: int) -> None:
    """A pool without threads or with a negative backlog is a mistake, told at once."""
    with pytest.raises(ConfigurationError):
        WorkerPool("test", size=size, backlog=backlog)


def test_a_hung_job_does_not_keep_the_process() -> None:
    """The process ends while a job hangs for ever."""
    code = "from resilient.runtime import WorkerPool as W; import threading; W('x', 1).submit(threading.Event().wait)"
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == 0


def test_a_thread_carries_the_context() -> None:
    """start_thread hands the caller's context variables on, in a daemon."""
    seen: list[str] = []
    token = word.set("carried")
    thread = start_thread(lambda: seen.append(word.get()), name="test")
    word.reset(token)
    thread.join(5)
    assert seen == ["carried"]
    assert thread.daemon
    assert thread.name == "resilient-test"


class Counter:
    """Counts the calls of its method."""

    def __init__(self) -> None:
        self.calls = 0
        self.twice = threading.Event()

    def tick(self) -> None:
        self.calls += 1
        if self.calls == 2:
            self.twice.set()
        if self.calls == 1:
            raise RuntimeError("the first call fails")


def test_periodic_goes_on_after_a_failure() -> None:
    """It starts with the first ensure(), outlives an exception of its method, and stops when closed."""
    counter = Counter()
    periodic = Periodic(counter.tick, 0.001, "test")
    assert counter.calls == 0
    periodic.ensure()
    periodic.ensure()
    assert counter.twice.wait(5)
    periodic.close()
    calls = counter.calls
    periodic.ensure()
    assert counter.calls == calls


def test_periodic_starts_later_where_it_could_not(monkeypatch) -> None:
    """Without a thread to spare nothing is raised; the next call tries again, and it can be closed all the same."""

    def full(_thread) -> None:
        raise RuntimeError("can't start new thread")

    counter = Counter()
    periodic, never = Periodic(counter.tick, 0.001, "test"), Periodic(counter.tick, 0.001, "test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        periodic.ensure()
        never.ensure()
    never.close()
    periodic.ensure()
    assert counter.twice.wait(5)
    periodic.close()


def test_periodic_lets_its_object_go() -> None:
    """The thread does not keep the object alive, and ends when it is gone."""
    counter = Counter()
    gone = weakref.ref(counter)
    periodic = Periodic(counter.tick, 0.001, "test")
    periodic.ensure()
    assert counter.twice.wait(5)
    thread = periodic._thread
    del counter
    gc.collect()
    assert thread is not None
    thread.join(5)
    assert gone() is None
    assert not thread.is_alive()


def in_child(check) -> int:
    """Run a check in a forked child; 0 if it held."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if check() else 1)
        except BaseException:  # noqa: BLE001 - the child must end here, whatever happened
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    """A pool and a periodic call that ran in the parent work in the child."""
    pool = WorkerPool("test", size=1)
    counter = Counter()
    periodic = Periodic(counter.tick, 0.001, "test")
    periodic.ensure()
    assert pool.submit(sum, [1, 2]).result(5) == 3

    def check() -> bool:
        counter.calls, counter.twice = 1, threading.Event()
        periodic.ensure()
        return pool.submit(sum, [3, 4]).result(5) == 7 and counter.twice.wait(5)

    assert in_child(check) == 0
    periodic.close()
    pool.close(1)


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_fork_hooks_run_for_living_objects_only() -> None:
    """A hook is called in the child for as long as its object lives, and holds it no longer."""

    class Client:
        def __init__(self) -> None:
            self.sockets = ["open"]
            after_fork(self.forget)

        def forget(self) -> None:
            self.sockets = []

    kept, dropped = Client(), Client()
    gone = weakref.ref(dropped)
    del dropped
    gc.collect()
    assert gone() is None
    assert in_child(lambda: kept.sockets == []) == 0
    assert kept.sockets == ["open"]


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_what_is_to_be_done_at_the_end_is_done_for_living_objects_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hooks of what is gone are not called, and an exception of one does not keep the others from being called."""
    monkeypatch.setattr(runtime, "_exit_hooks", [])
    called: list[str] = []

    class Thing:
        def __init__(self, name: str) -> None:
            self.name = name
            at_exit(self.end)

        def end(self) -> None:
            called.append(self.name)
            raise RuntimeError("it cannot")

    things = [Thing(name) for name in "abcd"]
    del things[::2]
    gc.collect()
    things.append(Thing("e"))
    runtime._run_at_exit()
    assert called == ["b", "d", "e"]


def test_a_lock_held_by_a_thread_of_the_parent_is_free_in_a_child() -> None:
    """It is free before any hook runs, so that hooks may take it; the parent's holder keeps it."""
    lock = fork_safe_lock()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait(10)

    class Client:
        def __init__(self) -> None:
            self.took = False
            after_fork(self.take)

        def take(self) -> None:
            self.took = lock.acquire(timeout=1)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(5)
        client = Client()
        assert in_child(lambda: client.took and not lock.acquire(blocking=False)) == 0
        assert lock.locked()
    finally:
        release.set()
        thread.join(5)
    assert lock.acquire(blocking=False)


def test_a_lock_is_forgotten_with_its_owner() -> None:
    """What must be freed in a child is held weakly, and is an ordinary lock."""
    lock = fork_safe_lock()
    assert type(lock) is type(threading.Lock())
    gone = weakref.ref(lock)
    del lock
    gc.collect()
    assert gone() is None


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    "held",
    [
        causality._process_scope._lock,
        _stream._stream._lock,
        _waits._lock,
        MemoryStore()._lock,
        events.QueuedSink(print)._lock,
        PrometheusSink(CollectorRegistry())._lock,
    ],
    ids=["scope", "events", "waits", "ledger", "queued-sink", "prometheus"],
)
def test_what_all_of_a_process_share_is_usable_in_a_child_forked_while_it_was_locked(held: threading.Lock) -> None:
    """A lock that a thread of the parent held binds no child."""
    with held:
        assert in_child(lambda: held.acquire(timeout=1)) == 0


def test_each_loop_has_its_own_value() -> None:
    """The value is shared within a loop, another loop gets another, and outside any it is an error."""
    values = PerLoop(object)

    async def pair() -> tuple[object, object]:
        return values.get(), values.get()

    first, second = asyncio.run(pair()), asyncio.run(pair())
    assert first[0] is first[1]
    assert first[0] is not second[0]
    with pytest.raises(RuntimeError):
        values.get()
