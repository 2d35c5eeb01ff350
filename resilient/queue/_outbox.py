"""The outbox: messages that are written in the transaction of the change they tell of, and sent afterwards."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from resilient import causality, events
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError, InvalidInput, ResilientError, needs_extra
from resilient.queue._events import OutboxFailed
from resilient.queue._limits import encode
from resilient.queue._queue import Queue
from resilient.queue._sending import Outgoing, PartlySent
from resilient.runtime import start_thread

with needs_extra("sql"):
    import sqlalchemy as sa
    from sqlalchemy import event
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import Session

from resilient.wire.sql import metadata, needs_table, purge

__all__ = ["Outbox", "table"]

_MEDIUM = 16_777_215  # makes MySQL choose a type that holds the largest message
_LONGEST_PAUSE = 30.0
_PURGE_EVERY = 60.0

table = sa.Table(
    "resilient_outbox",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("queue", sa.String(100), nullable=False),
    sa.Column("message_id", sa.String(100), nullable=False),
    sa.Column("body", sa.Text(_MEDIUM), nullable=False),
    sa.Column("options", sa.Text(), nullable=False),
    sa.Column("token", sa.Text(), nullable=False),
    sa.Column("created_at", sa.Double(), nullable=False),
    sa.Column("claimed_by", sa.String(40), nullable=False, default=""),
    sa.Column("claimed_until", sa.Double(), nullable=False, default=0.0),
    sa.Column("sent_at", sa.Double()),
    sa.Index("resilient_outbox_open", "sent_at", "id"),
)


class Outbox:
    """Messages that are sent if, and only if, a transaction commits.

    `send` writes a row in the caller's transaction. `relay` claims rows, sends them and marks them; killed at any
    point, it or another relay sends the rest later. So each message is sent at least once, and every copy carries the
    same id: a consumer with a record of work acts on it once.

    Args:
        queues: The queues by the names that `send` uses.
        lease: Seconds after which rows claimed by a relay that died are taken by another.
        keep: Seconds for which sent rows are kept.
        clock: Where the time comes from.

    Examples:
        >>> import sqlalchemy as sa
        >>> from sqlalchemy.orm import sessionmaker
        >>> from resilient.queue import Queue, create_tables
        >>> from resilient.testing.sqs import FakeSqs
        >>> engine = sa.create_engine("sqlite://")
        >>> create_tables(engine)
        >>> Session, sqs = sessionmaker(engine), FakeSqs()
        >>> jobs = Queue(sqs.create_queue(QueueName="jobs")["QueueUrl"], client=sqs)
        >>> outbox = Outbox({"jobs": jobs})
        >>> with Session.begin() as session:
        ...     _ = outbox.send(session, "jobs", {"image": 1})
        >>> outbox.relay(Session)
        1
        >>> jobs.attributes().depth
        1
        >>> engine.dispose()
    """

    def __init__(
        self, queues: Mapping[str, Queue], *, lease: float = 60.0, keep: float = 86_400.0, clock: Clock = SYSTEM
    ) -> None:
        given: object = queues
        if not isinstance(given, Mapping) or not all(hasattr(each, "send_many") for each in given.values()):
            raise ConfigurationError(
                "an outbox takes its queues by their names", advice='write Outbox({"jobs": queue})'
            )
        if not queues or any(len(name) > 100 for name in queues):
            raise ConfigurationError("an outbox needs queues, with names of at most 100 characters")
        self._queues = dict(queues)
        self._lease = lease
        self._keep = keep
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def send(
        self,
        session: Session,
        queue: str,
        body: Any,
        *,
        delay: float = 0,
        attributes: Mapping[str, str] | None = None,
        id: str | None = None,  # noqa: A002 - the word users know
        group: str | None = None,
    ) -> str:
        """Write a message in the session's transaction; it is sent after the commit, and never without it.

        Args:
            session: Whose transaction.
            queue: The name of the queue in this outbox.
            body: As for `Queue.send`.
            delay: Seconds before it can be received, counted from its sending.
            attributes: Up to eight attributes of yours.
            id: What names the message through all its copies; by default a new random id.
            group: The message group, for FIFO and fair queues: 1 to 128 characters of ASCII, no spaces.

        Returns:
            The id that names the message.

        Raises:
            InvalidInput: There is no such queue, or the message breaks a limit of SQS; nothing was written.
            ConfigurationError: The database has no table for the outbox.
        """
        target = self._queues.get(queue)
        if target is None:
            raise InvalidInput("this outbox has no such queue", advice=f"it has: {', '.join(sorted(self._queues))}")
        if attributes and not all(isinstance(value, str) for value in attributes.values()):
            raise InvalidInput("attributes of a message in an outbox are text")
        identity, scope = id or str(uuid.uuid4()), causality.running()
        if len(identity) > 100:
            raise InvalidInput("the id of a message in an outbox has at most 100 characters")
        text = encode(body)
        target.check(Outgoing(text, identity, attributes, delay, group))
        options = {"attributes": dict(attributes or {}), "delay": delay, "group": group}
        values = {
            "queue": queue,
            "message_id": identity,
            "body": text,
            "options": msgspec.json.encode(options).decode(),
            "token": "" if scope is None else str(scope.token),
            "created_at": self._clock.wall(),
        }
        with needs_table(table.name):
            session.execute(table.insert().values(values))
        watchers = session.info.setdefault("resilient_outboxes", set())
        if self not in watchers:
            watchers.add(self)
            event.listen(session, "after_commit", self._nudge)
        return identity

    def _nudge(self, _: Any = None) -> None:
        self._wake.set()

    # ------------------------------------------------------------------------------------------------------ the relay

    def relay(self, session: Callable[[], Session], *, limit: int = 100) -> int:
        """Send what is waiting, once.

        Args:
            session: A sessionmaker for the database of the outbox.
            limit: Rows to take at most of each queue: what cannot be sent to one does not hold up the others.

        Returns:
            How many messages were sent.

        Raises:
            PartlySent: Some could not be sent; they are kept.
            ConfigurationError: The database has no table for the outbox.
            ResilientError: None could be sent; all are kept.
            sqlalchemy.exc.SQLAlchemyError: The database refused.
        """
        me = uuid.uuid4().hex
        # The claim is committed inside a scope: its position covers the commits of the rows it has found, so that the
        # messages carry a position at which their handlers see what they tell of.
        with causality.scope() as scope:
            rows, unknown = self._claim(session, me, limit)
            sent, failure = self._send(rows, scope.token)
            if rows:
                self._mark(session, me, sent, [row.id for row in rows if row.id not in sent])
        if unknown is not None:
            failure = ConfigurationError(f"the outbox holds messages for a queue it does not know: {unknown}")
        if failure is not None:
            raise failure
        return len(sent)

    def _claim(self, session: Callable[[], Session], me: str, limit: int) -> tuple[Sequence[Any], str | None]:
        """The rows to send, and the name of a queue that is not known here but has rows waiting."""
        now, c = self._clock.wall(), table.c
        open_ = c.sent_at.is_(None) & (c.claimed_until <= now)
        with needs_table(table.name), session() as work:
            found: list[int] = []
            for name in self._queues:
                mine = sa.select(c.id).where(open_ & (c.queue == name))
                found += work.scalars(mine.order_by(c.id).limit(limit))
            foreign = sa.select(c.queue).where(open_ & c.queue.not_in(self._queues)).limit(1)
            unknown: str | None = work.scalar(foreign)
            if not found:
                return (), unknown
            # The condition is checked again by the update: of two relays that found a row, one gets it.
            claim = table.update().where(c.id.in_(found) & open_)
            work.execute(claim.values(claimed_by=me, claimed_until=now + self._lease))
            mine = sa.select(table).where(c.id.in_(found) & (c.claimed_by == me)).order_by(c.id)
            rows = work.execute(mine).all()
            work.commit()
        return rows, unknown

    def _send(self, rows: Sequence[Any], claimed: causality.Token) -> tuple[set[int], ResilientError | None]:
        sent: set[int] = set()
        failure: ResilientError | None = None
        ordered = sorted(rows, key=lambda row: (list(self._queues).index(row.queue), row.id))
        # A token came from outside: whoever made theirs as long as can be does not make those of others longer.
        for (name, _), group in itertools.groupby(
            ordered, key=lambda row: (row.queue, frozenset(causality.Token.read(row.token).positions))
        ):
            mine = list(group)
            target = self._queues[name]
            token = claimed
            for row in mine:
                token = token.merge(causality.Token.read(row.token))
            try:
                with causality.scope(token):
                    target.send_many([_outgoing(row) for row in mine])
                sent.update(row.id for row in mine)
            except PartlySent as error:
                failure = error
                sent.update(row.id for row, result in zip(mine, error.results, strict=True) if result.ok)
            except ResilientError as error:
                failure = error
        return sent, failure

    def _mark(self, session: Callable[[], Session], me: str, sent: set[int], unsent: Sequence[int]) -> None:
        now, c = self._clock.wall(), table.c
        with session() as work:
            if sent:
                work.execute(table.update().where(c.id.in_(sent)).values(sent_at=now))
            if unsent:
                mine = c.id.in_(unsent) & (c.claimed_by == me)
                work.execute(table.update().where(mine).values(claimed_until=0.0))
            work.commit()

    def purge(self, session: Callable[[], Session], *, batch: int = 500) -> int:
        """Delete rows that were sent longer than ``keep`` seconds ago, in small transactions. Returns how many."""
        return purge(session, table.c.sent_at, before=self._clock.wall() - self._keep, batch=batch)

    # ------------------------------------------------------------------------------------------------------- running

    def run(self, session: Callable[[], Session], *, interval: float = 1.0) -> None:
        """Relay until `stop`.

        A commit in this process wakes the relay; rows of other processes are found within ``interval`` seconds. Any
        number of processes may run one. A failure is told as `OutboxFailed` and tried again, later each time.

        Args:
            session: A sessionmaker for the database of the outbox.
            interval: Seconds between two looks.
        """
        failures, purged = 0, self._clock.monotonic()
        while not self._stopping.is_set():
            self._wake.clear()
            pause = interval
            try:
                if self.relay(session):
                    continue
                if self._clock.monotonic() - purged > _PURGE_EVERY:
                    purged = self._clock.monotonic()
                    self.purge(session)
                failures = 0
            except (ResilientError, SQLAlchemyError) as error:
                failures += 1
                pause = min(_LONGEST_PAUSE, interval * 2 ** min(failures, 10))
                events.emit(OutboxFailed(error=type(error).__name__, pause=pause))
            if failures:
                self._stopping.wait(pause)
            else:
                self._wake.wait(pause)

    def start(self, session: Callable[[], Session], *, interval: float = 1.0) -> None:
        """Run the relay on a thread of its own, until `stop`. Arguments as for `run`."""
        self._stopping.clear()
        self._threads.append(start_thread(lambda: self.run(session, interval=interval), name="outbox"))

    def stop(self, timeout: float = 5.0) -> None:
        """End every relay that runs here; wait at most so many seconds for those that `start` began."""
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout)
        self._threads.clear()


def _outgoing(row: Any) -> Outgoing:
    options = msgspec.json.decode(row.options)
    return Outgoing(row.body, row.message_id, options["attributes"], options["delay"], options["group"])
