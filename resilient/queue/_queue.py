"""One queue of SQS: what is sent to it, and the calls a consumer makes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from resilient import causality, events
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError, InvalidInput, ResilientError
from resilient.policy import Pipeline, Retry, deadline
from resilient.queue import _limits as limits
from resilient.queue._events import MessagesSent
from resilient.queue._message import ID_ATTRIBUTE, TOKEN_ATTRIBUTE, Message
from resilient.queue._sending import Outgoing, PartlySent, QueueAttributes, SendResult
from resilient.wire import aws

__all__ = ["Queue"]

T = TypeVar("T")

_ROUNDS = 3  # calls made for the entries that a batch call refused for no fault of theirs
_SYSTEM = ["ApproximateReceiveCount", "SentTimestamp", "MessageDeduplicationId", "MessageGroupId"]


@dataclass(frozen=True, slots=True)
class _Entry:
    body: str
    attributes: Mapping[str, str | bytes]
    delay: int
    group: str | None
    deduplication: str | None

    def to_aws(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"MessageBody": self.body}
        if self.attributes:
            entry["MessageAttributes"] = {name: _attribute(value) for name, value in self.attributes.items()}
        if self.delay:
            entry["DelaySeconds"] = self.delay
        if self.group is not None:
            entry["MessageGroupId"] = self.group
        if self.deduplication is not None:
            entry["MessageDeduplicationId"] = self.deduplication
        return entry


class Queue:
    """One queue of SQS, or of a server that speaks its protocol.

    Args:
        url: The queue's URL.
        client: A ready boto3 SQS client, taken as it is, with its own time limits and retries. By default one is
            built that obeys the running deadline, tries three times, and talks to the server of the URL.
        region: The region, where no client is given and the URL does not tell.
        max_bytes: The largest message of this queue with its attributes; SQS's own limit by default.
        pipeline: Policies for each request instead of the built-in retry.
        unbounded: Accept a ready client that could wait for ever.
        clock: Where the time comes from.

    Every message gets an attribute with an id of its own, so that a copy made by a repeated send is known as such, and,
    inside a `resilient.causality.scope`, one with what the scope has learned.

    Examples:
        >>> from resilient.testing.sqs import FakeSqs
        >>> sqs = FakeSqs()
        >>> orders = Queue(sqs.create_queue(QueueName="orders")["QueueUrl"], client=sqs)
        >>> _ = orders.send({"order": 1})
        >>> orders.attributes().depth
        1
    """

    def __init__(
        self,
        url: str,
        client: Any = None,
        *,
        region: str | None = None,
        max_bytes: int = limits.MAX_BYTES,
        pipeline: Pipeline | None = None,
        unbounded: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        parts = urlsplit(url)
        self.url = url
        self.name = parts.path.rpartition("/")[2]
        if parts.scheme not in ("http", "https") or not self.name:
            raise ConfigurationError(
                "a queue is named by its URL", advice="as in https://sqs.REGION.amazonaws.com/ID/NAME"
            )
        self.fifo = self.name.endswith(".fifo")
        host = (parts.hostname or "").split(".")
        on_aws = host[-2:] == ["amazonaws", "com"] or host[-3:-1] == ["amazonaws", "com"]
        self.client = aws.client(
            "sqs",
            client,
            endpoint=None if on_aws else f"{parts.scheme}://{parts.netloc}",
            region=region or (host[1] if on_aws and host[0] == "sqs" else None),
            unbounded=unbounded,
        )
        if pipeline is None and client is None:
            pipeline = Pipeline("sqs", Retry(attempts=3), classify=aws.classify)
        self._pipeline = pipeline
        self._max_bytes = max_bytes
        self._clock = clock
        self._read_limit = aws.read_limit(self.client)

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    # ----------------------------------------------------------------------------------------------------- producers

    def send(
        self,
        body: Any,
        *,
        delay: float = 0,
        attributes: Mapping[str, str | bytes] | None = None,
        id: str | None = None,  # noqa: A002 - the word users know
        group: str | None = None,
        deduplication: str | None = None,
    ) -> str:
        """Send one message.

        Args:
            body: Text as it is, bytes as UTF-8, anything else as JSON.
            delay: Seconds before it can be received, 0 to 900.
            attributes: Up to eight attributes of yours.
            id: What names the message through all its copies; by default a new random id.
            group: The message group, for FIFO and fair queues: 1 to 128 characters of ASCII, no spaces.
            deduplication: The deduplication id of a FIFO queue, of the same form; by default the message's id.

        Returns:
            The id SQS gave the message.

        Raises:
            InvalidInput: It breaks a limit of SQS; nothing was sent.
            Unavailable: SQS did not take it.
            OutcomeUnknown: It was sent and no answer came; send it again with the same ``id``.
        """
        entry = self._entry(Outgoing(body, id, attributes, delay, group, deduplication))
        answer = self._call("SendMessage", self.client.send_message, effect=True, **entry.to_aws())
        self._count(1)
        return str(answer["MessageId"])

    def send_many(self, bodies: Iterable[Any]) -> tuple[SendResult, ...]:
        """Send several messages, ten in a call.

        Entries that SQS refuses for a reason of its own are sent again, they alone.

        Args:
            bodies: As for `send`, each; or `Outgoing` where a message has more to it.

        Raises:
            InvalidInput: One of them breaks a limit of SQS; none was sent.
            PartlySent: Some could not be sent; its ``results`` tell which.

        Examples:
            >>> from resilient.queue import Outgoing
            >>> from resilient.testing.sqs import FakeSqs
            >>> sqs = FakeSqs()
            >>> jobs = Queue(sqs.create_queue(QueueName="jobs")["QueueUrl"], client=sqs)
            >>> len(jobs.send_many([{"n": 1}, Outgoing({"n": 2}, delay=5)]))
            2
        """
        entries = [self._entry(each if isinstance(each, Outgoing) else Outgoing(each)) for each in bodies]
        results: list[SendResult] = [SendResult(None, "NotTried")] * len(entries)
        for part in limits.pack([limits.size(each.body, each.attributes) for each in entries]):
            try:
                self._send_batch(entries, list(part), results)
            except ResilientError as error:
                for index in part:
                    if not results[index].ok:
                        results[index] = SendResult(None, type(error).__name__)
                raise PartlySent(results) from error
        if not all(each.ok for each in results):
            raise PartlySent(results)
        return tuple(results)

    def _send_batch(self, entries: Sequence[_Entry], open_: list[int], results: list[SendResult]) -> None:
        for round_ in range(_ROUNDS):
            if round_:
                self._clock.sleep(deadline.bound(0.1 * 2**round_))
            batch = [{"Id": str(index), **entries[index].to_aws()} for index in open_]
            answer = self._call("SendMessageBatch", self.client.send_message_batch, effect=True, Entries=batch)
            for sent in answer.get("Successful", ()):
                results[int(sent["Id"])] = SendResult(str(sent["MessageId"]))
            self._count(len(answer.get("Successful", ())))
            again: list[int] = []
            for failed in answer.get("Failed", ()):
                results[int(failed["Id"])] = SendResult(None, str(failed.get("Code", "Unknown")))
                if not failed.get("SenderFault", False):
                    again.append(int(failed["Id"]))
            open_ = again
            if not open_:
                return

    def _entry(self, out: Outgoing) -> _Entry:
        own = dict(out.attributes or {})
        limits.check_attributes(own, reserved=2)
        identity = out.id or str(uuid.uuid4())
        limits.check_text(identity)
        own[ID_ATTRIBUTE] = identity
        scope = causality.running()
        if scope is not None and scope.token:
            own[TOKEN_ATTRIBUTE] = str(scope.token)
        if self.fifo and out.group is None:
            raise InvalidInput("a message for a FIFO queue needs a group", advice="pass group=")
        if self.fifo and out.delay:
            raise InvalidInput("a FIFO queue takes no delay for a single message")
        if out.group is not None:
            limits.check_group(out.group)
        deduplication = None
        if self.fifo:  # never by the content: two equal orders are two orders
            deduplication = identity if out.deduplication is None else out.deduplication
            limits.check_deduplication(deduplication)
        text = limits.encode(out.body)
        used = limits.size(text, own)
        if used > self._max_bytes:
            raise InvalidInput(
                f"the message has {used} bytes with its attributes, the queue takes {self._max_bytes}",
                advice="store the content as an object and send its key",
            )
        return _Entry(text, own, limits.check_delay(out.delay), out.group, deduplication)

    def check(self, out: Outgoing) -> None:
        """Whether SQS would take this message, as far as can be told without asking. Raises InvalidInput."""
        self._entry(out)

    def _count(self, sent: int) -> None:
        if sent and events.wanted(MessagesSent):
            events.emit(MessagesSent(queue=self.name, count=sent))

    # ----------------------------------------------------------------------------------------------------- consumers

    def receive(self, count: int = 10, *, wait: float = 0, visibility: int = 30) -> list[Message]:
        """Receive up to ten messages and keep them from others for a while.

        Args:
            count: How many at most, 1 to 10.
            wait: Seconds to wait for the first one, 0 to 20.
            visibility: Seconds for which others do not see them.
        """
        wait = min(20.0, wait)
        left = deadline.remaining()
        if left is not None:
            wait = min(wait, max(0.0, left - 0.5))
        if self._read_limit is not None:
            wait = min(wait, max(0.0, self._read_limit - 1.0))
        with aws.translated("SQS ReceiveMessage", effect=True), aws.waiting(wait):
            answer = self.client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=count,
                WaitTimeSeconds=int(wait),
                VisibilityTimeout=visibility,
                AttributeNames=_SYSTEM,
                MessageAttributeNames=["All"],
            )
        return [_read(raw, self.name) for raw in answer.get("Messages", ())]

    def delete_many(self, receipts: Sequence[str]) -> list[str]:
        """Delete up to ten messages by their receipts. Returns a code for each: empty, or what SQS said."""
        entries = [{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(receipts)]
        answer = self._call("DeleteMessageBatch", self.client.delete_message_batch, Entries=entries)
        return _codes(answer, len(receipts))

    def change_visibility_many(self, changes: Sequence[tuple[str, int]]) -> list[str]:
        """Keep up to ten messages from others for so many seconds from now.

        Args:
            changes: Pairs of receipt and seconds, 0 to 43,200; 0 gives the message back at once.

        Returns:
            A code for each: empty, or what SQS said.
        """
        entries = [
            {"Id": str(index), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
            for index, (receipt, seconds) in enumerate(changes)
        ]
        call = self.client.change_message_visibility_batch
        return _codes(self._call("ChangeMessageVisibilityBatch", call, Entries=entries), len(changes))

    # ------------------------------------------------------------------------------------------------------ the rest

    def attributes(self) -> QueueAttributes:
        """How full the queue is."""
        names = ["", "NotVisible", "Delayed"]
        asked = [f"ApproximateNumberOfMessages{each}" for each in names]
        found = self._call("GetQueueAttributes", self.client.get_queue_attributes, AttributeNames=asked)["Attributes"]
        return QueueAttributes(*(int(found[name]) for name in asked))

    def dead_letters(self) -> Queue | None:
        """The queue that takes what could not be handled, as the redrive policy names it; ``None`` without one."""
        answer = self._call("GetQueueAttributes", self.client.get_queue_attributes, AttributeNames=["RedrivePolicy"])
        policy = answer.get("Attributes", {}).get("RedrivePolicy")
        if not policy:
            return None
        target = str(msgspec.json.decode(policy)["deadLetterTargetArn"])
        *_, account, name = target.split(":")
        with aws.translated("SQS GetQueueUrl"):
            url = self.client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
        return Queue(url, self.client, max_bytes=self._max_bytes, pipeline=self._pipeline, clock=self._clock)

    def _call(self, name: str, method: Callable[..., T], *, effect: bool = False, **arguments: Any) -> T:
        """One request. A repeated send makes a copy with the same id, as SQS may; the rest repeats without harm."""
        with aws.translated(f"SQS {name}", effect=effect):
            if self._pipeline is None:
                return method(QueueUrl=self.url, **arguments)
            return self._pipeline.idempotent.call(method, QueueUrl=self.url, **arguments)


def _attribute(value: str | bytes) -> dict[str, Any]:
    if isinstance(value, str):
        return {"DataType": "String", "StringValue": value}
    return {"DataType": "Binary", "BinaryValue": value}


def _read(raw: Mapping[str, Any], queue: str) -> Message:
    system: Mapping[str, str] = raw.get("Attributes", {})
    attributes: dict[str, str | bytes] = {
        name: value["BinaryValue"] if "BinaryValue" in value else value.get("StringValue", "")
        for name, value in raw.get("MessageAttributes", {}).items()
    }
    identity, token = attributes.pop(ID_ATTRIBUTE, ""), attributes.pop(TOKEN_ATTRIBUTE, "")
    sent = system.get("SentTimestamp")
    return Message(
        id=str(raw["MessageId"]),
        body=str(raw["Body"]),
        attributes=attributes,
        receive_count=int(system.get("ApproximateReceiveCount", 1)),
        sent_at=int(sent) / 1000 if sent else None,
        queue=queue,
        key=str(identity or system.get("MessageDeduplicationId") or raw["MessageId"]),
        token=token if isinstance(token, str) else "",
        receipt=str(raw["ReceiptHandle"]),
        group=system.get("MessageGroupId"),
    )


def _codes(answer: Mapping[str, Any], count: int) -> list[str]:
    codes = ["NoAnswer"] * count
    for done in answer.get("Successful", ()):
        codes[int(done["Id"])] = ""
    for failed in answer.get("Failed", ()):
        codes[int(failed["Id"])] = str(failed.get("Code", "Unknown"))
    return codes
