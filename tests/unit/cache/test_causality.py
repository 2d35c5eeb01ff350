"""A load that an invalidation made necessary reads the database as it was at that invalidation, or newer."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from resilient import causality
from resilient.cache import Cache
from resilient.cache._async.engine import tier as async_tier
from resilient.cache._causal import at_or_after, merged, note
from resilient.cache._stamps import UNKNOWN
from resilient.cache._sync.engine import tier, writes
from resilient.causality import Instant, Token
from resilient.errors import Overloaded
from resilient.testing import FakeClock
from resilient.testing.cache import MemoryCache
from resilient.testing.replicas import FakeReplicaSet

SCHEDULES = max(200, int(10_000 * float(os.environ.get("RESILIENT_SCALE", "0.02"))))


class Replicated:
    """A value on a primary and on a replica that lags; reads go where their scope allows."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.lag = 0.0
        self.history = [(0.0, 0)]

    @property
    def newest(self) -> int:
        return self.history[-1][1]

    def commit(self, scope: causality.Scope) -> None:
        self.clock.advance(0.001)
        self.history.append((self.clock.wall(), self.newest + 1))
        scope.observe("app", Instant(self.clock.wall()))

    def read(self) -> int:
        proven = Instant(self.clock.wall() - self.lag)
        pin = causality.current().token.get("app")
        if pin is not None and not proven.covers(pin):
            return self.newest
        return [value for at, value in self.history if at <= proven.at][-1]


class Schedule:
    """A random run of two writers and three readers, whose steps fall between each other."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = FakeClock()
        self.database = Replicated(self.clock)
        first = MemoryCache(namespace="shop", ttl=300, lease=10, jitter=0.0, clock=self.clock)
        others = [Cache(first.store, namespace="shop", ttl=300, lease=10, clock=self.clock) for _ in range(2)]
        self.caches: list[Cache] = [first, *others]
        self.untold: list[causality.Scope] = []
        self.stale: list[tuple[int, int]] = []

    def run(self) -> list[tuple[int, int]]:
        """The steps; what was found in the cache though it was older than the last change that was told."""
        for _ in range(self.chance.randrange(4, 14)):
            self.step(0)
        for scope in list(self.untold):
            self.tell(scope)
        self.look()
        return self.stale

    def step(self, depth: int) -> None:
        what = self.chance.choice(["write", "tell", "read", "read", "read", "many", "wait", "lag"])
        if what == "write":
            scope = causality.Scope()
            self.database.commit(scope)
            self.untold.append(scope)
        elif what == "tell" and self.untold:
            self.tell(self.chance.choice(self.untold))
        elif what in {"read", "many"} and not depth:  # within a load, another reader would wait for it
            cache = self.chance.choice(self.caches)
            with causality.scope():
                if what == "read":
                    cache.get_or_load("value", lambda: self.load(depth))
                else:
                    cache.get_many(["value"], load_many=lambda keys: dict.fromkeys(keys, self.load(depth)))
        elif what == "wait":
            self.clock.advance(self.chance.choice([0.01, 0.3, 1.0]))
        elif what == "lag":
            self.database.lag = self.chance.choice([0.0, 0.1, 0.5, 2.0])
        self.look()

    def load(self, depth: int) -> int:
        if self.chance.random() < 0.5:
            self.step(depth + 1)
        value = self.database.read()
        if self.chance.random() < 0.5:
            self.step(depth + 1)
        return value

    def tell(self, scope: causality.Scope) -> None:
        self.untold.remove(scope)
        with causality.scope(scope.token):
            self.chance.choice(self.caches).invalidate("value")

    def look(self) -> None:
        found = self.caches[0].get("value")
        if found is not None and found != self.database.newest and not self.untold:
            self.stale.append((found, self.database.newest))


@pytest.mark.scaled
def test_no_schedule_fills_the_cache_from_behind() -> None:
    """Whatever the lag and the order of steps: with every change told, nothing cached is older than the database."""
    stale = {seed: found for seed in range(SCHEDULES) if (found := Schedule(seed).run())}
    assert stale == {}


def test_without_the_token_the_schedules_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control arm: an invalidation that tells no position lets a lagging replica fill the cache."""
    for module in (tier, writes, async_tier):
        monkeypatch.setattr(module, "note", lambda _: b"")
    assert any(Schedule(seed).run() for seed in range(200))


@contextmanager
def a_replica_set() -> Iterator[tuple[FakeReplicaSet, MemoryCache, Any]]:
    """A replica set that lags by half a second, and a cache on its clock."""
    database = FakeReplicaSet(lag=0.5)
    table = sa.table("player", sa.column("id", sa.Integer), sa.column("score", sa.Integer))
    with database.engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE player (id INTEGER PRIMARY KEY, score INTEGER)"))
        connection.execute(table.insert().values(id=1, score=5))
    database.clock.advance(1)
    try:
        yield database, MemoryCache(namespace="shop", clock=database.clock), table
    finally:
        database.close()


@pytest.mark.parametrize("way", ["invalidate", "on_commit", "write_through"])
def test_behind_a_replica_set_a_stranger_loads_what_was_committed(way: str) -> None:
    """He has written nothing himself, and is not pinned to the primary afterwards."""
    with a_replica_set() as (database, cache, table):
        session_maker = database.sessionmaker()
        statement = sa.select(table.c.score).where(table.c.id == 1)

        def load() -> int | None:
            with session_maker() as session:
                return session.scalar(statement)

        def write() -> int:
            with session_maker() as session:
                session.execute(table.update().values(score=150))
                session.commit()
            return 1

        with database.scope():
            assert cache.get_or_load("score", load) == 5
        with database.scope(), session_maker() as session:
            if way == "on_commit":
                with cache.on_commit(session) as after:
                    session.execute(table.update().values(score=150))
                    after.invalidate("score")
                    session.commit()
            elif way == "write_through":
                cache.write_through("score")(write)()
            else:
                write()
                cache.invalidate("score")
        with database.scope() as stranger:
            assert load() == 5
            assert cache.get_or_load("score", load) == 150
            assert not stranger.token
            assert load() == 5
            assert cache.get("score") == 150


@pytest.mark.parametrize("how", ["refused", "nothing to keep", "a commit elsewhere"])
def test_a_writer_that_stores_nothing_leaves_what_an_invalidation_before_it_told(how: str) -> None:
    """The load that follows still reads the database as it was at that invalidation, or newer."""
    with a_replica_set() as (database, cache, table):
        session_maker = database.sessionmaker()

        def load() -> int | None:
            with session_maker() as session:
                return session.scalar(sa.select(table.c.score).where(table.c.id == 1))

        with database.scope(), session_maker() as session:
            session.execute(table.update().values(score=150))
            session.commit()
            cache.invalidate("score")

        @cache.write_through("score")
        def write() -> int | None:
            if how == "refused":
                raise Overloaded("nothing was written")
            return None

        with database.scope(), contextlib.suppress(Overloaded):
            if how == "a commit elsewhere":
                commits = cache.main.commits
                commits.finish(commits.begin([cache.physical("score")]), {}, UNKNOWN)
            else:
                write()
        with database.scope():
            assert load() == 5
            assert cache.get_or_load("score", load) == 150
            assert cache.get("score") == 150


def test_a_writer_whose_fence_is_gone_leaves_what_an_invalidation_meanwhile_told() -> None:
    """While nobody stores, each reader loads for himself: the database as it was at that invalidation, or newer."""
    with a_replica_set() as (database, cache, table):
        session_maker = database.sessionmaker()

        def load() -> int | None:
            with session_maker() as session:
                return session.scalar(sa.select(table.c.score).where(table.c.id == 1))

        @cache.write_through("score")
        def write() -> None:
            with database.scope(), session_maker() as session:
                session.execute(table.update().values(score=150))
                session.commit()
                cache.invalidate("score")

        with database.scope():
            write()
        with database.scope():
            assert load() == 5
            assert cache.get_or_load("score", load) == 150
            assert cache.get("score") is None


def test_all_servers_of_a_set_share_the_rows_of_a_query() -> None:
    """Whichever served the first read; and asking for them chooses no server."""
    with a_replica_set() as (database, cache, table):
        statement = sa.select(table.c.score)
        for level in ("eventual", "strong", "eventual"):
            with database.scope(), database.consistency(level), database.sessionmaker()() as session:
                assert cache.query(session, statement, 60) == [(5,)]
                assert session.in_transaction() is (cache.stats().loads == 1 and cache.stats().hits == 0)
        assert cache.stats().loads == 1


def test_the_cache_away_meanwhile() -> None:
    """What was changed in an outage is told with its position when the cache is back."""
    with a_replica_set() as (database, cache, table):
        cache.set("score", 5)
        with database.scope(), database.sessionmaker()() as session, cache.outage(), cache.on_commit(session) as after:
            session.execute(table.update().values(score=150))
            after.invalidate("score")
            session.commit()
        database.lag = 60
        database.clock.advance(1)

        def load() -> int | None:
            with database.sessionmaker()() as session:
                return session.scalar(sa.select(table.c.score))

        with database.scope():
            assert cache.get_or_load("score", load) == 150


def test_a_later_invalidation_keeps_what_the_former_told() -> None:
    """Also one by somebody who has seen nothing."""
    clock = FakeClock()
    cache = MemoryCache(clock=clock)
    with causality.scope("1!app:t1700000000.000000"):
        cache.invalidate("a")
    with causality.scope("1!other:t1700000000.000000"):
        cache.invalidate("a")
    cache.invalidate("a")
    seen = cache.get_or_load("a", lambda: str(causality.current().token))
    assert seen == "1!app:t1750000000.000000!other:t1750000000.000000"


def test_what_a_load_learns_its_caller_learns() -> None:
    """A loader that writes lets its caller read its write; the positions it was sent to do not stick."""
    with causality.scope("1!mine:t1.000000") as outer:
        with at_or_after(b"1!app:t5.000000"):
            inner = causality.current()
            assert str(inner.token) == "1!app:t5.000000!mine:t1.000000"
            inner.observe("mine", Instant(7))
        assert str(outer.token) == "1!mine:t7.000000"


def test_notes_that_are_none() -> None:
    """Nothing asks for nothing."""
    assert note(1.0) == b""
    with at_or_after(b"", b"no note", b"\xff"):
        assert causality.running() is None
    assert merged() == merged(b"", b"\xff", b"no note") == b""
    assert merged(b"1!app:t1.000000") == str(Token({"app": Instant(1)})).encode()
