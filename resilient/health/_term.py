"""Being told to end: drain first, pass it on later."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from resilient.arguments import is_number
from resilient.clock import Clock
from resilient.errors import ConfigurationError
from resilient.runtime import start_thread

__all__ = ["TermHook"]


class TermHook:
    """A handler of SIGTERM in front of the one that was there.

    Args:
        drain: Called at the first signal, on a thread. It returns soon, and does not raise.
        delay: Seconds until the signal is passed on.
        clock: Where the time comes from.
    """

    def __init__(self, drain: Callable[[], object], delay: float, clock: Clock) -> None:
        if not is_number(delay) or not 0 <= delay < float("inf"):
            raise ConfigurationError(f"delay={delay!r} is no time", advice="use seconds >= 0")
        self._drain = drain
        self._delay = delay
        self._clock = clock
        self._before: Any = None
        self._pid = os.getpid()
        self._told = False
        self._passed = False

    def install(self) -> Callable[[], None]:
        """Take the place of the handler; what is returned gives it back."""
        if threading.current_thread() is not threading.main_thread():
            raise ConfigurationError(
                "signals are handled in the main thread, and this is another one",
                advice="call it while the process starts",
            )
        before = signal.getsignal(signal.SIGTERM)
        if _of_a_loop(before):
            return self._install_in_loop()
        self._before = before
        signal.signal(signal.SIGTERM, self._handle)
        return self._remove

    def _remove(self) -> None:
        # Bound methods are made anew each time, so they are compared and not identified.
        if signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)

    def _install_in_loop(self) -> Callable[[], None]:
        """Take the place of a handler that an event loop calls.

        The loop hears of a signal by itself, whatever handler the process has: it is the loop's own that has to be
        replaced. There is no public way to ask for it, so where it is not found the hook is refused.
        """
        loop: Any = asyncio._get_running_loop()  # noqa: SLF001 - the documented function raises where there is none
        held = getattr(loop, "_signal_handlers", {}).get(signal.SIGTERM)
        callback, args = getattr(held, "_callback", None), getattr(held, "_args", ())
        if callback is None:
            raise ConfigurationError(
                "SIGTERM is handled by an event loop that does not say how",
                advice="call it inside the running loop of asyncio; with another loop call health.drain() in the "
                "server's own handler, and end the server a while later",
            )

        def before(_number: int, _frame: FrameType | None) -> None:
            callback(*args)

        def remove() -> None:
            if not loop.is_closed() and loop._signal_handlers.get(signal.SIGTERM) is mine:  # noqa: SLF001 - found above
                loop.add_signal_handler(signal.SIGTERM, callback, *args)

        self._before = before
        loop.add_signal_handler(signal.SIGTERM, self._handle, signal.SIGTERM, None)
        mine = loop._signal_handlers[signal.SIGTERM]  # noqa: SLF001 - found above
        return remove

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A child that was forked has this handler too; it serves nobody, so nobody has to be told that it ends.
        if not self._told and os.getpid() == self._pid:
            self._told = True
            try:
                # On a thread: what the main thread was doing here may hold a lock that telling the log would take.
                start_thread(self._wait, name="health-drain")
            except RuntimeError:  # the machine has no thread to spare: then it ends as if there were no hook
                self._pass_on(number, frame)
            return
        self._pass_on(number, frame)

    def _wait(self) -> None:
        self._drain()
        self._clock.sleep(self._delay)
        if not self._passed:  # a server that is told twice may end without waiting for its requests
            os.kill(self._pid, signal.SIGTERM)  # handlers run in the main thread: the second one is passed on

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._passed = True
        if callable(self._before):
            self._before(number, frame)
        elif self._before != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _of_a_loop(handler: Any) -> bool:
    """Whether a handler only stands there so that an event loop hears of the signal: asyncio's, or that of a loop."""
    of_asyncio = getattr(handler, "__module__", None) == "asyncio.unix_events"
    return of_asyncio or isinstance(getattr(handler, "__self__", None), asyncio.AbstractEventLoop)
