"""Telling the log what has changed, so that nobody waits for the log."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from typing import Final

from resilient import events
from resilient.events import Event
from resilient.health._core import Status
from resilient.health._events import CheckChanged, CheckWorsened
from resilient.health._history import Change
from resilient.runtime import after_fork, at_exit, fork_safe_lock, start_thread

__all__ = ["Teller"]

_KEPT: Final = 1000  # events that wait for a log that hangs
_LAST_WORDS: Final = 0.5  # seconds that the end of the process waits for what is still to be told


class Teller:
    """Emits events one after another on a thread of its own, which ends when all is told.

    A handler of the log may block: when a database is down, what writes the log over the same network often is too. A
    report must not wait for it, and an event loop even less.
    """

    def __init__(self) -> None:
        self._lock = fork_safe_lock()
        self._reset()
        after_fork(self._reset)
        at_exit(self.finish)

    def _reset(self) -> None:
        self._waiting: deque[Event] = deque(maxlen=_KEPT)
        self._idle = threading.Event()
        self._idle.set()

    def tell(self, event: Event) -> None:
        """Emit an event soon, after those that were told before."""
        with self._lock:
            self._waiting.append(event)
            if not self._idle.is_set():
                return
            self._idle.clear()
            try:
                # An empty context: it is nobody's event, so no caller's deadline or scope may bind it.
                contextvars.Context().run(start_thread, self._run, name="health-log")
            except RuntimeError:  # the machine has no thread to spare: it is told with the next
                self._idle.set()
            except BaseException:  # a signal's handler raised here: whether the thread has begun is not known
                self._idle.set()
                raise

    def changed(self, name: str, change: Change | None) -> None:
        """Tell of a check's change, unless there is none, or it is a first run that passed."""
        if change is None or (change.before is None and change.status is Status.PASS):
            return
        worse = change.status > (change.before or Status.PASS)
        kind = CheckWorsened if worse else CheckChanged
        self.tell(
            kind(
                check=name,
                before=change.before.value if change.before is not None else "none",
                status=change.status.value,
                reason=change.reason,
                error=change.error,
                severity=change.status.severity,
            )
        )

    def finish(self, seconds: float = _LAST_WORDS) -> bool:
        """Wait until all is told, at most that long; whether it is."""
        return self._idle.wait(seconds)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._idle.set()
                    return
                event = self._waiting.popleft()
            try:
                events.emit(event)
            except BaseException:  # noqa: BLE001, S112 - a sink that wants to end the process ends nothing: no log is lost
                continue
