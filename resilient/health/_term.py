"""Being told to end: drain first, pass it on later."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from resilient.clock import Clock
from resilient.errors import ConfigurationError
from resilient.runtime import start_thread

__all__ = ["TermHook"]


class TermHook:
    """A handler of SIGTERM in front of the one that was there.

    Args:
        drain: Called at the first signal, on a thread.
        delay: Seconds until the signal is passed on.
        clock: Where the time comes from.
    """

    def __init__(self, drain: Callable[[], object], delay: float, clock: Clock) -> None:
        if not 0 <= delay < float("inf"):
            raise ConfigurationError(f"delay={delay!r} is no time", advice="use seconds >= 0")
        self._drain = drain
        self._delay = delay
        self._clock = clock
        self._before: Any = None
        self._told = False
        self._passed = False

    def install(self) -> Callable[[], None]:
        """Take the place of the handler; what is returned gives it back."""
        if threading.current_thread() is not threading.main_thread():
            raise ConfigurationError(
                "signals are handled in the main thread, and this is another one",
                advice="call it while the process starts",
            )
        self._before = signal.signal(signal.SIGTERM, self._handle)
        return self._remove

    def _remove(self) -> None:
        # Bound methods are made anew each time, so they are compared and not identified.
        if signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._told:
            self._told = True
            # On a thread: what the main thread was doing here may hold a lock that telling the log would take.
            start_thread(self._wait, os.getpid(), name="health-drain")
            return
        self._pass_on(number, frame)

    def _wait(self, pid: int) -> None:
        self._drain()
        self._clock.sleep(self._delay)
        if not self._passed:  # a server that is told twice may end without waiting for its requests
            os.kill(pid, signal.SIGTERM)  # handlers run in the main thread: the second signal is the one passed on

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._passed = True
        if callable(self._before):
            self._before(number, frame)
        elif self._before != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
