"""What happens to messages."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from resilient.events import Event, Metric

__all__ = [
    "AcknowledgeFailed",
    "ConsumerStarted",
    "ConsumerStopped",
    "HandlerFailed",
    "HeartbeatLost",
    "MessageHandled",
    "MessageHeldOff",
    "MessageRejected",
    "MessagesSent",
    "OutboxFailed",
    "ReceiveFailed",
]

_QUEUE = ("messaging.destination.name", "queue")


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesSent(Event):
    """One call sent this many messages."""

    metric: ClassVar[Metric | None] = Metric(
        "messaging.client.sent.messages", "counter", "{message}", "count", (_QUEUE,)
    )
    queue: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHandled(Event):
    """A handler returned, and its effect stands. ``repeated``: it had been done before, the handler did not run."""

    metric: ClassVar[Metric | None] = Metric(
        "messaging.process.duration", "histogram", "s", "seconds", (_QUEUE, ("resilient.queue.repeated", "repeated"))
    )
    queue: str
    seconds: float
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerFailed(Event):
    """A handler raised; the message comes again ``after`` so many seconds. The traceback is in the log."""

    metric: ClassVar[Metric | None] = Metric(
        "resilient.queue.failures", "counter", "{message}", labels=(_QUEUE, ("error.type", "error"))
    )
    queue: str
    error: str
    detail: str
    receive_count: int
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRejected(Event):
    """A message that can never be handled was parked, or left alone where there is no dead-letter queue."""

    level: ClassVar[int] = logging.WARNING
    metric: ClassVar[Metric | None] = Metric("resilient.queue.rejected", "counter", "{message}", labels=(_QUEUE,))
    queue: str
    reason: str
    parked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHeldOff(Event):
    """Another worker has the same work in hand, so the message comes again later; it is not acknowledged."""

    metric: ClassVar[Metric | None] = Metric("resilient.queue.held_off", "counter", "{message}", labels=(_QUEUE,))
    queue: str
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatLost(Event):
    """A message in hand can be kept from others no longer; another worker may start on it."""

    level: ClassVar[int] = logging.WARNING
    metric: ClassVar[Metric | None] = Metric("resilient.queue.lost", "counter", "{message}", labels=(_QUEUE,))
    queue: str
    reason: str
    seconds_in_hand: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveFailed(Event):
    """SQS could not be asked for messages; it is asked again after a pause."""

    level: ClassVar[int] = logging.WARNING
    queue: str
    error: str
    pause: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeFailed(Event):
    """A message that was done could not be deleted; it will come again, and its record will tell that it was done."""

    level: ClassVar[int] = logging.WARNING
    queue: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStarted(Event):
    """A consumer began to receive."""

    level: ClassVar[int] = logging.INFO
    queue: str
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerStopped(Event):
    """A consumer has ended. ``abandoned``: handlers that still ran when its patience ended."""

    level: ClassVar[int] = logging.INFO
    queue: str
    handled: int
    failed: int
    abandoned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxFailed(Event):
    """The relay of an outbox could not send; what it holds is kept and tried again after a pause."""

    level: ClassVar[int] = logging.WARNING
    error: str
    pause: float
