"""The hook of SIGTERM beside what else handles signals: event loops, forks, a machine without threads."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from resilient import events
from resilient.errors import ConfigurationError
from resilient.health import Health
from resilient.testing.clock import FakeClock


class Sleeper(FakeClock):
    """A clock whose sleepers wait to be woken."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep, self.wake = threading.Event(), threading.Event()

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.asleep.set()
        assert self.wake.wait(20)


@pytest.fixture(autouse=True)
def _handler():
    """The process's own handler is as before, whatever a test did."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_server_on_an_event_loop_is_told_after_the_delay():
    """A loop hears of a signal by itself; its handler is held back too, and called once, in the loop."""

    async def serve() -> None:
        told: list[tuple[str, object]] = []
        ended = asyncio.Event()

        def end(word: str) -> None:
            told.append((word, asyncio.get_running_loop()))
            ended.set()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, end, "end")
        clock = Sleeper()
        health = Health(clock=clock)
        health.drain_on_sigterm(delay=5.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.to_thread(clock.asleep.wait, 10)
        await asyncio.sleep(0)
        assert (health.ready().http_status, health.live().http_status, told) == (503, 200, [])
        clock.wake.set()
        await asyncio.wait_for(ended.wait(), 10)
        assert told == [("end", loop)]
        loop.remove_signal_handler(signal.SIGTERM)

    asyncio.run(serve())


def test_a_second_signal_to_an_event_loop_is_passed_on_at_once():
    """And the delayed one is then not passed on as well."""

    async def serve() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, told.put_nowait, "end")
        clock = Sleeper()
        Health(clock=clock).drain_on_sigterm(delay=5.0)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            assert await asyncio.to_thread(clock.asleep.wait, 10)
        assert await asyncio.wait_for(told.get(), 10) == "end"
        clock.wake.set()
        for thread in threading.enumerate():
            if thread.name == "resilient-health-drain":
                await asyncio.to_thread(thread.join, 10)
        await asyncio.sleep(0.01)
        assert told.empty()
        loop.remove_signal_handler(signal.SIGTERM)

    asyncio.run(serve())


def test_a_log_that_hangs_keeps_no_process_from_ending():
    """The delay begins, whoever still has to be told that it did."""
    free, ended = threading.Event(), []
    end = events.subscribe(lambda _event: free.wait(20))
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    clock = Sleeper()
    health = Health(clock=clock)
    try:
        health.drain_on_sigterm(delay=5.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert clock.asleep.wait(10)
        assert health.draining
        clock.wake.set()
        until = time.monotonic() + 10
        while not ended and time.monotonic() < until:
            time.sleep(0.001)
        assert ended
    finally:
        free.set()
        clock.wake.set()
        end()


def test_the_place_in_an_event_loop_is_given_back_only_while_it_is_held():
    """The loop's handler is called as before; one that was set later stays."""

    async def serve() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, told.put_nowait, "first")
        undo = Health().drain_on_sigterm(delay=5.0)
        undo()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(told.get(), 10) == "first"
        undo = Health().drain_on_sigterm(delay=5.0)
        loop.add_signal_handler(signal.SIGTERM, told.put_nowait, "later")
        undo()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(told.get(), 10) == "later"
        loop.remove_signal_handler(signal.SIGTERM)

    asyncio.run(serve())


def test_a_loop_whose_handler_cannot_be_found_is_refused():
    """With a word on what to do, instead of a hook that is silently never asked."""

    class Other(asyncio.SelectorEventLoop):
        """Handles signals in a way of its own, as loops that are written in C do."""

        def on_signal(self, *_: object) -> None:
            raise AssertionError

    loop = Other()
    signal.signal(signal.SIGTERM, loop.on_signal)
    with pytest.raises(ConfigurationError, match="event loop"):
        Health().drain_on_sigterm()
    assert signal.getsignal(signal.SIGTERM) == loop.on_signal
    loop.close()


def test_the_loop_of_asyncio_is_found_only_while_it_runs():
    """Before that nobody can say which loop will be told."""
    loop = asyncio.new_event_loop()
    loop.add_signal_handler(signal.SIGTERM, print)
    with pytest.raises(ConfigurationError, match="inside the running loop"):
        Health().drain_on_sigterm()
    loop.remove_signal_handler(signal.SIGTERM)
    loop.close()


def test_a_forked_child_ends_at_once():
    """It inherits the handler, but serves nobody: it is not held back by the parent's delay."""
    program = """
        import os, signal, sys, time
        from resilient.health import Health
        signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
        Health().drain_on_sigterm(delay=60.0)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, b"!")  # a signal that comes while it is being forked is lost
            while True:
                time.sleep(60)
        os.read(read, 1)
        os.kill(child, signal.SIGTERM)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("7\n", "", 0)


def test_a_machine_without_a_thread_to_spare_passes_the_signal_on(monkeypatch):
    """The process ends as if there were no hook, and nothing is raised into what its main thread was doing."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    Health().drain_on_sigterm(delay=5.0)

    def none(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("resilient.health._term.start_thread", none)
    os.kill(os.getpid(), signal.SIGTERM)
    began = time.monotonic()
    while not told:
        assert time.monotonic() < began + 10
    assert told == [signal.SIGTERM]
