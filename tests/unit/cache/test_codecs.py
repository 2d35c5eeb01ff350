"""The safe codec: values and objects come back as they were, or are refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import pathlib
import subprocess
import sys
import textwrap
import typing
import uuid
import zoneinfo
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from resilient.cache import Cache
from resilient.cache._codecs import ANYTHING, EXACT, TAGGED, TYPED, Codec
from resilient.cache._codecs._same import same
from resilient.errors import ConfigurationError, InvalidInput

PARIS = zoneinfo.ZoneInfo("Europe/Paris")


class Colour(enum.Enum):
    RED = (255, 0, 0)
    BLUE = (0, 0, 255)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True)
class Address:
    street: str
    since: dt.datetime | None = None


@dataclasses.dataclass
class User:
    id: int
    name: str
    address: Address
    tags: set[str] = dataclasses.field(default_factory=set)
    payload: Any = None
    level: Level = Level.LOW
    parent: User | None = None


@dataclasses.dataclass(eq=False)
class Guest(User):
    badge: str = ""


@dataclasses.dataclass(slots=True)
class Slotted:
    items: tuple[int, ...]
    colour: Colour = Colour.RED


class Point(msgspec.Struct, frozen=True):
    x: int
    y: float = 0.0


class Pair(typing.NamedTuple):
    first: Any
    second: Point


class Shape(typing.TypedDict):
    sides: int
    area: typing.NotRequired[decimal.Decimal]


@attrs.define
class Box:
    size: int
    content: list[Point]


class Secret(pydantic.BaseModel):
    value: int


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    identity: int = pydantic.Field(alias="id")
    when: dt.datetime
    colour: Colour = Colour.BLUE
    nested: Secret | None = None
    places: tuple[Address, ...] = ()
    _note: str = pydantic.PrivateAttr("private")

    @pydantic.field_validator("identity")
    @classmethod
    def once(cls, value: int) -> int:
        return value * 10


class Site(pydantic.BaseModel):
    url: pydantic.HttpUrl


class Hidden(pydantic.BaseModel):
    password: pydantic.SecretStr


class Markup(str):
    __slots__ = ()


T = typing.TypeVar("T")


@dataclasses.dataclass
class Page(typing.Generic[T]):
    items: list[T]
    total: int


UserId = typing.NewType("UserId", int)
LONDON = Address("12 Long Road", dt.datetime(2024, 7, 1, tzinfo=dt.UTC))
ADA = User(1, "Ada", LONDON, {"x"})

VALUES: list[Any] = [
    {1: "a", (2, 3): {4}, None: frozenset({5}), decimal.Decimal(1): b"x"},
    [True, 1, 1.0, -0.0, 2**200, -(2**64), "\ud800", "ü", b"", bytearray(b"x"), 1 + 2j],
    {"deep": [{"er": ((), [()])}]},
    [
        dt.datetime(2024, 1, 1),  # noqa: DTZ001 - naive on purpose
        dt.datetime(2024, 10, 27, 2, 30, tzinfo=PARIS, fold=1),
        dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    ],
    [dt.time(1, 2, 3, 4), dt.time(1, tzinfo=PARIS), dt.date(2024, 2, 29), dt.timedelta(-1, 2, 3)],
    [uuid.UUID(int=5), fractions.Fraction(-1, 3), decimal.Decimal("NaN"), decimal.Decimal("1.10")],
    [
        ipaddress.ip_address("::1"),
        ipaddress.ip_network("10.0.0.0/8"),
        pathlib.Path("/a/b"),
        pathlib.PureWindowsPath("c:/"),
    ],
    [collections.OrderedDict([((1,), 2), ("b", 3)]), collections.deque([1, (2,)], 5), collections.deque()],
    "",
    None,
]


def through(value: Any, kind: Any = ANYTHING) -> tuple[int, Any]:
    codec = Codec(kind)
    number, body = codec.encode(value)
    return number, Codec(kind).decode(number, codec.schema, body)


def alike(one: Any, other: Any) -> bool:
    """As `same`, where a NaN is one too."""
    return repr(one) == repr(other)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:20])
def test_a_value_of_the_language_comes_back_as_it_was(value: Any) -> None:
    """Types, zones, folds and kinds of path included, wherever it stands."""
    for whole in (value, [value], {"a": (value, 1)}):
        number, found = through(whole)
        assert number == TAGGED
        assert alike(found, whole)


TYPED_CASES: list[tuple[Any, Any, int]] = [
    (User, ADA, TYPED),
    (User | None, None, TYPED),
    (User, dataclasses.replace(ADA, payload={"t": (1, {2})}, parent=ADA), EXACT),
    (User, Guest(1, "Ada", LONDON, badge="b"), EXACT),
    (User, dataclasses.replace(ADA, address=Address("x", dt.datetime(2024, 1, 1, tzinfo=PARIS))), EXACT),
    (User, dataclasses.replace(ADA, level=1), EXACT),
    (list[User], [ADA, ADA], TYPED),
    (dict[int, User], {1: ADA}, TYPED),
    (Mapping[str, User], {"a": ADA}, TYPED),
    (Sequence[User], (ADA,), EXACT),
    (Sequence[int], [1], TYPED),
    (Slotted, Slotted((1, 2), Colour.BLUE), EXACT),
    (Colour, Colour.RED, EXACT),
    (Level, Level.HIGH, TYPED),
    (Word, Word.YES, TYPED),
    (Right, Right.READ | Right.WRITE, EXACT),
    (dict[Level, Word], {Level.LOW: Word.YES}, TYPED),
    (Point, Point(1, 2.0), TYPED),
    (Point, Point(1, float("nan")), EXACT),
    (Point, Point(1, 2), EXACT),
    (Pair, Pair((1,), Point(1)), EXACT),
    (Pair, Pair("a", Point(1)), TYPED),
    (Shape, {"sides": 3}, TYPED),
    (Shape, {"sides": 3, "area": decimal.Decimal("1.5")}, TYPED),
    (Box, Box(1, [Point(1)]), TYPED),
    (Page[User], Page([ADA], 1), TYPED),
    (UserId, UserId(3), TYPED),
    (typing.Annotated[int, "remark"], 3, TYPED),
    (dt.datetime, dt.datetime(2024, 1, 1, tzinfo=dt.UTC), TYPED),
    (dt.datetime, dt.datetime(2024, 1, 1, tzinfo=PARIS), EXACT),
    (dt.datetime | str, "x", EXACT),
    (Address | Slotted, LONDON, EXACT),
    (tuple[int, str], (1, "a"), TYPED),
    (frozenset[int], frozenset({1}), TYPED),
    (set[int], frozenset({1}), EXACT),
    (bytes, b"x", TYPED),
    (list[Any], [(1,), {2}], EXACT),
    (dict[str, Any], {"a": 1}, EXACT),
    (Model, Model(id=1, when=dt.datetime(2024, 1, 1, tzinfo=PARIS), nested=Secret(value=1), places=(LONDON,)), EXACT),
    (list[Model], [Model(id=1, when=dt.datetime(2024, 1, 1), other="extra")], EXACT),  # noqa: DTZ001 - naive on purpose
    (Site, Site(url="https://example.com/a"), EXACT),
]


@pytest.mark.parametrize(("kind", "value", "form"), TYPED_CASES, ids=lambda each: str(each)[:30])
def test_a_value_of_a_known_type_comes_back_as_it_was(kind: Any, value: Any, form: int) -> None:
    """Whether msgspec reads it, or the exact form has to: the class, the zone, the kind of number and of container."""
    number, found = through(value, kind)
    assert type(found) is type(value)
    assert alike(found, value)
    assert number == form


def test_a_pydantic_model_keeps_all_of_its_state() -> None:
    """Validators do not run again; what was set, extra and private fields and aliases survive."""
    model = Model(id=2, when=dt.datetime(2024, 1, 1, tzinfo=dt.UTC), more=[1, (2,)])
    model._note = "changed"
    _, found = through(model, Model)
    assert found == model
    assert (found.identity, found._note, found.more) == (20, "changed", [1, (2,)])
    assert found.model_fields_set == model.model_fields_set


def test_a_pydantic_field_that_cannot_be_read_again_is_refused() -> None:
    """A secret is written as asterisks by pydantic: such a model is refused rather than changed."""
    with pytest.raises(InvalidInput):
        Codec(Hidden).encode(Hidden(password="hunter2"))


def test_an_unannotated_function_gets_the_advice_it_needs() -> None:
    """Each refusal names the class, and what to do about it; none names a value."""
    for value, words in (
        (ADA, "annotate"),
        (Point(1), "annotate"),
        (Secret(value=1), "annotate"),
        (Colour.RED, "-> Colour"),
        (iter([1]), "return a list"),
        ((each for each in [1]), "return a list"),
        (object(), "dataclass"),
        ([{"a": object()}], "dataclass"),
        (collections.Counter("ab"), r"dict\(value\)"),
        (Markup("x"), r"str\(value\)"),
    ):
        with pytest.raises(InvalidInput, match=words) as caught:
            Codec().encode(value)
        assert "Ada" not in str(caught.value)
    with pytest.raises(InvalidInput, match="name Point in the type"):
        Codec(User).encode(dataclasses.replace(ADA, payload=Point(1)))


def test_what_django_returns_is_refused_with_the_way_to_plain_values() -> None:
    """A model and a query set, in a process of their own."""
    program = """
        import django
        from django.conf import settings
        settings.configure(INSTALLED_APPS=["django.contrib.contenttypes"])
        django.setup()
        from django.contrib.contenttypes.models import ContentType
        from resilient.cache._codecs import Codec
        from resilient.errors import InvalidInput
        for kind, value in ((ContentType, ContentType(model="x")), (list, ContentType.objects.all())):
            try:
                Codec(kind).encode(value)
            except InvalidInput as error:
                print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.count("cannot be cached") == 2
    assert "Model.objects.values(...), or a dataclass" in done.stdout
    assert "list(queryset.values(...))" in done.stdout


def test_a_value_that_holds_itself_is_refused() -> None:
    """It has no end."""
    loop: list[Any] = []
    loop.append(loop)
    knot: dict[str, Any] = {}
    knot["a"] = (knot,)
    for value in (loop, knot):
        for kind in (ANYTHING, list[Any], dict):
            with pytest.raises(InvalidInput, match="deep"):
                Codec(kind).encode(value)


def test_a_type_whose_fields_cannot_be_found_is_refused_with_advice() -> None:
    """A name imported for type checkers alone."""
    broken = dataclasses.make_dataclass("Broken", [("a", "Nowhere")])
    with pytest.raises(ConfigurationError, match="type checkers"):
        Codec(broken)


def test_bytes_make_objects_of_annotated_classes_only() -> None:
    """A name of a class that the reader's type does not hold is not looked for, let alone made."""
    codec = Codec(User)
    number, body = codec.encode(dataclasses.replace(ADA, payload={"a": (1,)}))
    assert number == EXACT
    for kind in (Slotted, list[Any], Pair):
        with pytest.raises(Exception, match="bad bytes"):
            Codec(kind).decode(number, 0, body)
    found = Codec().decode(number, 0, body)
    assert found["address"] == {"street": "12 Long Road", "since": LONDON.since}


def test_what_was_set_without_a_type_is_read_with_one() -> None:
    """cache.set of plain values, cache.get with a type."""
    cache = Cache(ttl=60)
    cache.set("k", {"x": 1, "y": 2.5})
    assert cache.get("k", type=Point) == Point(1, 2.5)
    cache.set("k", Point(1), type=Point)
    assert cache.get("k") == {"x": 1, "y": 0.0}
    assert cache.get("k", type=User) is None


def test_who_finds_a_point_or_nothing_reads_what_the_writer_of_a_point_wrote() -> None:
    """The usual pair of functions returns ``Point | None`` and ``Point``: that is one layout, however it is spelt."""
    cache = Cache(ttl=60)

    @cache.lazy("point:{x}")
    def get_point(x: int) -> Point | None:
        raise AssertionError("it is cached")

    @cache.write_through("point:{x}")
    def save_point(x: int) -> Point:
        return Point(x)

    saved = save_point(1)
    assert get_point(1) == saved
    assert Codec(Point | None).schema == Codec(typing.Optional[Point]).schema == Codec(Point).schema  # noqa: UP045
    assert Codec(User | Point).schema != Codec(Point).schema
    assert Codec(list[Point | None]).schema != Codec(list[Point]).schema


def test_members_that_change_their_meaning_are_another_schema() -> None:
    """An enum read by value must not take what another order of members meant."""
    one = enum.IntEnum("Order", ["FIRST", "SECOND"])
    two = enum.IntEnum("Order", ["SECOND", "FIRST"])
    assert Codec(one).schema != Codec(two).schema
    assert Codec(list[one]).schema == Codec(list[enum.IntEnum("Order", ["FIRST", "SECOND"])]).schema  # type: ignore[valid-type,misc]  # made here


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, True, False),
        ([1], (1,), False),
        ({1}, {1}, True),
        ({True}, {1}, False),
        ({"a": [1, 2]}, {"a": [1, 2.0]}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, False),
        (LONDON, dataclasses.replace(LONDON), True),
        (Level.LOW, 1, False),
        (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), False),
        (float("nan"), float("nan"), False),
        ([1, 2], [1], False),
    ],
)
def test_sameness_is_stricter_than_equality(one: Any, other: Any, expected: bool) -> None:
    """Two values are the same when they are equal and of the same types down to the last part."""
    assert same(one, other) is expected
