"""A pytest plugin for SQLAlchemy's own test suite: their Session is our RoutingSession.

Loaded with ``-p sqlalchemy_swap`` before any of their modules. What their suite then runs is the class that
`resilient.storage.replicas` hands out, over replica sets made of the engines their tests create:

* ``SWAP=primary``: each set has its primary alone;
* ``SWAP=replica``: each set over a SQLite file has, besides, a replica which is that same file, opened for reading
  only. Every transaction that begins with a proven pure read is then served there, by another connection;
* ``SWAP=pair`` with ``SWAP_REPLICA=URL``: each set over MariaDB has, besides, that real replica. Their tests write by
  ways that no session of ours sees, so each read is asked for as by a user who has seen everything up to now, and the
  replica is probed until it is proven to hold that.

Their tests give one session several databases, ready connections, or none, which a session of one replica set never
meets. Those binds are looked up as SQLAlchemy does it, and the first database that a transaction meets is the one that
is routed.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections import Counter
from typing import Any

import sqlalchemy.orm as theirs
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext import asyncio as theirs_async
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import session as theirs_too

from resilient.storage.replicas import ReplicaSet, RoutingSession
from resilient.storage.replicas._router import Router

SWAP = os.environ.get("SWAP", "primary")
TOLD = (
    "before_execute",
    "before_cursor_execute",
    "after_execute",
    "after_cursor_execute",
    "set_connection_execution_options",
)
"""Events of a replica's engine that the engine they gave is told of."""
ROUTED: Counter[str] = Counter()
"""How often a read was given a server of each role, and how often a statement needed the primary."""

_Session = theirs.Session


class _Router(Router):
    """Decides as it always does, and counts what it decided."""

    owner: _Set

    def pick(self, given_up: Any = ()) -> Any:
        if SWAP == "pair" and self.replicas:
            self._wait_for_proof()
        node = super().pick(given_up)
        node.engine._compiled_cache = self.primary.engine._compiled_cache  # some tests of theirs run without one
        ROUTED[node.role] += 1
        return node

    def _wait_for_proof(self) -> None:
        self.observe()
        seen = time.time()
        while time.time() < seen + 5:
            self.owner.probe()
            if all((node.proven or 0) > seen and node.health.state == "up" for node in self.replicas):
                return
            time.sleep(0.001)

    def require_writable(self) -> None:
        ROUTED["needs primary"] += 1
        super().require_writable()


class _Set(ReplicaSet):
    """A replica set over an engine of theirs."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, _replicas_of(engine), name="peer", probe_interval=None, unbounded=True)
        for node in self.router.replicas:
            if SWAP == "replica":
                node.health.state, node.proven = "up", float("inf")  # the same file holds all that the primary holds
            node.engine.update_execution_options(**engine.get_execution_options())
            # They count statements with listeners on the engine they gave.
            for name in TOLD:
                event.listen(node.engine, name, _told_to(engine, name))
            # Where an engine of theirs is disposed, its database is removed.
            event.listen(engine, "engine_disposed", lambda _engine, node=node: node.drop_connections())
        if engine.dialect.is_async:
            self.router.primary._async_engine = AsyncEngine(engine)

    def _make_router(self, *parts: Any, **rules: Any) -> _Router:
        made = _Router(*parts, **rules)
        made.owner = self
        return made


class Session(RoutingSession):
    """Our session, which asks for its set when it meets the first engine of a transaction."""

    def __init__(self, bind: Any = None, **options: Any) -> None:
        self._engine: Engine | None = None
        super().__init__(bind, router=None, **options)  # type: ignore[arg-type] # set below, before it is used

    def _forget(self) -> None:
        self._engine = None
        super()._forget()

    def _adopt(self, bind: Any) -> bool:
        """Whether the bind is the database that this transaction routes; the first one becomes it."""
        if not isinstance(bind, Engine) or bind.dialect.name not in {"sqlite", "mysql", "mariadb"}:
            return False
        if self._engine is None:
            self._engine = bind
            self._use_async = bind.dialect.is_async
            self._router = _set_of(bind).router
        return self._engine is bind

    def get_bind(self, mapper: Any = None, **options: Any) -> Any:
        bind = _Session.get_bind(self, mapper, **options)
        if options.get("bind") is not None or not self._adopt(bind):
            return bind
        return super().get_bind(mapper, clause=options.get("clause"))

    def _first(self, call: Any, statement: Any, args: Any, options: Any) -> Any:
        bind = None
        with contextlib.suppress(SQLAlchemyError, AttributeError):  # no bind, or no statement: told by the call itself
            bind = _Session.get_bind(self, clause=statement)
        if not self._adopt(bind):
            return call(statement, *args, **options)
        return super()._first(call, statement, args, options)


def _told_to(engine: Engine, name: str) -> Any:
    def tell(*args: Any) -> None:
        for listener in getattr(engine.dispatch, name):
            listener(*args)

    return tell


def _replicas_of(engine: Engine) -> list[Any]:
    driver, database = engine.url.get_driver_name(), engine.url.database
    if SWAP == "replica" and driver == "pysqlite" and database not in {None, "", ":memory:"}:
        return [engine.url]
    if SWAP == "pair" and driver == "pymysql":
        return [os.environ["SWAP_REPLICA"]]
    return []


def _set_of(engine: Engine) -> _Set:
    made: _Set | None = engine.__dict__.get("_peer_set")
    if made is None:
        made = engine.__dict__["_peer_set"] = _Set(engine)
    return made


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was routed: a suite that met no routing would prove nothing."""
    terminalreporter.write_line(
        "routed: " + " ".join(f"{key.replace(' ', '-')}={ROUTED[key]}" for key in sorted(ROUTED))
    )


def _swap() -> None:
    for name in vars(_Session):
        # A test of theirs looks for the public methods in the class's own namespace, where inherited ones are not.
        if not name.startswith("__") or name in {"__contains__", "__iter__"}:
            setattr(Session, name, inspect.getattr_static(Session, name))
    for module in (theirs, theirs_too):
        module.Session = Session  # type: ignore[misc]
    for maker in (theirs.sessionmaker, theirs_async.async_sessionmaker):
        defaults = maker.__init__.__kwdefaults__
        if defaults.get("class_") is _Session:
            defaults["class_"] = Session
    theirs_async.AsyncSession.sync_session_class = Session


_swap()
