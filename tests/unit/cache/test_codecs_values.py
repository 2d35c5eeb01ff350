"""Values, plain and typed, through the codecs: equal and of their types."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import typing
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from samples import values

from resilient.cache._codecs import ANYTHING, TAGGED, Codec
from resilient.cache._codecs._seal import Seal
from resilient.cache._entry import Unreadable
from resilient.errors import ConfigurationError, InvalidInput


@given(values)
def test_a_plain_value_survives(value: Any) -> None:
    """Whatever is nested in what, values come back equal and of their types."""
    codec = Codec(ANYTHING)
    number, body = codec.encode(value)
    found = codec.decode(number, codec.schema, body)
    assert found == value
    assert type(found) is type(value)


class Row(typing.NamedTuple):
    id: int
    when: dt.datetime


class Shape(typing.TypedDict):
    sides: int
    size: decimal.Decimal


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Row, Row(1, dt.datetime(2024, 1, 1, tzinfo=dt.UTC))),
        (Shape, {"sides": 3, "size": decimal.Decimal("1.5")}),
        (list[Row], [Row(1, dt.datetime(2024, 1, 1, tzinfo=dt.UTC))]),
        (int | None, None),
        (str, None),
        (dict, {1: {2}}),
        (list[Any], [(1,), {2}]),
        (set[uuid.UUID], {uuid.UUID(int=1)}),
        (tuple[int, ...], (1, 2)),
        (typing.Literal["a", "b"], "a"),
    ],
    ids=str,
)
def test_a_typed_value_survives(kind: Any, value: Any) -> None:
    """The type a function says it returns is the type that comes back; None always does."""
    codec = Codec(kind)
    number, body = codec.encode(value)
    found = codec.decode(number, codec.schema, body)
    assert found == value
    assert type(found) is type(value)


def test_a_type_that_no_codec_reads_is_refused_with_advice() -> None:
    """An ORM entity or any object of a class of its own is refused at its first store."""

    class Entity:
        id = 1

    with pytest.raises((ConfigurationError, InvalidInput), match=r"dataclass|cannot be cached"):
        Codec(Entity).encode(Entity())


@pytest.mark.parametrize(
    ("code", "content"),
    [(11, 10**12), (3, "abc"), (2, {"a": 1}), (1, 7), (5, [0, [1], 2]), (10, "abc"), (13, b"ab"), (99, [])],
)
def test_a_mark_with_foreign_content_is_unreadable(code: int, content: Any) -> None:
    """A few bytes do not become a terabyte, and no mark takes what its writer never wrote."""
    body = msgspec.msgpack.encode([msgspec.msgpack.Ext(code, msgspec.msgpack.encode(content))])
    with pytest.raises(Unreadable):
        Codec(ANYTHING).decode(TAGGED, 0, Seal().close(TAGGED, body))


def test_the_schema_follows_the_layout_and_the_version() -> None:
    """Another field, another nested field or another version is another schema; no type has none."""
    one = dataclasses.make_dataclass("T", [("a", int)])
    two = dataclasses.make_dataclass("T", [("a", str)])
    schemas = {Codec(kind).schema for kind in (one, two, list[one], list[two])} | {Codec(one, version=1).schema}
    assert len(schemas) == 5
    assert Codec(ANYTHING).schema == 0
    number, body = Codec(ANYTHING).encode("x")
    with pytest.raises(Unreadable, match="other schema"):
        Codec(str).decode(number, Codec(int).schema, body)
