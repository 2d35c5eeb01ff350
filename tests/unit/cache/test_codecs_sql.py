"""What people return from loaders that read a database: rows of SQLAlchemy and entities of its ORM."""

from __future__ import annotations

import datetime as dt
import decimal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from resilient.cache import Cache
from resilient.cache._codecs import ANYTHING, Codec
from resilient.cache._entry import Unreadable
from resilient.errors import InvalidInput

E = TypeVar("E")


class Base(orm.DeclarativeBase):
    pass


class Rank(Enum):
    NOVICE = "n"
    MASTER = "m"


class Player(Base):
    __tablename__ = "player"
    id: Mapped[int] = mapped_column(primary_key=True)
    nickname: Mapped[str]
    rank: Mapped[Rank]
    balance: Mapped[decimal.Decimal]
    born: Mapped[dt.date | None]
    seen: Mapped[dt.datetime]
    token: Mapped[uuid.UUID]
    extra: Mapped[dict[str, Any]] = mapped_column(MutableDict.as_mutable(sa.JSON))
    about: Mapped[str] = mapped_column(deferred=True)
    kind: Mapped[str] = mapped_column(default="player")
    games: Mapped[list[Game]] = relationship(back_populates="player", order_by="Game.id")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "player"}  # noqa: RUF012 - as SQLAlchemy reads it

    @orm.reconstructor
    def wake(self) -> None:
        self.awake = True


class Professional(Player):
    sponsor: Mapped[str | None]
    __mapper_args__ = {"polymorphic_identity": "professional"}  # noqa: RUF012 - same


class Game(Base):
    __tablename__ = "game"
    id: Mapped[int] = mapped_column(primary_key=True)
    score: Mapped[int]
    player_id: Mapped[int] = mapped_column(sa.ForeignKey("player.id"))
    player: Mapped[Player] = relationship(back_populates="games")


class Setting(Base):
    """Not related to any other."""

    __tablename__ = "setting"
    name: Mapped[str] = mapped_column(primary_key=True)


def player(number: int, kind: type[Player] = Player, **more: Any) -> Player:
    return kind(
        id=number,
        nickname=f"gamer{number}",
        rank=Rank.MASTER,
        balance=decimal.Decimal("1.50"),
        born=dt.date(1815, 12, 10),
        seen=dt.datetime(2024, 1, 2, 3, 4, 5),  # noqa: DTZ001 - as databases give it
        token=uuid.UUID(int=number),
        extra={"level": number},
        about="long",
        **more,
    )


@pytest.fixture
def session() -> Iterator[Session]:
    """A database with three players, of whom the first has games."""
    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as made:
        made.add_all([player(1), player(2), player(3, Professional, sponsor="Acme")])
        made.add_all([Game(id=number, score=number * 50, player_id=1) for number in (1, 2, 3)])
        made.commit()
    with Session(engine) as made:
        yield made
    engine.dispose()


def the(session: Session, kind: type[E], number: int) -> E:
    """The player with that number; SQLAlchemy 2.0 has no `get_one` yet."""
    found = session.get(kind, number)
    assert found is not None
    return found


def through(value: Any, kind: Any = ANYTHING, reader: Any = None) -> Any:
    number, body = Codec(kind).encode(value)
    codec = Codec(kind if reader is None else reader)
    return codec.decode(number, 0 if reader is not None else codec.schema, body)


# ------------------------------------------------------------------------------------------------------------ rows


COLUMNS = (Player.id, Player.nickname, Player.balance, Player.born, Player.seen, Player.token)


def test_rows_come_back_as_rows(session: Session) -> None:
    """Names, types, unpacking and equality are those of the row that the database gave; no type is needed."""
    rows = session.execute(sa.select(*COLUMNS).order_by(Player.id)).all()
    for found in (through(rows), through(rows, list[sa.Row[Any]]), through(rows, Sequence[sa.Row[tuple[int, str]]])):
        assert found == rows
        assert [type(row) for row in found] == [type(row) for row in rows]
        assert (found[0].nickname, found[0]._mapping["balance"]) == ("gamer1", decimal.Decimal("1.50"))
        assert found[0]._asdict() == rows[0]._asdict()
        assert [type(each) for each in found[0]] == [type(each) for each in rows[0]]
    row = session.execute(sa.select(*COLUMNS).where(Player.id == 2)).one()
    assert through(row) == row
    assert through({"first": (row,)}) == {"first": (row,)}


def test_rows_of_unlike_columns_and_mappings(session: Session) -> None:
    """A list may mix rows of several queries, and hold mappings."""
    one = session.execute(sa.select(Player.id).where(Player.id == 1)).one()
    other = session.execute(sa.select(Player.nickname.label("name")).where(Player.id == 1)).one()
    assert through([one, other, 3]) == [one, other, 3]
    mappings = session.execute(sa.select(*COLUMNS)).mappings().all()
    found = through(mappings)
    assert [dict(each) for each in found] == [dict(each) for each in mappings]
    assert type(found[0]) is type(mappings[0])


def test_many_rows_name_their_columns_once(session: Session) -> None:
    """The names of columns are kept once, however many rows there are."""
    rows = session.execute(sa.select(Player.id.label("a_rather_long_name")).order_by(Player.id)).all()
    _, short = Codec().encode(rows)
    _, long = Codec().encode(rows * 30)
    assert long.count(b"a_rather_long_name") == short.count(b"a_rather_long_name") == 1


def test_a_result_is_refused_with_the_way_to_its_rows(session: Session) -> None:
    """A result could be read only once."""
    for result in (session.execute(sa.select(Player.id)), session.scalars(sa.select(Player.id))):
        with pytest.raises(InvalidInput, match=r"\.all\(\)"):
            Codec().encode(result)


# -------------------------------------------------------------------------------------------------------- entities


def test_an_entity_comes_back_detached_with_its_columns(session: Session) -> None:
    """Values and their types survive; the entity is detached and unchanged, as after its session was closed."""
    one = the(session, Player, 1)
    found = through(one, Player)
    state = sa.inspect(found)
    assert type(found) is Player
    assert state.detached
    assert not state.modified
    assert state.identity == (1,)
    for name in ("id", "nickname", "rank", "balance", "born", "seen", "token", "extra", "kind"):
        assert getattr(found, name) == getattr(one, name)
        assert type(getattr(found, name)) is type(getattr(one, name))
    assert found.awake


@pytest.mark.parametrize("name", ["games", "about"])
def test_what_was_not_loaded_is_not_there(session: Session, name: str) -> None:
    """A relationship or deferred column that was not loaded raises DetachedInstanceError, as after a closed session."""
    found = through(the(session, Player, 1), Player | None)
    with pytest.raises(orm.exc.DetachedInstanceError):
        getattr(found, name)


def test_an_entity_from_the_cache_joins_a_session(session: Session) -> None:
    """merge(load=False) and add bring it into a session without a query; then it loads and saves as any other."""
    found = through(the(session, Player, 1), Player)
    session.expunge_all()
    merged = session.merge(found, load=False)
    assert [game.score for game in merged.games] == [50, 100, 150]
    session.expunge_all()
    found = through(the(session, Player, 1), Player)
    session.expunge_all()
    session.add(found)
    assert found.about == "long"
    found.nickname = "Ada"
    found.extra["level"] = 99
    session.commit()
    session.expunge_all()
    kept = the(session, Player, 1)
    assert (kept.nickname, kept.extra) == ("Ada", {"level": 99})


def test_loaded_relationships_come_along(session: Session) -> None:
    """What was loaded with an entity is there, each entity once, also where they refer to each other."""
    query = sa.select(Player).options(orm.selectinload(Player.games).joinedload(Game.player)).order_by(Player.id)
    players = list(session.scalars(query))
    found = through(players, list[Player])
    assert [[game.score for game in each.games] for each in found] == [[50, 100, 150], [], []]
    assert all(game.player is found[0] for game in found[0].games)
    assert all(sa.inspect(each).detached and not sa.inspect(each).modified for each in (*found, *found[0].games))
    assert type(found[2]) is Professional
    with pytest.raises(orm.exc.DetachedInstanceError):
        _ = found[2].sponsor  # a query of the base class leaves it for later
    assert the(session, Professional, 3).sponsor == "Acme"
    assert through(the(session, Professional, 3), Player).sponsor == "Acme"
    games = through(players[0].games, list[Game])
    assert [game.score for game in games] == [50, 100, 150]


def test_entities_stand_wherever_their_type_does(session: Session) -> None:
    """In rows, dicts and tuples, by annotation; one entity met twice comes back as one."""
    one = the(session, Player, 1)
    row = session.execute(sa.select(Player, Player.id).where(Player.id == 1)).one()
    found = through(row, sa.Row[tuple[Player, int]])
    assert (found.Player.nickname, found.id) == ("gamer1", 1)
    by_name = through({"a": (one, 3), "b": (one, 4)}, dict[str, tuple[Player, int]])
    assert by_name["a"][0] is by_name["b"][0]
    assert through([one], Sequence[Player])[0].id == 1


def test_without_its_type_an_entity_is_refused_at_the_first_store(session: Session) -> None:
    """The error names the annotation and the dataclass way, and no value."""
    one = the(session, Player, 1)
    for kind in (ANYTHING, Setting, dict[str, Any]):
        with pytest.raises(InvalidInput, match="dataclass") as caught:
            Codec(kind).encode(one)
        assert "Player" in str(caught.value)
        assert "gamer1" not in str(caught.value)


@pytest.mark.parametrize("case", ["expired", "changed", "new", "deleted", "related"])
def test_an_entity_that_is_not_as_in_the_database_is_refused(session: Session, case: str) -> None:
    """Expired columns, changes not flushed, what was never stored or is deleted: the message says what to do."""
    one = the(session, Player, 1)
    words = {"expired": "refresh", "changed": "commit or flush", "new": "flush it", "deleted": "deleted"}
    if case == "expired":
        session.commit()
    elif case == "changed":
        one.nickname = "other"
    elif case == "new":
        one = player(9)
    elif case == "deleted":
        one = the(session, Player, 2)
        session.delete(one)
        session.flush()
    else:
        one.games[0].score = 1
        words["related"] = "a Game cannot"
    with pytest.raises(InvalidInput, match=words[case]):
        Codec(Player).encode(one)


def test_a_part_of_the_columns_is_enough(session: Session) -> None:
    """load_only: what was loaded is there, the rest raises."""
    one = session.scalars(sa.select(Player).options(orm.load_only(Player.nickname)).where(Player.id == 1)).one()
    found = through(one, Player)
    assert found.nickname == "gamer1"
    with pytest.raises(orm.exc.DetachedInstanceError):
        _ = found.balance


def test_another_layout_of_a_related_table_is_a_miss(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry written before a column was added to any class in it is not read."""
    one = the(session, Player, 1)
    assert one.games
    codec = Codec(Player)
    number, body = codec.encode(one)
    codec.decode(number, codec.schema, body)
    later = Codec(Player)
    monkeypatch.setattr("resilient.cache._codecs._exact.shape", lambda kind: f"other {kind}")
    with pytest.raises(Unreadable):
        later.decode(number, later.schema, body)


def test_without_a_type_an_entry_of_entities_reads_as_dicts(session: Session) -> None:
    """As a dataclass does."""
    found = through([the(session, Player, 1)], list[Player], ANYTHING)
    assert found[0]["nickname"] == "gamer1"


def test_two_processes_that_never_met_share_entities_and_rows(session: Session) -> None:
    """A reader that never wrote such a value reads it; for rows SQLAlchemy is imported when they are read."""
    number, body = Codec().encode(session.execute(sa.select(*COLUMNS).where(Player.id == 1)).all())
    program = f"""
        import sys
        from resilient.cache._codecs import Codec
        assert "sqlalchemy" not in sys.modules
        rows = Codec().decode({number}, 0, {body!r})
        assert rows[0].nickname == "gamer1"
        print(type(rows[0]).__name__)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Row"


class Brief(NamedTuple):
    id: int
    player: Player


def test_the_decorator_caches_entities(session: Session) -> None:
    """The whole way: an annotated loader's entity comes from the cache the second time."""
    cache = Cache(ttl=60)
    calls = []

    @cache.lazy("player:{number}")
    def get_player(number: int) -> Player | None:
        calls.append(number)
        return session.get(Player, number)

    @cache.lazy("brief:{number}")
    def brief(number: int) -> Brief:
        calls.append(-number)
        return Brief(number, the(session, Player, number))

    assert [get_player(1).nickname, get_player(1).nickname] == ["gamer1", "gamer1"]  # type: ignore[union-attr]  # it is there
    assert get_player(1) is not get_player(1)
    assert [brief(2).player.nickname for _ in range(2)] == ["gamer2"] * 2
    assert calls == [1, -2]
