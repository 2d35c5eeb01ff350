"""The short way from a call to its key, and which values callers may share."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given, settings

from resilient.cache._immutable import is_immutable
from resilient.cache._keys import physical
from resilient.cache._local_keys import key_of
from resilient.cache._templates import KeyMaker


def one(user_id: Any) -> None: ...
def two(user_id: Any, lang: Any = "en") -> None: ...
def star(*ids: Any) -> None: ...
def named(user_id: Any, *, lang: Any = "en") -> None: ...


class Thing:
    def method(self, number: int) -> None: ...


MAKERS: list[tuple[Callable[..., Any], str | None]] = [
    (one, "user:{user_id}"),
    (one, "user:{user_id}:about"),
    (one, "bräuche:{user_id}"),
    (one, "x#" + "a" * 29 + "{user_id}"),
    (one, "x" * 150 + "{user_id}"),
    (one, None),
    (two, "{user_id}:{lang}"),
    (two, "{lang}:{user_id}"),
    (two, "user:{user_id}"),
    (two, "{user_id}:{user_id}:{lang}"),
    (star, "{ids}"),
    (named, "{user_id}:{lang}"),
]
ARGUMENTS = st.one_of(
    st.integers(),
    st.text(max_size=250),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False),
    st.uuids(),
    st.tuples(st.integers(), st.text()),
    st.text(alphabet='ab#:"{}%', max_size=40),
)


@pytest.mark.parametrize(("function", "template"), MAKERS, ids=range(len(MAKERS)))
@settings(max_examples=30, deadline=None)
@given(args=st.lists(ARGUMENTS, min_size=1, max_size=2), by_name=st.booleans())
@example(args=[10**30], by_name=False)
@example(args=["#" + "a" * 31], by_name=False)
@example(args=[True], by_name=False)
@example(args=["a" * 81, "b"], by_name=False)
def test_the_short_way_gives_the_same_keys(
    function: Callable[..., Any], template: str | None, args: list[Any], by_name: bool
) -> None:
    """For every call: the key that is made in few steps is the one that the store knows."""
    maker = KeyMaker(function, template)
    short = key_of(maker, "shop")
    kwargs = {"lang": args.pop()} if by_name and len(args) == 2 else {}
    try:
        expected = physical("shop", maker(tuple(args), kwargs))
    except TypeError:
        with pytest.raises(TypeError):
            short(tuple(args), kwargs)
        return
    assert short(tuple(args), kwargs) == expected


def test_a_method_goes_the_usual_way() -> None:
    """Its object stands before its arguments, and may say what it is in a key."""
    maker = KeyMaker(Thing.method, None)
    thing = Thing()
    assert key_of(maker, "shop")((thing, 1), {}) == physical("shop", maker((thing, 1), {}))


class Colour(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int


@dataclasses.dataclass(frozen=True)
class Frozen:
    part: Any
    other: int = 1


@dataclasses.dataclass
class Open:
    part: int


class Sealed(msgspec.Struct, frozen=True):
    part: Any


class Unsealed(msgspec.Struct):
    part: int


class Text(str):
    __slots__ = ("note",)


class Zone(dt.tzinfo):
    pass


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        1.5,
        "a",
        b"a",
        Decimal(1),
        uuid.UUID(int=1),
        dt.date(2026, 1, 1),
        dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        dt.timedelta(1),
        (1, ("a", frozenset({2}))),
        Colour.RED,
        Frozen("a"),
        Frozen((1, Sealed("b"))),
        Sealed(Frozen(1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_nobody_can_change_is_shared(value: Any) -> None:
    """Plain values, and what is made of them alone."""
    assert is_immutable(value)


def _with_more() -> Frozen:
    found = Frozen(1)
    object.__setattr__(found, "more", [])
    return found


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        set(),
        bytearray(),
        ([],),
        (1, (2, (3, (4, (5, (6,)))))),
        tuple(range(101)),
        Open(1),
        Frozen([]),
        Frozen(Open(1)),
        _with_more(),
        Unsealed(1),
        Sealed({}),
        Text("a"),
        Point(1),
        dt.datetime(2026, 1, 1, tzinfo=Zone()),
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_somebody_could_change_is_copied(value: Any) -> None:
    """What is mutable, holds what is, has a class of its own, or takes long to look at."""
    assert not is_immutable(value)
