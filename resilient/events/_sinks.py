"""The sinks that need no other library: logging, memory, and the queue in front of a slow one."""

from __future__ import annotations

import dataclasses
import logging
import queue
import re
import threading
from collections import deque
from typing import TypeVar

from resilient.errors import ConfigurationError
from resilient.events._stream import Event, Sink
from resilient.runtime import after_fork, fork_safe_lock, start_thread

__all__ = ["LogSink", "MemorySink", "QueuedSink"]

EventT = TypeVar("EventT", bound=Event)

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


class LogSink:
    """Writes each event as one line to the logger of its room, such as ``resilient.cache``.

    One is subscribed from the start for events of level INFO and above, that is for changes of state. What it shows,
    and where, is decided by the application's `logging` configuration.
    """

    def __call__(self, event: Event, /) -> None:
        """Log the event as words and ``field=value`` pairs."""
        kind = type(event)
        logger = logging.getLogger(".".join(kind.__module__.split(".")[:2]))
        if logger.isEnabledFor(kind.level):
            words = _WORD_START.sub(" ", kind.__name__).lower()
            pairs = " ".join(f"{field.name}={getattr(event, field.name)}" for field in dataclasses.fields(event))
            logger.log(kind.level, "%s %s", words, pairs, extra={"resilient_event": event})


class MemorySink:
    """Keeps the last events, for tests and for a look inside.

    Args:
        capacity: How many to keep; older ones are dropped.

    Examples:
        >>> from resilient import events
        >>> sink = MemorySink()
        >>> unsubscribe = events.subscribe(sink)
        >>> events.emit(events.Event()); unsubscribe()
        >>> sink.events
        (Event(),)
    """

    def __init__(self, capacity: int = 1000) -> None:
        self._events: deque[Event] = deque(maxlen=capacity)

    def __call__(self, event: Event, /) -> None:
        """Keep the event."""
        self._events.append(event)

    @property
    def events(self) -> tuple[Event, ...]:
        """What was kept, oldest first."""
        return tuple(self._events)

    def of(self, kind: type[EventT]) -> tuple[EventT, ...]:
        """What was kept of one kind, oldest first."""
        return tuple(event for event in self._events if isinstance(event, kind))

    def clear(self) -> None:
        """Forget everything."""
        self._events.clear()


class QueuedSink:
    """Puts a bounded queue and a thread in front of a slow sink, so that no call waits for it.

    Args:
        sink: The slow one.
        capacity: How many events may wait; when full, new ones are dropped and counted in ``dropped``.
    """

    def __init__(self, sink: Sink, capacity: int = 10_000) -> None:
        if capacity < 1:
            raise ConfigurationError(f"a queue needs room for at least one event, got capacity={capacity}")
        self._sink = sink
        self._capacity = capacity
        self.dropped = 0
        self.failures = 0
        self._lock = fork_safe_lock()
        self._reset()
        after_fork(self._reset)

    def _reset(self) -> None:
        self._queue: queue.Queue[Event | None] = queue.Queue(self._capacity)
        self._thread: threading.Thread | None = None
        self._closed = False

    def __call__(self, event: Event, /) -> None:
        """Queue the event, or drop and count it."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = start_thread(self._drain, self._queue, name="events")
        try:
            if self._closed:
                raise queue.Full
            self._queue.put_nowait(event)
        except queue.Full:
            with self._lock:
                self.dropped += 1

    def _drain(self, events: queue.Queue[Event | None]) -> None:
        while (event := events.get()) is not None:
            try:
                self._sink(event)
            except Exception:  # noqa: BLE001 - counted; the next event may fare better
                self.failures += 1

    def close(self, timeout: float = 1.0) -> None:
        """Take no more events and wait at most that many seconds until the queued ones are delivered."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            try:
                self._queue.put(None, timeout=timeout)
            except queue.Full:
                return
            thread.join(timeout)
