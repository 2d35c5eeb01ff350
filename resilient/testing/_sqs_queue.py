"""What SQS keeps of one queue, and what it refuses: messages, visibility, receipts, groups and deduplication."""

from __future__ import annotations

import hashlib
import heapq
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from resilient.errors import needs_extra
from resilient.queue._limits import LONGEST_DELAY, LONGEST_VISIBILITY, MAX_BYTES, is_tag, size

with needs_extra("aws"):
    from botocore.exceptions import ClientError

__all__ = ["Stored", "StoredQueue", "attributes_of", "refusal"]

_DEDUPLICATION = 300.0


@dataclass(slots=True)
class Stored:
    """A message, with what the server knows of its deliveries."""

    id: str
    body: str
    attributes: dict[str, Any]
    sent: float
    visible_at: float
    order: int
    group: str | None = None
    deduplication: str | None = None
    receipt: str = ""
    received_at: float = 0.0
    count: int = 0


@dataclass(slots=True)
class StoredQueue:
    """A queue: its messages, and which of them can be received now. Not safe among threads by itself."""

    name: str
    settings: dict[str, str]
    messages: dict[str, Stored] = field(default_factory=dict)
    ready: deque[str] = field(default_factory=deque)
    hidden: list[tuple[float, int, str]] = field(default_factory=list)
    seen: dict[str, tuple[float, str]] = field(default_factory=dict)

    @property
    def fifo(self) -> bool:
        """Whether it keeps an order."""
        return self.name.endswith(".fifo")

    def accept(self, entry: Mapping[str, Any], operation: str, *, now: float, order: int) -> str:
        """Take what a producer sends, and give it an id; what was sent before within five minutes keeps its own."""
        delay, attributes = int(entry.get("DelaySeconds", self.settings.get("DelaySeconds", 0))), attributes_of(entry)
        group, deduplication = entry.get("MessageGroupId"), entry.get("MessageDeduplicationId")
        if not 0 <= delay <= LONGEST_DELAY or not entry["MessageBody"]:
            raise refusal(operation, "InvalidParameterValue")
        if size(entry["MessageBody"], attributes) > MAX_BYTES or len(attributes) > 10:
            raise refusal(operation, "InvalidParameterValue")
        if not all(each is None or is_tag(each) for each in (group, deduplication)):
            raise refusal(operation, "InvalidParameterValue")
        if self.fifo:
            if group is None or deduplication is None:
                raise refusal(operation, "MissingParameter")
            at, known = self.seen.get(deduplication, (-_DEDUPLICATION, ""))
            if now - at < _DEDUPLICATION:
                return known
        name = str(uuid.uuid4())
        if deduplication is not None:
            self.seen[deduplication] = (now, name)
        given = dict(entry.get("MessageAttributes", {}))
        self.add(Stored(name, entry["MessageBody"], given, now, now + delay, order, group, deduplication), now)
        return name

    def add(self, message: Stored, now: float) -> None:
        """Put a message where it belongs by its time: among those that can be received, or among the hidden."""
        self.messages[message.id] = message
        if message.visible_at <= now:
            self.ready.append(message.id)
        else:
            heapq.heappush(self.hidden, (message.visible_at, message.order, message.id))

    def lapse(self, now: float) -> None:
        """Make every message visible."""
        for message in self.messages.values():
            if message.visible_at > now:
                message.visible_at = now
                self.ready.append(message.id)

    def counts(self, now: float) -> tuple[int, int, int]:
        """Messages that wait, that are in flight, and that are delayed."""
        hidden = [each for each in self.messages.values() if each.visible_at > now]
        flying = sum(1 for each in hidden if each.count)
        return len(self.messages) - len(hidden), flying, len(hidden) - flying

    def _wake(self, now: float) -> None:
        while self.hidden and self.hidden[0][0] <= now:
            at, _, name = heapq.heappop(self.hidden)
            message = self.messages.get(name)
            if message is not None and message.visible_at == at:  # else an entry that a later change outdated
                self.ready.append(name)

    def take(self, count: int, now: float) -> list[Stored]:
        """Visible messages, in order; those of a FIFO group only while nothing earlier of it is in flight."""
        self._wake(now)
        if self.fifo:
            return self._take_fifo(count, now)
        taken: list[Stored] = []
        while self.ready and len(taken) < count:
            message = self.messages.get(self.ready.popleft())
            if message is not None and message.visible_at <= now and message not in taken:
                taken.append(message)
        return taken

    def _take_fifo(self, count: int, now: float) -> list[Stored]:
        self.ready.clear()
        blocked: set[str | None] = set()
        taken: list[Stored] = []
        for message in sorted(self.messages.values(), key=lambda each: each.order):
            if message.visible_at > now:
                blocked.add(message.group)
            elif message.group not in blocked and len(taken) < count:
                taken.append(message)
        return taken

    def deliver(self, message: Stored, now: float, seconds: int) -> dict[str, Any]:
        """Hand a message out under a new receipt, and keep it from others for so many seconds."""
        message.count += 1
        message.received_at = now
        message.visible_at = now + seconds
        message.receipt = f"{message.id}#{message.count}#{uuid.uuid4()}"
        self.add(message, now)
        system = {"ApproximateReceiveCount": str(message.count), "SentTimestamp": str(int(message.sent * 1000))}
        if message.group is not None:
            system["MessageGroupId"] = message.group
        if message.deduplication is not None:
            system["MessageDeduplicationId"] = message.deduplication
        return {
            "MessageId": message.id,
            "ReceiptHandle": message.receipt,
            "Body": message.body,
            "MD5OfBody": hashlib.md5(message.body.encode(), usedforsecurity=False).hexdigest(),
            "Attributes": system,
            "MessageAttributes": message.attributes,
        }

    def delete(self, receipt: str) -> bool:
        """Delete the message of a receipt. Whether it was still there."""
        message = self._holder(receipt, "DeleteMessage")
        if message is not None:
            del self.messages[message.id]
        return message is not None

    def change(self, receipt: str, seconds: int, now: float) -> None:
        """Keep the message of a receipt from others for so many seconds from now."""
        operation = "ChangeMessageVisibility"
        message = self._holder(receipt, operation)
        if message is None:
            raise refusal(operation, "InvalidParameterValue")
        if message.visible_at <= now:
            raise refusal(operation, "AWS.SimpleQueueService.MessageNotInflight")
        if seconds < 0 or now + seconds - message.received_at > LONGEST_VISIBILITY:
            raise refusal(operation, "InvalidParameterValue")
        message.visible_at = now + seconds
        self.add(message, now)

    def _holder(self, receipt: str, operation: str) -> Stored | None:
        """The message a receipt is for; ``None`` if it was deleted. A stale receipt is refused."""
        name, mark, _ = receipt.partition("#")
        message = self.messages.get(name)
        if not mark or (message is not None and message.receipt != receipt):
            raise refusal(operation, "ReceiptHandleIsInvalid")
        return message


def attributes_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of an entry as they count for its size."""
    given = entry.get("MessageAttributes", {})
    return {name: each.get("StringValue", each.get("BinaryValue", "")) for name, each in given.items()}


def refusal(operation: str, code: str) -> ClientError:
    """The error that boto3 raises for an answer with that code."""
    answer = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": 400, "HTTPHeaders": {}}}
    return ClientError(answer, operation)
