"""What goes into a call that sends several messages, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resilient.errors import ResilientError

__all__ = ["Outgoing", "PartlySent", "QueueAttributes", "SendResult"]


@dataclass(frozen=True, slots=True)
class QueueAttributes:
    """How full a queue is. The numbers are approximate, as SQS tells them.

    Args:
        depth: Messages that wait to be received.
        in_flight: Messages that were received and not yet deleted.
        delayed: Messages that were sent with a delay which has not passed.
    """

    depth: int
    in_flight: int
    delayed: int


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of one message.

    Args:
        message_id: The id SQS gave it; ``None`` if it was not sent.
        error: The code of the error; empty if it was sent.
    """

    message_id: str | None
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was sent."""
        return self.message_id is not None


class PartlySent(ResilientError):
    """Some of several messages could not be sent.

    Args:
        results: What became of each, in the order they were given.
    """

    def __init__(self, results: Sequence[SendResult]) -> None:
        failed = sum(not each.ok for each in results)
        super().__init__(f"{failed} of {len(results)} messages were not sent", advice="send those again: see .results")
        self.results = tuple(results)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message of several, with what `Queue.send` takes.

    Args:
        body: Text as it is, bytes as UTF-8, anything else as JSON.
        id: What names the message through all its copies; by default a new random id.
        attributes: Up to eight attributes of yours.
        delay: Seconds before it can be received, 0 to 900.
        group: The message group, for FIFO and fair queues: 1 to 128 characters of ASCII, no spaces.
        deduplication: The deduplication id of a FIFO queue, of the same form; by default the message's id.
    """

    body: Any
    id: str | None = None
    attributes: Mapping[str, str | bytes] | None = None
    delay: float = 0
    group: str | None = None
    deduplication: str | None = None
