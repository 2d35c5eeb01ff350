"""What happened, as frozen values, and the sinks they go to.

Every room of the library tells what happens in it through this one stream. Changes of state (a breaker that opens, a
replica that leaves the rotation) reach `logging` by default; everything else costs nothing until a sink subscribes.

    >>> from resilient import events
    >>> sink = events.MemorySink()
    >>> unsubscribe = events.subscribe(sink)
    >>> unsubscribe()

Counted events carry OpenTelemetry's names: see `resilient.events.opentelemetry` and `resilient.events.prometheus`.
"""

import logging as _logging

from resilient.events._sinks import LogSink, MemorySink, QueuedSink
from resilient.events._stream import Event, Metric, Sink, emit, subscribe, wanted

__all__ = [
    "Event",
    "LogSink",
    "MemorySink",
    "Metric",
    "QueuedSink",
    "Sink",
    "emit",
    "silence_log",
    "subscribe",
    "wanted",
]

silence_log = subscribe(LogSink(), level=_logging.INFO)
"""Ends the subscription of the `LogSink` that is there from the start."""
