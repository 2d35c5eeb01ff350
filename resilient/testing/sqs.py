"""SQS in this process, with the methods of a boto3 client that the library uses, and strict about receipts."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from resilient.clock import SYSTEM, Clock
from resilient.errors import needs_extra
from resilient.queue._limits import BATCH, MAX_BYTES, size
from resilient.testing._sqs_queue import Stored, StoredQueue, attributes_of, refusal

with needs_extra("aws"):
    from botocore.exceptions import ClientError

__all__ = ["FakeSqs"]

_ACCOUNT = "000000000000"


class FakeSqs:
    """A stand-in for a boto3 SQS client and its server.

    It keeps what SQS promises (visibility, receive counts, delays, long polls that wake, dead-letter queues by receive
    count, FIFO groups and deduplication) and refuses what SQS refuses: a stale receipt, a batch that is too long, a
    delay of 901 seconds.

    Args:
        clock: Where the time comes from. With a `resilient.testing.FakeClock` a long poll takes no time.

    Attributes:
        calls: Each request made, as the name of the operation and its arguments.
        fault: Called before each request with the same; what it raises, the caller gets.
        entry_fault: Called for each entry of a batch call with the name of the operation and the entry; the code it
            returns is that entry's failure.

    Examples:
        >>> sqs = FakeSqs()
        >>> url = sqs.create_queue(QueueName="jobs")["QueueUrl"]
        >>> _ = sqs.send_message(QueueUrl=url, MessageBody="hello")
        >>> [each["Body"] for each in sqs.receive_message(QueueUrl=url)["Messages"]]
        ['hello']
    """

    def __init__(self, *, clock: Clock = SYSTEM) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.fault: Callable[[str, dict[str, Any]], None] | None = None
        self.entry_fault: Callable[[str, dict[str, Any]], str | None] | None = None
        self._clock = clock
        self._queues: dict[str, StoredQueue] = {}
        self._changed = threading.Condition()
        self._order = itertools.count()

    # ------------------------------------------------------------------------------------------------------- queues

    def create_queue(self, *, QueueName: str, Attributes: Mapping[str, str] | None = None) -> dict[str, str]:  # noqa: N803 - boto3's spelling, here and below
        """Make a queue."""
        url = f"https://sqs.eu-west-1.amazonaws.com/{_ACCOUNT}/{QueueName}"
        with self._changed:
            self._queues.setdefault(url, StoredQueue(QueueName, {"VisibilityTimeout": "30", **(Attributes or {})}))
        return {"QueueUrl": url}

    def get_queue_url(self, *, QueueName: str, QueueOwnerAWSAccountId: str = _ACCOUNT) -> dict[str, str]:  # noqa: ARG002, N803
        """The URL of a queue."""
        self._begin("GetQueueUrl", QueueName=QueueName)
        for url, queue in self._queues.items():
            if queue.name == QueueName:
                return {"QueueUrl": url}
        raise refusal("GetQueueUrl", "AWS.SimpleQueueService.NonExistentQueue")

    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: Sequence[str] = ()) -> dict[str, Any]:  # noqa: N803
        """The settings of a queue, and how full it is."""
        self._begin("GetQueueAttributes", QueueUrl=QueueUrl)
        with self._changed:
            queue, now = self._find(QueueUrl, "GetQueueAttributes"), self._clock.wall()
            waiting, flying, delayed = queue.counts(now)
            found = {
                **queue.settings,
                "QueueArn": f"arn:aws:sqs:eu-west-1:{_ACCOUNT}:{queue.name}",
                "ApproximateNumberOfMessages": str(waiting),
                "ApproximateNumberOfMessagesNotVisible": str(flying),
                "ApproximateNumberOfMessagesDelayed": str(delayed),
            }
        wanted = found if "All" in AttributeNames else {name: found[name] for name in AttributeNames if name in found}
        return {"Attributes": wanted}

    def set_queue_attributes(self, *, QueueUrl: str, Attributes: Mapping[str, str]) -> dict[str, Any]:  # noqa: N803
        """Change the settings of a queue, such as its ``RedrivePolicy``."""
        self._begin("SetQueueAttributes", QueueUrl=QueueUrl)
        with self._changed:
            self._find(QueueUrl, "SetQueueAttributes").settings.update(Attributes)
        return {}

    def purge_queue(self, *, QueueUrl: str) -> dict[str, Any]:  # noqa: N803
        """Delete every message."""
        self._begin("PurgeQueue", QueueUrl=QueueUrl)
        with self._changed:
            self._find(QueueUrl, "PurgeQueue").messages.clear()
        return {}

    def lapse(self, url: str) -> None:
        """Make every message visible now, as if its time had run out: the next receive delivers it again."""
        with self._changed:
            self._queues[url].lapse(self._clock.wall())
            self._changed.notify_all()

    # ------------------------------------------------------------------------------------------------------- sending

    def send_message(self, *, QueueUrl: str, **entry: Any) -> dict[str, Any]:  # noqa: N803
        """Send one message."""
        self._begin("SendMessage", QueueUrl=QueueUrl, **entry)
        with self._changed:
            return self._add(self._find(QueueUrl, "SendMessage"), entry, "SendMessage")

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        """Send up to ten messages."""
        operation = "SendMessageBatch"
        total = sum(size(each["MessageBody"], attributes_of(each)) for each in Entries)
        if total > MAX_BYTES:
            raise refusal(operation, "AWS.SimpleQueueService.BatchRequestTooLong")
        return self._batch(operation, QueueUrl, Entries, lambda queue, each: self._add(queue, each, operation))

    def _add(self, queue: StoredQueue, entry: Mapping[str, Any], operation: str) -> dict[str, Any]:
        name = queue.accept(entry, operation, now=self._clock.wall(), order=next(self._order))
        self._changed.notify_all()
        return {"MessageId": name}

    # ----------------------------------------------------------------------------------------------------- receiving

    def receive_message(
        self,
        *,
        QueueUrl: str,  # noqa: N803
        MaxNumberOfMessages: int = 1,  # noqa: N803
        WaitTimeSeconds: int = 0,  # noqa: N803
        VisibilityTimeout: int | None = None,  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        """Receive up to ten messages; wait for the first one for up to twenty seconds."""
        self._begin("ReceiveMessage", QueueUrl=QueueUrl, WaitTimeSeconds=WaitTimeSeconds, Max=MaxNumberOfMessages)
        if not 1 <= MaxNumberOfMessages <= BATCH or not 0 <= WaitTimeSeconds <= 20:
            raise refusal("ReceiveMessage", "InvalidParameterValue")
        until = self._clock.wall() + WaitTimeSeconds
        while True:
            with self._changed:
                queue, now = self._find(QueueUrl, "ReceiveMessage"), self._clock.wall()
                seconds = int(queue.settings["VisibilityTimeout"]) if VisibilityTimeout is None else VisibilityTimeout
                taken = [each for each in queue.take(MaxNumberOfMessages, now) if not self._redrive(queue, each, now)]
                if taken or now >= until:
                    return {"Messages": [queue.deliver(each, now, seconds) for each in taken]}
                soonest = min(until, queue.hidden[0][0]) if queue.hidden else until
                if self._clock is SYSTEM:
                    self._changed.wait(soonest - now)
                    continue
            self._clock.sleep(soonest - now)

    def _redrive(self, queue: StoredQueue, message: Stored, now: float) -> bool:
        """Move a message that was received too often to the dead-letter queue."""
        policy = json.loads(queue.settings.get("RedrivePolicy", "null"))
        if policy is None or message.count < int(policy["maxReceiveCount"]):
            return False
        name = str(policy["deadLetterTargetArn"]).rpartition(":")[2]
        target = next(each for each in self._queues.values() if each.name == name)
        del queue.messages[message.id]
        message.count, message.receipt, message.visible_at = 0, "", now
        target.add(message, now)
        self._changed.notify_all()
        return True

    # ----------------------------------------------------------------------------------------------------- finishing

    def delete_message(self, *, QueueUrl: str, ReceiptHandle: str) -> dict[str, Any]:  # noqa: N803
        """Delete one message."""
        self._begin("DeleteMessage", QueueUrl=QueueUrl, ReceiptHandle=ReceiptHandle)
        with self._changed:
            return self._delete(self._find(QueueUrl, "DeleteMessage"), {"ReceiptHandle": ReceiptHandle})

    def delete_message_batch(self, *, QueueUrl: str, Entries: Sequence[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        """Delete up to ten messages."""
        return self._batch("DeleteMessageBatch", QueueUrl, Entries, self._delete)

    def _delete(self, queue: StoredQueue, entry: Mapping[str, Any]) -> dict[str, Any]:
        if queue.delete(str(entry["ReceiptHandle"])) and queue.fifo:
            self._changed.notify_all()  # the next of its group may be received now
        return {}

    def change_message_visibility(self, *, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int) -> dict[str, Any]:  # noqa: N803
        """Keep a message from others for so long from now."""
        entry = {"ReceiptHandle": ReceiptHandle, "VisibilityTimeout": VisibilityTimeout}
        self._begin("ChangeMessageVisibility", QueueUrl=QueueUrl, **entry)
        with self._changed:
            return self._change(self._find(QueueUrl, "ChangeMessageVisibility"), entry)

    def change_message_visibility_batch(self, *, QueueUrl: str, Entries: Sequence[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        """The same for up to ten messages."""
        return self._batch("ChangeMessageVisibilityBatch", QueueUrl, Entries, self._change)

    def _change(self, queue: StoredQueue, entry: Mapping[str, Any]) -> dict[str, Any]:
        queue.change(str(entry["ReceiptHandle"]), int(entry["VisibilityTimeout"]), self._clock.wall())
        self._changed.notify_all()
        return {}

    # ------------------------------------------------------------------------------------------------------- inside

    def _begin(self, operation: str, **arguments: Any) -> None:
        self.calls.append((operation, arguments))
        if self.fault is not None:
            self.fault(operation, arguments)

    def _find(self, url: str, operation: str) -> StoredQueue:
        if url not in self._queues:
            raise refusal(operation, "AWS.SimpleQueueService.NonExistentQueue")
        return self._queues[url]

    def _batch(
        self,
        operation: str,
        url: str,
        entries: Sequence[dict[str, Any]],
        step: Callable[[StoredQueue, dict[str, Any]], dict[str, Any]],
    ) -> dict[str, Any]:
        self._begin(operation, QueueUrl=url, Entries=list(entries))
        if not entries:
            raise refusal(operation, "AWS.SimpleQueueService.EmptyBatchRequest")
        if len(entries) > BATCH:
            raise refusal(operation, "AWS.SimpleQueueService.TooManyEntriesInBatchRequest")
        if len({each["Id"] for each in entries}) < len(entries):
            raise refusal(operation, "AWS.SimpleQueueService.BatchEntryIdsNotDistinct")
        answer: dict[str, Any] = {"Successful": [], "Failed": []}
        for entry in entries:
            code = self.entry_fault(operation, entry) if self.entry_fault is not None else None
            if code is not None:
                answer["Failed"].append({"Id": entry["Id"], "Code": code, "SenderFault": False})
                continue
            try:
                with self._changed:
                    answer["Successful"].append({"Id": entry["Id"], **step(self._find(url, operation), entry)})
            except ClientError as error:
                code = error.response["Error"]["Code"]
                answer["Failed"].append({"Id": entry["Id"], "Code": code, "SenderFault": True})
        return answer
