"""The cache of SQL queries, and what becomes of a statement as a key."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from resilient.cache import Cache
from resilient.cache._statements import fingerprint, normalised, tables_of, written_in
from resilient.cache._transactions import snapshot_of, wrote
from resilient.errors import ConfigurationError, InvalidInput
from resilient.testing import FakeClock
from resilient.testing.cache import AsyncMemoryCache, MemoryCache


class Base(DeclarativeBase):
    pass


class Player(Base):
    __tablename__ = "player"
    id: Mapped[int] = mapped_column(primary_key=True)
    nickname: Mapped[str]
    score: Mapped[int]


class Kinds(Base):
    __tablename__ = "kinds"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(10, 2, asdecimal=True))
    at: Mapped[dt.datetime]
    day: Mapped[dt.date]
    token: Mapped[uuid.UUID]
    raw: Mapped[bytes]
    note: Mapped[str | None]


BEST = sa.select(Player.id, Player.nickname).order_by(Player.score.desc()).limit(10)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sent() -> list[str]:
    """The queries that were sent to the database."""
    return []


@pytest.fixture
def engine(sent: list[str]) -> Iterator[sa.Engine]:
    """A database with four players."""
    made = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(made)
    with Session(made) as session:
        session.add_all(
            Player(id=number, nickname=f"gamer{number}", score=score)
            for number, score in enumerate([100, 50, 150, 5], start=1)
        )
        session.commit()

    @sa.event.listens_for(made, "before_cursor_execute")
    def _note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "WITH")):
            sent.append(statement)

    yield made
    made.dispose()


@pytest.fixture
def cache(clock: FakeClock) -> MemoryCache:
    return MemoryCache(namespace="game", jitter=0.0, clock=clock)


def ask(cache: Cache, engine: sa.Engine, statement: Any = BEST, **options: Any) -> Any:
    with Session(engine) as session:
        return cache.query(session, statement, 60, **options)


# ------------------------------------------------------------------------------------------------------------ rows


def test_the_query_runs_once_per_ttl(cache: MemoryCache, engine: sa.Engine, sent: list[str], clock: FakeClock) -> None:
    """Every reader gets the same rows; after the ttl the database is asked again."""
    for _ in range(3):
        rows = ask(cache, engine)
        assert [(row.id, row.nickname) for row in rows][:3] == [(3, "gamer3"), (1, "gamer1"), (2, "gamer2")]
    assert len(sent) == 1
    clock.advance(61)
    ask(cache, engine)
    assert len(sent) == 2


def test_rows_behave_as_rows(cache: MemoryCache, engine: sa.Engine) -> None:
    """By name, by place, unpacked, as mappings, scalars and a single one; more than once."""
    for _ in range(2):
        rows = ask(cache, engine)
        first = rows[0]
        number, name = first
        assert (number, name, first.nickname, first[1], first._mapping["id"]) == (3, "gamer3", "gamer3", "gamer3", 3)
        assert (len(rows), rows.keys(), rows.first(), rows.all()[1:2]) == (
            4,
            ("id", "nickname"),
            (3, "gamer3"),
            rows[1:2],
        )
        assert rows.scalars().all() == [3, 1, 2, 4]
        assert rows.mappings().first() == {"id": 3, "nickname": "gamer3"}
        one = ask(cache, engine, sa.select(sa.func.count()).select_from(Player))
        assert (one.scalar(), one.scalar_one(), one.one(), one.one_or_none()) == (4, 4, (4,), (4,))
        none = ask(cache, engine, BEST.where(Player.id == 77))
        assert (none.first(), none.all(), none.scalar(), list(none)) == (None, [], None, [])


def test_types_survive(cache: MemoryCache, engine: sa.Engine, sent: list[str]) -> None:
    """int, Decimal, datetime, date, UUID, bytes and None come from the cache as from the database."""
    values = {
        "id": 1,
        "price": decimal.Decimal("12.30"),
        "at": dt.datetime(2026, 11, 21, 12, 30, 0, 500),  # noqa: DTZ001 - as databases bring it
        "day": dt.date(2026, 11, 21),
        "token": uuid.UUID(int=77),
        "raw": b"\x00\xff",
        "note": None,
    }
    with Session(engine) as session:
        session.execute(sa.insert(Kinds).values(**values))
        session.commit()
    statement = sa.select(*(getattr(Kinds, name) for name in values))
    for _ in range(2):
        (row,) = ask(cache, engine, statement)
        assert row._mapping == values
        assert list(map(type, row)) == list(map(type, values.values()))
    assert len(sent) == 1


# ------------------------------------------------------------------------------------------------------------ keys


def test_other_parameters_have_other_keys(cache: MemoryCache, engine: sa.Engine, sent: list[str]) -> None:
    """Also those of LIMIT and IN, and those of another type."""
    for statement in (
        BEST,
        BEST.limit(11),
        BEST.where(Player.id.in_([1, 2])),
        BEST.where(Player.id.in_([1, 3])),
        BEST.where(Player.id == 1),
        BEST.where(Player.nickname == "1"),
        BEST.limit(50).offset(1000),
    ):
        ask(cache, engine, statement)
        ask(cache, engine, statement)
    assert len(sent) == 7


def test_text_differing_in_white_space_alone_has_one_key(
    cache: MemoryCache, engine: sa.Engine, sent: list[str]
) -> None:
    """And its parameters belong to it."""
    one = sa.text("SELECT id FROM player WHERE score > :least")
    two = sa.text("  SELECT  id\n FROM\tplayer WHERE score > :least ")
    options: dict[str, Any] = {"tags": ["player"]}
    assert ask(cache, engine, one, params={"least": 60}, **options) == [(1,), (3,)]
    assert ask(cache, engine, two, params={"least": 60}, **options) == [(1,), (3,)]
    assert len(sent) == 1
    assert ask(cache, engine, one, params={"least": 120}, **options) == [(3,)]


def test_two_databases_do_not_share_rows(cache: MemoryCache, engine: sa.Engine) -> None:
    """The same statement on another database is another query."""
    other = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    Base.metadata.create_all(other)
    assert len(ask(cache, engine)) == 4
    assert len(ask(cache, other)) == 0
    other.dispose()


_SAME = """
import sqlalchemy as sa, uuid, datetime as dt, decimal
from sqlalchemy.dialects import mysql
from resilient.cache._statements import fingerprint
t = sa.table("player", sa.column("id", sa.Integer), sa.column("at", sa.DateTime), sa.column("price", sa.Numeric(9, 2)))
s = sa.select(t.c.id.label("x"), sa.func.count()).where(t.c.id.in_([3, 1]), t.c.at > dt.datetime(2026, 1, 1),
    t.c.price < decimal.Decimal("1.5")).group_by(t.c.id).limit(10)
print(fingerprint(s, None, mysql.dialect(), "app"))
"""


def test_a_key_is_the_same_in_every_process() -> None:
    """Whatever the seed of hashes, and whatever was compiled before."""
    runs = [
        subprocess.Popen([sys.executable, "-c", _SAME], env={"PYTHONHASHSEED": seed}, stdout=subprocess.PIPE)
        for seed in ("1", "2")
    ]
    first, second = (run.communicate()[0] for run in runs)
    assert first == second != b""
    assert [run.returncode for run in runs] == [0, 0]


@pytest.mark.parametrize("module", [mysql, postgresql, sqlite])
def test_a_key_has_a_bounded_length(module: Any) -> None:
    """However long the statement."""
    dialect = module.dialect()
    long = BEST.where(Player.id.in_(range(5_000)))
    assert len(fingerprint(long, None, dialect, "app")) == len(fingerprint(BEST, None, dialect, "app")) < 60


def test_parameters_without_a_text_of_their_own_are_refused(cache: MemoryCache, engine: sa.Engine) -> None:
    """Two of them could share one key."""
    statement = sa.select(Player.id).where(Player.nickname == sa.bindparam("what", type_=sa.PickleType))
    with pytest.raises(InvalidInput, match="'what'"):
        ask(cache, engine, statement, params={"what": object()})


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("SELECT 'a  b'", "SELECT 'a b'"),
        ('SELECT "a  b"', 'SELECT "a b"'),
        ("SELECT `a  b`", "SELECT `a b`"),
        ("SELECT 1 -- x\n, 2", "SELECT 1 -- x , 2"),
        ("SELECT 'it''s  a'", "SELECT 'it''s a'"),
        (r"SELECT 'it\'s  a'", r"SELECT 'it\'s a'"),
        ("SELECT $$a  b$$", "SELECT $$a b$$"),
        ("SELECT 1 # a\n+ 1", "SELECT 1 # a + 1"),
    ],
)
def test_white_space_that_means_something_is_kept(one: str, two: str) -> None:
    """Within quotes, and at the end of a comment."""
    assert normalised(one) != normalised(two)


@given(st.lists(st.sampled_from(["SELECT", "id", ",", "'a  b'", "FROM", "t", "(", ")"]), min_size=1), st.data())
def test_only_white_space_between_words_is_lost(words: list[str], data: Any) -> None:
    """However the words are spread, the text is one."""
    gaps = st.text(" \t\n", min_size=1)
    spread = "".join(word + data.draw(gaps) for word in words)
    assert normalised(spread) == " ".join(words)


# ------------------------------------------------------------------------------------------------------------ bypass


@pytest.mark.parametrize("way", ["new", "dirty", "deleted", "flushed", "core", "connection", "text"])
def test_a_transaction_that_has_written_is_not_answered_from_the_cache(
    cache: MemoryCache, engine: sa.Engine, way: str
) -> None:
    """It sees its own writes, and what it sees is not stored."""
    count = sa.select(sa.func.count(), sa.func.max(Player.score)).select_from(Player)
    assert ask(cache, engine, count) == [(4, 150)]
    with Session(engine) as session:
        if way in {"new", "flushed"}:
            session.add(Player(id=5, nickname="gamer5", score=200))
            if way == "flushed":
                session.flush()
        elif way in {"dirty", "deleted"}:
            best = session.get(Player, 3)
            assert best is not None
            if way == "dirty":
                best.score = 200
            else:
                session.delete(best)
        elif way == "core":
            session.execute(sa.update(Player).where(Player.id == 3).values(score=200))
        else:
            words = "UPDATE player SET score = 200 WHERE id = 3"
            session.connection().execute(sa.text(words)) if way == "text" else session.connection().exec_driver_sql(
                words
            )
        now = {"new": (5, 200), "flushed": (5, 200), "deleted": (3, 100)}.get(way, (4, 200))
        assert cache.query(session, count, 60) == [now]
        session.rollback()
    assert ask(cache, engine, count) == [(4, 150)]


def test_after_its_rollback_a_session_is_answered_from_the_cache_again(
    cache: MemoryCache, engine: sa.Engine, sent: list[str]
) -> None:
    """A write belongs to its transaction."""
    ask(cache, engine)
    with Session(engine) as session:
        session.execute(sa.update(Player).values(score=1))
        session.rollback()
        cache.query(session, BEST, 60)
    assert len(sent) == 1


def test_a_transaction_that_began_earlier_stores_nothing(
    cache: MemoryCache, engine: sa.Engine, sent: list[str]
) -> None:
    """What it reads may be older than an invalidation that was told since; what is cached it is given."""
    with Session(engine) as session:
        session.execute(sa.select(Player.id)).all()
        assert len(cache.query(session, BEST, 60)) == 4
    assert cache.keys() == []
    ask(cache, engine)
    with Session(engine) as session:
        session.execute(sa.select(Player.id)).all()
        before = len(sent)
        assert len(cache.query(session, BEST, 60)) == 4
    assert len(sent) == before


def test_a_transaction_that_always_sees_the_newest_stores(engine: sa.Engine, cache: MemoryCache) -> None:
    """Under READ COMMITTED, and without transactions, every statement sees what was committed before it."""
    with Session(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        session.execute(sa.select(Player.id)).all()
        cache.query(session, BEST, 60)
    assert len(cache.keys()) == 1


@pytest.mark.parametrize("how", ["by option", "in SQL"])
def test_a_transaction_that_asked_for_a_snapshot_stores_nothing(
    engine: sa.Engine, cache: MemoryCache, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the level of its engine is: what counts is that of its own connection."""
    moving = engine.execution_options(isolation_level="AUTOCOMMIT")
    with Session(moving) as session:
        if how == "by option":
            session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        else:
            monkeypatch.setattr(engine.dialect, "do_execute", _unless_isolation(engine.dialect.do_execute))
            session.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        session.execute(sa.select(Player.id)).all()
        assert not wrote(session)
        assert snapshot_of(session) is not None
        assert len(cache.query(session, BEST, 60)) == 4
    assert cache.keys() == []


def _unless_isolation(execute: Callable[..., Any]) -> Callable[..., Any]:
    """SQLite knows no such statement: it is seen, and not sent."""

    def do_execute(cursor: Any, text: str, *args: Any) -> Any:
        return execute(cursor, "SELECT 1" if "ISOLATION" in text else text, *args)

    return do_execute


def test_bypass_reads_the_database(cache: MemoryCache, engine: sa.Engine, sent: list[str]) -> None:
    """As everywhere in the cache."""
    ask(cache, engine)
    with cache.bypass():
        ask(cache, engine)
    assert len(sent) == 2


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "statement",
    [
        sa.select(Player),
        sa.select(Player.id, Player),
        sa.select(aliased(Player)),
        BEST.with_for_update(),
        sa.insert(Player).values(id=9),
        sa.update(Player).values(score=1),
        sa.delete(Player),
        sa.text("SELECT id FROM player"),
        sa.select(sa.insert(Player).values(id=9).returning(Player.id).cte("c").c.id),
        "SELECT 1",
    ],
)
def test_what_cannot_be_cached_is_refused(cache: MemoryCache, engine: sa.Engine, statement: Any) -> None:
    """Entities, locks, writes, text without tags, and what is no statement."""
    with pytest.raises(InvalidInput):
        ask(cache, engine, statement)


@pytest.mark.parametrize(
    "words",
    [
        "SELECT id FROM player FOR UPDATE",
        "SELECT id FROM player LOCK IN SHARE MODE",
        "DELETE FROM player",
        "WITH c AS (DELETE FROM player RETURNING id) SELECT id FROM c",
        "CALL something()",
    ],
)
def test_text_that_locks_or_writes_is_refused(cache: MemoryCache, engine: sa.Engine, words: str) -> None:
    """Though it has tags."""
    with pytest.raises(InvalidInput):
        ask(cache, engine, sa.text(words), tags=["player"])


def test_text_may_speak_of_updates(cache: MemoryCache, engine: sa.Engine) -> None:
    """In quotes, words are only words."""
    assert ask(cache, engine, sa.text("SELECT 'for update, insert'"), tags=["x"]) == [("for update, insert",)]


def test_no_ttl_is_refused(engine: sa.Engine) -> None:
    """As for every value."""
    with Session(engine) as session, pytest.raises(ConfigurationError, match="ttl"):
        Cache().query(session, BEST)


# ------------------------------------------------------------------------------------------------------------ tables


def test_the_tables_of_statements() -> None:
    """Through joins, aliases, subqueries and CTEs."""
    other = sa.table("Team", sa.column("id"), schema="app")
    inner = sa.select(other.c.id).subquery()
    statement = sa.select(aliased(Player).id).join(inner, sa.true())
    assert tables_of(statement) == {"player", "app.team"}
    assert tables_of(sa.text("SELECT 1 FROM player")) == set()


@pytest.mark.parametrize(
    ("words", "names", "writes"),
    [
        ("INSERT INTO player (id) VALUES (1)", {"player"}, True),
        ("insert ignore into `app`.`Player` values (1)", {"player", "app.player"}, True),
        ('UPDATE "player" SET score = 1', {"player"}, True),
        ("DELETE FROM player WHERE id = 1", {"player"}, True),
        ("REPLACE INTO player VALUES (1)", {"player"}, True),
        ("TRUNCATE TABLE player", {"player"}, True),
        ("CALL rebuild()", set(), True),
        ("WITH c AS (SELECT 1) SELECT * FROM c", set(), False),
        ("WITH c AS (SELECT 1) DELETE FROM player", {"player"}, True),
    ],
)
def test_the_tables_that_text_writes_to(words: str, names: set[str], *, writes: bool) -> None:
    """As far as its words tell."""
    assert written_in(None, words) == (names, writes)


def test_the_tables_that_statements_write_to() -> None:
    """Not those they only read."""
    change = sa.update(Player).values(score=sa.select(sa.func.max(Kinds.id)).scalar_subquery())
    assert written_in(change.compile(), "") == ({"player"}, True)
    assert written_in(BEST.compile(), "") == (set(), False)


# ------------------------------------------------------------------------------------------------------------- async


def test_the_async_face(tmp_path: Any) -> None:
    """The same with awaits."""

    async def story() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/async.db")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(sa.insert(Player).values(id=1, nickname="gamer1", score=7))
        cache = AsyncMemoryCache()
        for _ in range(2):
            async with AsyncSession(engine) as session:
                assert await cache.query(session, BEST, 60) == [(1, "gamer1")]
        assert cache.stats().loads == 1
        async with AsyncSession(engine) as session:
            await session.execute(sa.delete(Player))
            assert await cache.query(session, BEST, 60) == []
        await engine.dispose()

    asyncio.run(story())
