"""A SQLAlchemy Session that sends each transaction to one server of a replica set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction

from resilient import events
from resilient.errors import DeadlineExceeded, Overloaded, ResilientError, Unavailable
from resilient.policy import Failure, deadline
from resilient.storage.replicas._events import ReadMoved, ReadRouted
from resilient.storage.replicas._node import Node
from resilient.storage.replicas._router import Router
from resilient.storage.replicas._routing import why_primary
from resilient.wire import sql

__all__ = ["RoutingSession"]

_UNPROVEN = object()


class RoutingSession(Session):
    """A Session whose transactions each run on one server, chosen at their first statement.

    A transaction that begins with a proven pure read goes to a replica that may serve it; everything else, and
    everything after a write, goes to the primary. Made by `ReplicaSet.sessionmaker`.

    Args:
        router: Decides for the set it belongs to.
        use_async: Whether it runs beneath an AsyncSession.
    """

    def __init__(self, *args: Any, router: Router, use_async: bool = False, **options: Any) -> None:
        self._router = router
        self._use_async = use_async
        self._forget()
        super().__init__(*args, **options)

    def _forget(self) -> None:
        """Be as before the first statement of a transaction."""
        self._node: Node | None = None
        self._proven: object = _UNPROVEN
        self._wrote = False
        self._given_up: tuple[Node, ...] = ()

    @property
    def __database__(self) -> tuple[Any, str]:
        """The dialect and the name of the database, which are those of the set, whichever server serves the next read.

        By it a cache of queries knows that all servers of a set hold the same rows; nothing is chosen by asking.
        """
        return self._router.primary.engine.dialect, self._router.set_name

    # ---------------------------------------------------------------------------------------------------- routing

    def get_bind(self, mapper: Any = None, *, clause: Any = None, bind: Any = None, **_options: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """The engine for a statement: SQLAlchemy asks before each one.

        Raises:
            Unavailable: The primary is needed and known to be down, or no server may serve the read.
        """
        if bind is not None:
            return bind
        node = self._route(clause)
        return node.async_engine().sync_engine if self._use_async else node.engine

    def _route(self, clause: Any) -> Node:
        if self._wrote:
            return self._router.primary
        reason = None if clause is self._proven else why_primary(clause)
        if reason is not None:
            self._router.require_writable()
            if self._node is None and events.wanted(ReadRouted):
                events.emit(ReadRouted(set_name=self._router.set_name, node="primary", reason=reason))
            self._wrote = True
            self._node = self._router.primary
        elif self._node is None:
            self._node = self._router.pick(self._given_up)
        return self._node

    # ----------------------------------------------------------------------- a first read that meets a dead server

    if not TYPE_CHECKING:  # type checkers see the parent's signatures

        def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
            """As in Session; a first read that meets a dead server is made again on another."""
            return self._first(super().execute, statement, args, options)

        def scalar(self, statement: Any, *args: Any, **options: Any) -> Any:
            """As in Session; a first read that meets a dead server is made again on another."""
            return self._first(super().scalar, statement, args, options)

        def scalars(self, statement: Any, *args: Any, **options: Any) -> Any:
            """As in Session; a first read that meets a dead server is made again on another."""
            return self._first(super().scalars, statement, args, options)

    def _first(self, call: Callable[..., Any], statement: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self._node is not None:
            if self.in_transaction():
                return call(statement, *args, **options)
            self._forget()  # chosen for a statement that never came
        if options.get("bind_arguments") or self._would_flush() or why_primary(statement) is not None:
            return call(statement, *args, **options)
        self._proven = statement
        while True:
            node = self._node = self._router.pick(self._given_up)
            try:
                with self._share(node):
                    return call(statement, *args, **options)
            except (ResilientError, SQLAlchemyError) as error:
                if not self._give_up(node, error):
                    raise

    def _would_flush(self) -> bool:
        return self.autoflush and bool(self.new or self.deleted or self.dirty)

    def _share(self, node: Node) -> contextlib.AbstractContextManager[Any]:
        """Leave half of the caller's time for another server, should this one be frozen."""
        remaining = deadline.remaining()
        if remaining is None or self._use_async or not self._router.has_other(node, self._given_up):
            return contextlib.nullcontext()
        return deadline(remaining / 2)

    def _give_up(self, node: Node, error: Exception) -> bool:
        """Whether the read can be made again elsewhere; if so, the transaction forgets the server that failed."""
        verdict = sql.classify(error)
        lost = isinstance(error, Unavailable | DeadlineExceeded | Overloaded) or (
            verdict is not None and verdict.failure is Failure.THROTTLED
        )
        if not lost or self._wrote or deadline.remaining() == 0 or self.in_nested_transaction():
            return False
        if not self._router.has_other(node, self._given_up):
            return False
        self._drop_connection(node)
        self._node = None
        self._given_up = (*self._given_up, node)
        events.emit(ReadMoved(set_name=self._router.set_name, node=node.name, error=type(error).__name__))
        return True

    def _drop_connection(self, node: Node) -> None:
        transaction = self.get_transaction()
        if transaction is None:
            return
        engine = node.async_engine().sync_engine if self._use_async else node.engine
        # A transaction has no public way to give one of its connections back, and a whole rollback would expire the
        # caller's objects and end a `with session.begin()` block for a read that nobody has seen fail.
        held = transaction._connections.pop(engine, None)  # noqa: SLF001
        if held is None:
            return
        transaction._connections.pop(held[0], None)  # noqa: SLF001
        with contextlib.suppress(SQLAlchemyError, ResilientError):  # it is broken; that is why it goes
            held[0].invalidate()
        with contextlib.suppress(SQLAlchemyError, ResilientError):
            held[0].close()

    # ---------------------------------------------------------------------------------------- what the user has seen

    def _committed(self) -> None:
        if self._wrote:
            self._router.observe()


@event.listens_for(RoutingSession, "after_commit")
def _after_commit(session: RoutingSession) -> None:
    session._committed()  # noqa: SLF001 - the session's own listener


@event.listens_for(RoutingSession, "after_transaction_end")
def _after_transaction_end(session: RoutingSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session._forget()  # noqa: SLF001 - the session's own listener
