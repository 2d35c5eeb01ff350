"""Reads over all shards at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from typing import Any, Self

from sqlalchemy.engine import IteratorResult, ScalarResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from resilient import events
from resilient.clock import Clock
from resilient.errors import DeadlineExceeded, InvalidInput, Overloaded, ResilientError, Unavailable
from resilient.policy import deadline
from resilient.runtime import WorkerPool
from resilient.storage.shards._events import Gathered, ShardMissing
from resilient.storage.shards._merge import Row, merge
from resilient.storage.shards._plan import plan

__all__ = ["GatherResult", "GatherSession"]

_MISSING = (Unavailable, DeadlineExceeded, Overloaded, StillRunning)
_GRACE = 0.25  # seconds a worker may take to notice that its time is over


class GatherResult(IteratorResult[Any]):
    """SQLAlchemy's own result, of the merged rows.

    Attributes:
        missing: The shards that gave no answer; empty unless the gathering was ``partial``.
    """

    missing: tuple[str, ...] = ()


class GatherSession:
    """Reads over all shards, in parallel; made by `ShardSet.gather`.

    Objects that were read stay attached to a session of their shard until the block ends. Relations are not loaded:
    they may lead to another shard.

    Args:
        makers: For each shard a factory of its sessions.
        pool: Where the shards are asked.
        backend: The shards' database.
        timeout: Seconds for the answer of all shards.
        partial: Whether an answer without some shards will do.
        clock: Where time is read.
    """

    def __init__(
        self,
        makers: Mapping[str, Callable[[], Session]],
        pool: WorkerPool,
        *,
        backend: str,
        timeout: float,
        partial: bool,
        clock: Clock,
    ) -> None:
        self._makers = makers
        self._pool = pool
        self._backend = backend
        self._timeout = timeout
        self._partial = partial
        self._clock = clock
        self._sessions: list[Session] = []
        self.missing: tuple[str, ...] = ()

    def execute(self, statement: Any) -> GatherResult:
        """The rows of all shards as one answer, in the statement's order.

        Args:
            statement: A ``select()`` on one sharded table, with any ``where()``, and ``order_by()`` with ``limit()``
                and ``offset()``.

        Raises:
            InvalidInput: It is not proven that the answer would be that of one database; says what to write instead.
            Unavailable: A shard gave no answer; names it. Not raised when ``partial`` and at least one answered.
            DeadlineExceeded: No time was left to ask.
        """
        planned = plan(statement, self._backend)
        answers = self._ask(planned.statement)
        count = len(planned.orders)
        rows = [[tuple(row) for row in found] for _, found in answers.values()]
        merged = merge(rows, planned.orders, limit=planned.limit, offset=planned.offset)
        keys = next(iter(answers.values()))[0]
        result = GatherResult(SimpleResultMetaData(keys[: len(keys) - count]), iter(merged))
        result.missing = self.missing
        return result

    def scalars(self, statement: Any) -> ScalarResult[Any]:
        """The first column, or the object, of each row: see `execute`."""
        return self.execute(statement).scalars()

    def each(self, statement: Any) -> dict[str, list[Row]]:
        """The answer of each shard by itself, not merged: any ``select()``, sums and counts among them.

        Args:
            statement: A ``select()``.

        Raises:
            InvalidInput: It is no ``select()``.
            Unavailable: A shard gave no answer; names it.
        """
        if not getattr(statement, "is_select", False):
            raise InvalidInput("each() takes a select()", advice="write to one shard: shards.session(key=…)")
        return {name: rows for name, (_, rows) in self._ask(statement).items()}

    def close(self) -> None:
        """Give back every connection; objects that were read stay usable as they are."""
        sessions, self._sessions = self._sessions, []
        for session in sessions:
            with contextlib.suppress(SQLAlchemyError, ResilientError):  # nothing was written that could be lost
                session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------- asking

    def _ask(self, statement: Any) -> dict[str, tuple[Sequence[str], list[Any]]]:
        began = self._clock.monotonic()
        until = began + deadline.bound(self._timeout)
        futures: dict[str, Future[Any]] = {}
        answers: dict[str, tuple[Sequence[str], list[Any]]] = {}
        errors: dict[str, Exception] = {}
        for name in self._makers:
            try:
                futures[name] = self._pool.submit(self._one, name, statement, until)
            except Overloaded as error:
                errors[name] = error
        for name, future in futures.items():
            try:
                session, keys, rows = future.result(max(0.0, until - self._clock.monotonic()) + _GRACE)
            except _MISSING as error:
                future.cancel()
                errors[name] = error
                continue
            self._sessions.append(session)
            answers[name] = (keys, rows)
        self._tell(errors, began)
        if errors and (not self._partial or not answers):
            raise Unavailable(
                f"no answer from {_listed(sorted(errors))} of {len(self._makers)} shards",
                advice="gather(partial=True) answers without them and says so",
            ) from next(iter(errors.values()))
        self.missing = tuple(sorted(errors))
        return answers

    def _one(self, name: str, statement: Any, until: float) -> tuple[Session, Sequence[str], list[Any]]:
        session = self._makers[name]()
        try:
            with deadline(max(0.0, until - self._clock.monotonic())):
                result = session.execute(statement)
                return session, tuple(result.keys()), list(result.all())
        except BaseException:
            with contextlib.suppress(SQLAlchemyError, ResilientError):  # the first error is the one to tell
                session.close()
            raise

    def _tell(self, errors: Mapping[str, Exception], began: float) -> None:
        for name, error in errors.items():
            events.emit(ShardMissing(shard=name, error=type(error).__name__))
        if events.wanted(Gathered):
            took = self._clock.monotonic() - began
            events.emit(Gathered(shards=len(self._makers), missing=len(errors), seconds=took))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
