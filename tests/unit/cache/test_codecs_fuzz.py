"""Entries that somebody damaged or made up: a miss each, no exception, nothing executed, no memory taken."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import gc
import pickle
import random
import sys
import threading
import tracemalloc
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import pydantic
import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column

from resilient.cache import Cache
from resilient.cache._codecs import ANYTHING, Codec, Settings
from resilient.cache._codecs._seal import Seal
from resilient.cache._entry import Entry, Unreadable, pack
from resilient.errors import NotFound

SECRET = "a secret of more than sixteen bytes"


class Colour(Enum):
    RED = (1, 2)


@dataclasses.dataclass
class User:
    id: int
    name: str
    born: dt.date
    tags: list[str]


class Model(pydantic.BaseModel):
    id: int
    when: dt.datetime


class Base(orm.DeclarativeBase):
    pass


class Player(Base):
    __tablename__ = "fuzzed"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Reversed:
    name = "reversed"

    def encode(self, value: Any) -> bytes:
        return value.encode()[::-1]

    def decode(self, raw: bytes) -> Any:
        return raw[::-1].decode()


def player() -> Player:
    made = Player(id=1, name="Ada")
    orm.make_transient_to_detached(made)
    made.__dict__["name"] = "Ada"
    sa.inspect(made)._commit_all(sa.inspect(made).dict)
    return made


def rows() -> list[Any]:
    with sa.create_engine("sqlite://").connect() as connection:
        return list(connection.execute(sa.text("select 1 as id, 'Ada' as name union select 2, 'Bob'")))


USER = User(1, "Ada", dt.date(1815, 12, 10), ["x", "y"])
PLAIN = {"id": 17, "name": "Ada", "tags": ["a", "b"], "score": 1.5, "none": None, "raw": b"\0\1"}
MARKED = {
    1: (2, {3}, frozenset({4})),
    "when": dt.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
    "exact": [decimal.Decimal("1.10"), uuid.UUID(int=7), 2**90, dt.timedelta(1), bytearray(b"x")],
}
JSON = {"id": 17, "name": "Ada", "tags": ["a", None, True], "score": 1.5}

CASES: dict[str, Callable[[], tuple[Any, Any, dict[str, Any]]]] = {
    "plain": lambda: (PLAIN, ANYTHING, {}),
    "marked": lambda: (MARKED, ANYTHING, {}),
    "typed": lambda: (USER, User, {}),
    "exact": lambda: ([Colour.RED, USER], list[Colour | User], {}),
    "pydantic": lambda: (Model(id=1, when=dt.datetime(2024, 1, 1, tzinfo=dt.UTC)), Model, {}),
    "rows": lambda: (rows(), ANYTHING, {}),
    "entities": lambda: ([player(), player()], list[Player], {}),
    "json": lambda: (JSON, ANYTHING, {"codec": "json"}),
    "orjson": lambda: (JSON, ANYTHING, {"codec": "orjson"}),
    "pickle": lambda: (MARKED, ANYTHING, {"codec": "pickle", "secret": SECRET}),
    "own": lambda: ("a text of mine", ANYTHING, {"codec": Reversed()}),
    "signed": lambda: (MARKED, ANYTHING, {"secret": SECRET}),
    "zlib": lambda: ([PLAIN] * 5, ANYTHING, {"compress": "zlib", "compress_over": 0}),
    "zstd": lambda: ([PLAIN] * 5, ANYTHING, {"compress": "zstd", "compress_over": 0}),
}


def mutate(raw: bytes, chance: random.Random) -> bytes:
    """Bytes with one to three changes: a bit, a byte, a cut, something put in, a part moved or doubled."""
    made = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(made)) if made else 0
        what = chance.randrange(7)
        if what == 0 and made:
            made[at] ^= 1 << chance.randrange(8)
        elif what == 1 and made:
            made[at] = chance.choice((0, 1, 0x7F, 0x80, 0xC1, 0xC7, 0xD8, 0xDD, 0xDF, 0xFF, chance.randrange(256)))
        elif what == 2:
            del made[at:]
        elif what == 3:
            made[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif what == 4:
            del made[at : at + chance.randrange(1, 9)]
        elif what == 5:
            part = made[at : at + chance.randrange(1, 30)]
            made[chance.randrange(len(made) + 1) :][:0] = part
            made += part
        elif what == 6 and made:
            made[at : at + 5] = chance.choice(
                (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff")
            )
    return bytes(made)


_watched: list[str] | None = None
_watcher = 0


def _audit(event: str, _: tuple[Any, ...]) -> None:
    if (
        _watched is not None
        and threading.get_ident() == _watcher  # servers for other tests may be made ready meanwhile
        and event.startswith(("exec", "compile", "os.", "subprocess.", "pickle.", "socket.", "ctypes."))
    ):
        _watched.append(event)


@pytest.fixture
def executed() -> Iterator[list[str]]:
    """What the interpreter executed in the test, by its audit events."""
    global _watched, _watcher
    if not any(getattr(_audit, "installed", ())):
        sys.addaudithook(_audit)
        _audit.installed = (True,)  # type: ignore[attr-defined]  # a hook stays for the life of the process
    gc.collect()  # what other tests have left may end with a call that is watched
    gc.disable()
    _watched, _watcher = [], threading.get_ident()
    yield _watched
    _watched = None
    gc.enable()


def readable(value: Any) -> Any:
    """What two equal values have in common; entities have no equality of their own."""
    if isinstance(value, list) and value and isinstance(value[0], Player):
        return [(each.id, each.name) for each in value]
    return value


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_entry_is_a_miss_or_the_value(
    name: str, repeat: Callable[[int], int], seed: int, executed: list[str]
) -> None:
    """Ten thousand changes to an entry of each codec, header and all, read through a cache and then loaded over."""
    value, kind, options = CASES[name]()
    cache = Cache(ttl=60, jitter=0.0, **options)
    cache.set("k", value, type=kind)
    raw = cache.store.get_many(["cache:k"])[0]
    assert raw is not None
    expected = readable(value)
    assert readable(cache.get("k", type=kind)) == expected
    chance = random.Random(seed)
    misses = 0
    count = repeat(10_000)
    executed.clear()
    for _ in range(count):
        cache.store.put_many({"cache:k": mutate(raw, chance)}, 60_000)
        found = cache.get("k", type=kind)
        misses += found is None
        assert found is None or readable(found) == expected
    assert misses > count * 0.5
    if name != "pickle":
        assert executed == []
    cache.store.put_many({"cache:k": raw[:-1]}, 60_000)
    assert readable(cache.get_or_load("k", lambda: value, type=kind)) == expected


@pytest.mark.parametrize("name", [name for name in CASES if name not in {"pickle", "signed"}])
def test_a_forged_body_is_some_value_or_unreadable(
    name: str, repeat: Callable[[int], int], seed: int, executed: list[str]
) -> None:
    """With a good checksum, as somebody with access to the server could write it: no other error, no memory taken."""
    value, kind, options = CASES[name]()
    codec = Codec(kind, 0, Settings(**options))
    number, body = codec.encode(value)
    codec.decode(number, 0, body)
    seal, chance = Seal(), random.Random(seed)
    refused = 0
    executed.clear()
    tracemalloc.start()
    try:
        for _ in range(repeat(10_000)):
            data = mutate(body[4:], chance)
            try:
                codec.decode(number, 0, seal.close(number, data))
            except Unreadable:
                refused += 1
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert refused or name == "own"
    assert executed == []


def test_a_pickle_bomb_in_the_store_is_a_miss(executed: list[str], tmp_path: Any) -> None:
    """Whatever codec the cache has, and whatever the header says."""

    class Bomb:
        def __reduce__(self) -> Any:
            import os

            return os.mkdir, (str(tmp_path / "executed"),)

    bomb = pickle.dumps(Bomb())
    executed.clear()
    for options in ({}, {"codec": "json"}, {"codec": "pickle", "secret": SECRET}, {"secret": SECRET}):
        cache = Cache(ttl=60, **options)
        for number in range(256):
            for body in (bomb, Seal().close(number, bomb)):
                cache.store.put_many({"cache:k": pack(Entry(body, number, 0, 0, 1, 1e12, 60.0, 60.0, 0.0))}, 60_000)
                try:
                    assert cache.get("k") is None
                except NotFound:
                    pytest.fail("an absence was made up")
    assert list(tmp_path.iterdir()) == []
    assert not [event for event in executed if event in {"os.mkdir", "pickle.find_class"}]
