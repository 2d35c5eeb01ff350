"""The cache beside a real MariaDB: transactions, queries, leaderboards and refreshers on a real Redis."""

from __future__ import annotations

import datetime as dt
import decimal
import random
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from resilient.cache import Cache, Leaderboard
from resilient.testing.servers import MariaDbCluster, RedisCluster, RedisServer

LEASE = 1.5


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))
    version: Mapped[int] = mapped_column(default=0)


class Player(Base):
    __tablename__ = "player"
    id: Mapped[int] = mapped_column(primary_key=True)
    nickname: Mapped[str] = mapped_column(sa.String(50))
    score: Mapped[int]
    price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(10, 2), default=decimal.Decimal("1.50"))
    joined: Mapped[dt.datetime] = mapped_column(default=dt.datetime(2026, 11, 21, 12, 30))  # noqa: DTZ001 - as in SQL
    day: Mapped[dt.date] = mapped_column(default=dt.date(2026, 11, 21))
    token: Mapped[uuid.UUID] = mapped_column(default=uuid.UUID(int=77))
    raw: Mapped[bytes] = mapped_column(sa.LargeBinary(8), default=b"\x00\xff")
    note: Mapped[str | None] = mapped_column(sa.String(50))


BEST = sa.select(Player.id, Player.nickname).order_by(Player.score.desc()).limit(10)


@pytest.fixture
def engine(mariadb: MariaDbCluster) -> Iterator[sa.Engine]:
    """A database with one user and four players."""
    made = sa.create_engine(mariadb.primary.url)
    Base.metadata.create_all(made)
    with Session(made) as session:
        session.add(User(id=17, name="old"))
        for number, score in enumerate([100, 50, 150, 5], start=1):
            session.add(Player(id=number, nickname=f"gamer{number}", score=score))
        session.commit()
    yield made
    made.dispose()


@pytest.fixture
def make(redis_server: RedisServer) -> Iterator[Callable[..., Cache]]:
    """Makes caches over one Redis, each as another process would have it."""
    caches: list[Cache] = []

    def made(**options: Any) -> Cache:
        given = {"namespace": "shop", "ttl": 300, "lease": LEASE, "connect_timeout": 2.0, "timeout": 2.0, **options}
        caches.append(Cache(redis_server.url, **given))
        return caches[-1]

    yield made
    for cache in caches:
        cache.close()


def name_of(engine: sa.Engine) -> str:
    with Session(engine) as session:
        return str(session.scalar(sa.select(User.name).where(User.id == 17)))


def save(engine: sa.Engine, cache: Cache, name: str) -> None:
    """`save_user` as a user of the library writes it."""
    with Session(engine) as session, cache.on_commit(session) as after:
        session.execute(sa.update(User).where(User.id == 17).values(name=name))
        after.set("user:17", name)
        session.commit()


# ----------------------------------------------------------------------------------------------------- save_user


def test_a_save_is_seen_by_others_after_its_commit(engine: sa.Engine, make: Callable[..., Cache]) -> None:
    """Never before it; and a rollback leaves the cache as it was."""
    mine, theirs = make(), make()
    mine.set("user:17", "old")
    with Session(engine) as session, mine.on_commit(session) as after:
        session.execute(sa.update(User).where(User.id == 17).values(name="new"))
        after.set("user:17", "new")
        assert theirs.get("user:17") == "old"
        session.rollback()
    assert theirs.get("user:17") == "old"
    save(engine, mine, "new")
    assert (theirs.get("user:17"), name_of(engine)) == ("new", "new")


def test_of_two_writers_the_older_delayed_the_newer_value_stays(
    engine: sa.Engine, make: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that is late with its cache write does not put its value over that of the later commit."""
    slow, fast = make(), make()
    finish = slow.main.commits.finish

    def late(*args: Any, **options: Any) -> None:
        save(engine, fast, "newer")
        finish(*args, **options)

    monkeypatch.setattr(slow.main.commits, "finish", late)
    save(engine, slow, "older")
    assert name_of(engine) == "newer"
    assert make().get("user:17") in {None, "newer"}
    assert make().get_or_load("user:17", lambda: name_of(engine)) == "newer"


def test_racing_writers_and_readers_leave_nothing_old(engine: sa.Engine, make: Callable[..., Cache]) -> None:
    """Six writers and four readers at once: what is cached at the end is what is in the database."""
    caches = [make(lease=10) for _ in range(10)]
    stop = threading.Event()
    backwards: list[tuple[int, int]] = []

    def write(cache: Cache) -> None:
        for _ in range(15):
            with Session(engine) as session, cache.on_commit(session) as after:
                user = session.get_one(User, 17, with_for_update=True)
                user.version += 1
                after.set("version:17", user.version)
                session.commit()

    def load() -> int:
        with Session(engine) as session:
            return session.scalars(sa.select(User.version).where(User.id == 17)).one()

    def read(cache: Cache) -> None:
        while not stop.is_set():
            before = load()
            seen = cache.get_or_load("version:17", load)
            if seen < before - 6:  # a commit and its cache write are two steps: each writer may be between them
                backwards.append((before, seen))

    with ThreadPoolExecutor(10) as pool:
        readers = [pool.submit(read, cache) for cache in caches[6:]]
        for writer in [pool.submit(write, cache) for cache in caches[:6]]:
            writer.result()
        stop.set()
        for reader in readers:
            reader.result()
    assert load() == 90
    assert caches[0].get("version:17") in {None, 90}
    assert backwards == []


_CHILD = """
    import os, signal, sys
    import sqlalchemy as sa
    from sqlalchemy.orm import Session
    from resilient.cache import Cache
    database, server, lease = sys.argv[1:]
    cache = Cache(server, namespace="shop", ttl=300, lease=float(lease), connect_timeout=2.0, timeout=2.0)
    cache.main.commits.finish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    with Session(sa.create_engine(database)) as session, cache.on_commit(session) as after:
        session.execute(sa.text("UPDATE user SET name = 'new' WHERE id = 17"))
        after.set("user:17", "new")
        session.commit()
"""


def test_a_process_killed_between_commit_and_cache_costs_one_lease(
    engine: sa.Engine, make: Callable[..., Cache], mariadb: MariaDbCluster, redis_server: RedisServer
) -> None:
    """Nobody is served the old value, though nobody told the cache; after the lease it is cached again."""
    cache = make()
    cache.set("user:17", "old")
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_CHILD), mariadb.primary.url, redis_server.url, str(LEASE)],
        check=False,
        timeout=30,
    )
    assert ended.returncode == -9
    assert name_of(engine) == "new"
    assert cache.get("user:17") is None
    assert cache.get_or_load("user:17", lambda: name_of(engine)) == "new"
    until = time.monotonic() + LEASE + 2
    while cache.get("user:17") is None and time.monotonic() < until:
        assert cache.get_or_load("user:17", lambda: name_of(engine)) == "new"
        time.sleep(0.05)
    assert cache.get("user:17") == "new"


def test_a_cache_that_is_down_fails_no_save(
    engine: sa.Engine, make: Callable[..., Cache], redis_server: RedisServer
) -> None:
    """The save succeeds, and the value of before the outage is not served after it."""
    cache = make(connect_timeout=0.1, timeout=0.1)
    cache.set("user:17", "old")
    redis_server.freeze()
    began = time.monotonic()
    save(engine, cache, "new")
    assert time.monotonic() - began < 2
    assert name_of(engine) == "new"
    redis_server.thaw()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert cache.get_or_load("user:17", lambda: name_of(engine)) == "new"
        if cache.stats().state == "up" and cache.get("user:17") == "new":
            break
        time.sleep(0.05)
    assert cache.get("user:17") == "new"


# ---------------------------------------------------------------------------------------------------------- queries


def test_a_query_runs_once_per_ttl_in_all_processes(engine: sa.Engine, make: Callable[..., Cache]) -> None:
    """Its rows come back with their types."""
    loads: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *a: loads.append(a[2]) if "FROM player" in a[2] else None)
    columns = sa.select(Player.__table__).order_by(Player.id)
    values = []
    for _ in range(2):
        with Session(engine) as session:
            values.append(make().query(session, columns, ttl=60).first())
    assert len(loads) == 1
    first, second = values
    assert first is not None
    assert second is not None
    assert first == second
    assert list(map(type, second)) == [
        int,
        str,
        int,
        decimal.Decimal,
        dt.datetime,
        dt.date,
        uuid.UUID,
        bytes,
        type(None),
    ]
    with Session(engine) as session:
        rows = make().query(session, BEST, ttl=60)
    assert [row.nickname for row in rows][:3] == ["gamer3", "gamer1", "gamer2"]


@pytest.mark.parametrize("level", ["its own", "REPEATABLE READ", "READ COMMITTED"])
def test_rows_of_an_old_snapshot_are_stored_for_nobody(
    engine: sa.Engine, make: Callable[..., Cache], level: str
) -> None:
    """A transaction that began before a change sees the rows of then; everybody else gets those of now."""
    mine, theirs = make(), make()
    options = {} if level == "its own" else {"isolation_level": level}
    with Session(engine) as old:
        old.connection(execution_options=options)
        assert [row.id for row in old.execute(BEST)] == [3, 1, 2, 4]  # its snapshot is taken
        with Session(engine) as session, theirs.on_commit(session):
            session.execute(sa.update(Player).where(Player.id == 4).values(score=500))
            session.commit()
        moves = level == "READ COMMITTED"
        assert [row.id for row in mine.query(old, BEST, ttl=60)] == ([4, 3, 1, 2] if moves else [3, 1, 2, 4])
        for cache in (theirs, mine):
            with Session(engine) as session:
                assert [row.id for row in cache.query(session, BEST, ttl=60)] == [4, 3, 1, 2]
        assert [row.id for row in mine.query(old, BEST, ttl=60)] == [4, 3, 1, 2]  # from the cache
    assert mine.stats().stores + theirs.stats().stores == 1


def test_a_transaction_that_wrote_reads_its_own_writes(engine: sa.Engine, make: Callable[..., Cache]) -> None:
    """And caches nothing of what it reads."""
    cache = make()
    with Session(engine) as session:
        session.execute(sa.update(Player).where(Player.id == 4).values(score=999))
        assert cache.query(session, BEST, ttl=60)[0].id == 4
        session.rollback()
    with Session(engine) as session:
        assert cache.query(session, BEST, ttl=60)[0].id == 3


PAGE = sa.select(Player.id, Player.score).order_by(Player.score.desc(), Player.id).limit(50).offset(1000)


@pytest.fixture
def many(engine: sa.Engine) -> None:
    """1,200 players."""
    with Session(engine) as session:
        session.add_all(Player(id=number, nickname=f"p{number}", score=number) for number in range(10, 1206))
        session.commit()


def page(engine: sa.Engine, cache: Cache) -> list[tuple[int, int]]:
    """The page, from the cache or the database."""
    with Session(engine) as session:
        return [tuple(row) for row in cache.query(session, PAGE, ttl=60)]


@pytest.mark.usefixtures("many")
def test_a_paged_query_is_invalidated_by_its_tables_tag(engine: sa.Engine, make: Callable[..., Cache]) -> None:
    """A transaction that writes to the table makes every page of it be read anew, in all processes; others stay."""
    sent: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *a: sent.append(a[2]) if "SELECT" in a[2] else None)
    mine, theirs = make(), make()
    users = sa.select(User.id, User.name)

    def ask(cache: Cache) -> tuple[list[tuple[int, int]], list[tuple[int, str]]]:
        with Session(engine) as session:
            others = [tuple(row) for row in cache.query(session, users, ttl=60)]
        return page(engine, cache), others

    first = ask(mine)
    assert len(first[0]) == 50
    assert ask(theirs) == first
    assert len(sent) == 2
    with Session(engine) as session, mine.on_commit(session):
        session.execute(sa.update(Player).where(Player.id == 50).values(score=100_000))
        assert page(engine, theirs) == first[0]
        session.rollback()
    assert ask(theirs) == first
    assert len(sent) == 2, "a rollback left the rows cached"
    with Session(engine) as session, mine.on_commit(session):
        session.execute(sa.update(Player).where(Player.id == 50).values(score=100_000))
        session.commit()
    second = ask(theirs)
    assert second[0] != first[0]
    assert second[0][0] == (206, 206), "one more stands above the page"
    assert second[1] == first[1]
    assert len(sent) == 3, "the page alone was read anew"
    assert ask(mine) == second
    theirs.invalidate_tags("table:player", "table:user")
    assert ask(mine) == second
    assert len(sent) == 5


@pytest.mark.usefixtures("many")
def test_pages_read_while_writers_commit_are_never_old(engine: sa.Engine, make: Callable[..., Cache]) -> None:
    """Four processes read a page while two write to its table: who asks after a commit gets what it made."""
    caches = [make(lease=10) for _ in range(6)]
    top = sa.select(sa.func.max(Player.score))
    committed = [1205]
    old: list[tuple[int, int]] = []
    stop = threading.Event()
    lock = threading.Lock()

    def write(cache: Cache) -> None:
        for _ in range(15):
            with Session(engine) as session, cache.on_commit(session):
                player = session.get_one(Player, 1, with_for_update=True)
                highest = session.scalars(sa.select(sa.func.max(Player.score))).one()
                player.score = highest + 1
                session.commit()
            with lock:
                committed[0] = max(committed[0], highest + 1)

    def read(cache: Cache) -> None:
        while not stop.is_set():
            least = committed[0]
            with Session(engine) as session:
                (seen,) = cache.query(session, top, ttl=60)[0]
            if seen < least:
                old.append((seen, least))

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read, cache) for cache in caches[2:]]
        for writer in [pool.submit(write, cache) for cache in caches[:2]]:
            writer.result()
        stop.set()
        for reader in readers:
            reader.result()
    assert old == []
    with Session(engine) as session:
        assert make().query(session, top, ttl=60)[0][0] == session.scalars(top).one()


_DYING = """
    import os, signal, sys
    import sqlalchemy as sa
    from sqlalchemy.orm import Session
    from resilient.cache import Cache
    database, server, lease = sys.argv[1:]
    cache = Cache(server, namespace="shop", ttl=300, lease=float(lease), connect_timeout=2.0, timeout=2.0)
    cache.main.tags.finish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    with Session(sa.create_engine(database)) as session, cache.on_commit(session):
        session.execute(sa.text("UPDATE player SET score = 100000 WHERE id = 50"))
        session.commit()
"""


@pytest.mark.usefixtures("many")
def test_a_process_killed_between_commit_and_tags_costs_one_lease(
    engine: sa.Engine, make: Callable[..., Cache], mariadb: MariaDbCluster, redis_server: RedisServer
) -> None:
    """Nobody is served the rows of before the commit, though nobody told; after the lease they are cached again."""
    cache = make()
    before = page(engine, cache)
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_DYING), mariadb.primary.url, redis_server.url, str(LEASE)],
        check=False,
        timeout=30,
    )
    assert ended.returncode == -9
    after = page(engine, cache)
    assert after != before
    until = time.monotonic() + LEASE + 5
    while cache.stats().hits == 0 and time.monotonic() < until:
        assert page(engine, cache) == after
        time.sleep(0.05)
    assert cache.stats().hits > 0


# ------------------------------------------------------------------------------------------------------- leaderboards


def test_a_leaderboard_is_what_order_by_says(engine: sa.Engine, make: Callable[..., Cache]) -> None:
    """On 10,000 random rows with many equal scores; and rebuilt once after a flush, by whichever process."""
    chance = random.Random(11)
    with Session(engine) as session:
        session.execute(sa.delete(Player))
        rows = [{"id": n, "nickname": f"gamer{n}", "score": chance.randrange(500)} for n in range(1, 10_001)]
        session.execute(sa.insert(Player), rows)
        session.commit()
        ordered = session.execute(sa.select(Player.id, Player.score).order_by(Player.score.desc(), Player.id)).all()
    loads: list[int] = []

    def load() -> list[tuple[int, int]]:
        loads.append(1)
        with Session(engine) as session:
            return [(row.id, row.score) for row in session.execute(sa.select(Player.id, Player.score))]

    boards = [Leaderboard(make(lease=10), "players", load, ttl=60) for _ in range(4)]
    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda at: boards[at % 4].top(20), range(8)))
        assert [[(each.member, each.score) for each in one] for one in found] == [ordered[:20]] * 8
        assert len(loads) == 1
        assert [(each.member, each.score) for each in boards[1].top(10_000)] == ordered
        loads.clear()
        make().store.channel.call("FLUSHALL")  # type: ignore[attr-defined]  # the store of a server


def test_a_leaderboard_in_a_cluster(redis_cluster: RedisCluster) -> None:
    """All its keys stand in one slot: it is built, changed and read as on one server."""
    cache = Cache(redis_cluster.url, namespace="game", connect_timeout=2.0, timeout=2.0)
    board = Leaderboard(cache, "players", lambda: [("gamer1", 100), ("gamer2", 50)], ttl=60)
    assert [each.member for each in board.top()] == ["gamer1", "gamer2"]
    board.add("gamer3", 150)
    board.incr("gamer2", 500)
    board.remove("gamer1")
    assert [(each.rank, each.member, each.score) for each in board.around("gamer3")] == [
        (1, "gamer2", 550),
        (2, "gamer3", 150),
    ]
    board.rebuild()
    assert board.count() == 2
    board.invalidate()
    assert [each.member for each in board.top()] == ["gamer1", "gamer2"]
    cache.close()


# --------------------------------------------------------------------------------------------------------- refreshers

_REFRESHER = """
    import sys, time
    from resilient.cache import Cache, Refresher
    cache = Cache(sys.argv[1], namespace="shop", ttl=300, connect_timeout=2.0, timeout=2.0)
    def load():
        cache.store.channel.call("RPUSH", "loads", sys.argv[2])
    refresher = Refresher(cache, every=0.5, lease=1.0)
    refresher.add(load)
    with refresher:
        print("ready", flush=True)
        sys.stdin.read()
"""


def test_one_of_three_processes_refreshes_and_its_death_costs_one_lease(
    redis_server: RedisServer, make: Callable[..., Cache]
) -> None:
    """Exactly one at a time; another goes on when it is killed."""
    channel: Any = make().store.channel  # type: ignore[attr-defined]  # the store of a server
    command = [sys.executable, "-c", textwrap.dedent(_REFRESHER), redis_server.url]
    workers = {
        name: subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for name in "abc"
    }

    def loads(least: int) -> list[str]:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            found = [each.decode() for each in channel.call("LRANGE", "loads", 0, -1)]
            if len(found) >= least:
                return found
            time.sleep(0.02)
        raise AssertionError(found)

    try:
        for worker in workers.values():
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"
        first = loads(4)
        assert len(set(first)) == 1
        workers[first[0]].kill()
        killed = time.monotonic()
        after = [name for name in loads(len(first) + 4) if name != first[0]]
        assert time.monotonic() - killed < 1.0 + 4 * 0.5 + 3  # a lease, four rounds, and a slow machine
        assert len(set(after)) == 1
    finally:
        for worker in workers.values():
            worker.kill()
            worker.communicate()
