"""Queues: messages that are handled, each with one effect, whatever dies in between.

    jobs = Queue("https://sqs.eu-west-1.amazonaws.com/123456789012/jobs")
    jobs.send({"image": 17})

    def handle(job: Job, session: Session) -> None: ...
    Consumer(jobs, handle, idempotency=SqlStore(Session)).run()

A handler that returns has acknowledged its message; one that raises gets it again. With `SqlStore` the record of the
message is committed together with its effect, so that a message delivered twice has one effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient.ledger import MemoryStore, Store
from resilient.queue._consumer import Consumer
from resilient.queue._events import (
    AcknowledgeFailed,
    ConsumerStarted,
    ConsumerStopped,
    HandlerFailed,
    HeartbeatLost,
    MessageHandled,
    MessageHeldOff,
    MessageRejected,
    MessagesSent,
    OutboxFailed,
    ReceiveFailed,
)
from resilient.queue._idempotent import idempotent
from resilient.queue._message import Backoff, Message, Redeliver, Reject, Release
from resilient.queue._queue import Queue
from resilient.queue._run import Report
from resilient.queue._sending import Outgoing, PartlySent, QueueAttributes, SendResult

if TYPE_CHECKING:
    from resilient.ledger import SqlStore
    from resilient.queue._outbox import Outbox

__all__ = [
    "AcknowledgeFailed",
    "Backoff",
    "Consumer",
    "ConsumerStarted",
    "ConsumerStopped",
    "HandlerFailed",
    "HeartbeatLost",
    "MemoryStore",
    "Message",
    "MessageHandled",
    "MessageHeldOff",
    "MessageRejected",
    "MessagesSent",
    "Outbox",
    "OutboxFailed",
    "Outgoing",
    "PartlySent",
    "Queue",
    "QueueAttributes",
    "ReceiveFailed",
    "Redeliver",
    "Reject",
    "Release",
    "Report",
    "SendResult",
    "SqlStore",
    "Store",
    "create_tables",
    "idempotent",
]


def create_tables(bind: Any) -> None:
    """Create the tables of `SqlStore` and `Outbox`, and those of every other room in use, where they do not exist yet.

    Args:
        bind: An engine or a connection of SQLAlchemy.
    """
    import resilient.queue._outbox  # noqa: F401 - declares the table
    from resilient import ledger

    ledger.create_tables(bind)


def __getattr__(name: str) -> Any:
    # These need SQLAlchemy, which the rest does not.
    if name == "SqlStore":
        from resilient.ledger import SqlStore

        return SqlStore
    if name == "Outbox":
        from resilient.queue._outbox import Outbox

        return Outbox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
