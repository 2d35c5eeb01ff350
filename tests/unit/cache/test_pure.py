"""The pure parts: entries, keys, lives, the journal and the codec."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import string
import typing
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.cache import AsyncCache, Cache
from resilient.cache._codecs import ANYTHING, TAGGED, Codec
from resilient.cache._codecs._seal import Seal
from resilient.cache._entry import Unreadable
from resilient.cache._freshness import Policy
from resilient.cache._journal import Journal
from resilient.cache._keys import physical, render
from resilient.cache._templates import KeyMaker
from resilient.errors import ConfigurationError, InvalidInput

atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.timedeltas()
)
hashable = atoms | st.tuples(atoms, atoms) | st.frozensets(atoms, max_size=3)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(hashable, max_size=3)
    ),
    max_leaves=10,
)


# ------------------------------------------------------------------------------------------------------------ keys


def rank(value: Any) -> Any:
    """Equal for values that must share a key."""
    if isinstance(value, list | tuple):
        return type(value), tuple(map(rank, value))
    if isinstance(value, float):
        return float, repr(value)
    return type(value), repr(value) if isinstance(value, decimal.Decimal) else value


plain = atoms | st.lists(atoms, max_size=2) | st.tuples(atoms, atoms)


@given(plain, plain)
def test_different_values_have_different_key_parts(one: Any, other: Any) -> None:
    """Two values share a part only if they are equal and of one type."""
    assert (render(one) == render(other)) is (rank(one) == rank(other))


@given(st.text(), st.text(), st.text(), st.text())
def test_text_cannot_leave_its_part(a: str, b: str, c: str, d: str) -> None:
    """Parts joined by a template never run into each other, and no part holds a brace that would steer a cluster."""
    make = KeyMaker(lambda a, b: None, "x:{a}:{b}")
    one, other = make((a, b), {}), make((c, d), {})
    assert (one == other) is ((a, b) == (c, d))
    assert not {"{", "}", "\n"} & set(one)
    assert one.isprintable()


def test_keys_are_for_people_too() -> None:
    """What a key is made of can be read."""
    make = KeyMaker(lambda user, day, kind=None: None, "visits:{user.name}:{day}:{kind}")

    class User:
        name = "Ada"

    assert make((User(), dt.date(2024, 1, 2)), {}) == 'visits:"Ada":date(2024-01-02):none'
    assert make((User(), uuid.UUID(int=0)), {"kind": True}).endswith("uuid(00000000-0000-0000-0000-000000000000):true")


@pytest.mark.parametrize("template", ["", "{", "{nobody}", "{a!r}", "{a:>3}", "{}", "{a[0]}", "{0}"])
def test_a_template_that_means_nothing_is_refused(template: str) -> None:
    """A mistake in a template is found where it is written."""
    with pytest.raises(ConfigurationError):
        KeyMaker(lambda a: None, template)


@pytest.mark.parametrize("template", ["{a}{b}", "x:{a}0{b}", "{a}x{b}"])
def test_parameters_that_run_together_are_refused(template: str) -> None:
    """1 and 23 would be given the value of 12 and 3."""
    with pytest.raises(ConfigurationError, match="between"):
        KeyMaker(lambda a, b: None, template)
    assert KeyMaker(lambda a, b: None, "{a}-{b}{{}}")((1, -2), {}) == "1--2{}"
    assert KeyMaker(lambda a, b: None, "{{{a}}}{b}")((1, 2), {}) == "{1}2"


def test_a_template_that_leaves_out_every_parameter_is_refused() -> None:
    """The first user would be everybody's; what is written instead, or that it is meant so, is said."""
    cache: Cache = Cache(ttl=60)
    with pytest.raises(ConfigurationError, match=r"write 'user:\{user_id\}', or shared=True"):
        cache.lazy("user")(lambda user_id: user_id)
    with pytest.raises(ConfigurationError, match="names no parameter"):
        AsyncCache(ttl=60).lazy("user")(_load)
    assert cache.lazy("motd", shared=True)(lambda session: "hello").key(1) == "motd"
    assert cache.lazy("motd")(lambda: "hello").key() == "motd"
    assert cache.write_through("motd")(lambda text: text).key("good evening") == "motd"


async def _load(user_id: int) -> int:
    return user_id


def test_a_method_is_keyed_by_its_name_and_its_other_arguments() -> None:
    """Objects of one class share entries, unless the template names what tells them apart."""

    class Shop:
        cache: Cache = Cache(ttl=60)

        def __init__(self, number: int) -> None:
            self.number = number

        @cache.lazy()
        def rate(self, currency: str) -> int:
            return 1

        @cache.lazy("orders:{self.number}:{day}")
        def orders(self, day: int) -> int:
            return self.number

        @cache.lazy("all")
        def everything(self) -> int:
            return 1

    assert Shop(1).rate.key("EUR") == Shop(2).rate.key("EUR")
    assert Shop(1).rate.key("EUR").endswith('Shop.rate:"EUR"')
    assert [Shop(1).orders(5), Shop(2).orders(5)] == [1, 2]
    assert Shop(1).everything.key() == "all"


def test_only_what_keeps_entries_is_used_as_a_store() -> None:
    """A mistake in a test is found where it stands, and the cache goes on with its own store."""
    cache: Cache = Cache(ttl=60)
    before = cache.store
    for wrong in (3, "redis://127.0.0.1:6379", None):
        with pytest.raises(ConfigurationError, match="cannot keep entries"), cache.use(wrong):  # type: ignore[arg-type]  # on purpose
            pass
    assert cache.store is before


def test_an_object_is_no_key_part() -> None:
    """A value without a text of its own is refused with advice."""
    with pytest.raises(InvalidInput, match="attribute"):
        render(object())


@given(st.text(min_size=1, max_size=600), st.text(min_size=1, max_size=600))
def test_keys_of_the_store_are_short_and_distinct(one: str, other: str) -> None:
    """A long key ends in a hash; two keys are one only if they are equal."""
    assert len(physical("n", one)) <= 210
    assert (physical("n", one) == physical("n", other)) is (one == other)


# ----------------------------------------------------------------------------------------------------------- lives


@given(st.floats(0.1, 1e6), st.floats(0, 0.99), st.floats(0, 1, exclude_max=True), st.floats(0, 1e6))
def test_jitter_only_shortens(ttl: float, jitter: float, chance: float, stale: float) -> None:
    """No entry outlives its ttl, and none loses more than the jitter's part of it."""
    fresh, keep = Policy(ttl, stale_if_error=stale, jitter=jitter).lives(chance)
    assert ttl * (1 - jitter) * 0.999 <= fresh <= ttl
    assert keep == pytest.approx(fresh + stale)


def test_what_is_stored_together_does_not_end_together() -> None:
    """A thousand entries of one ttl end over a tenth of it."""
    policy = Policy(60)
    lives = [policy.lives(number / 1000)[0] for number in range(1000)]
    assert max(lives) - min(lives) > 5
    assert all(54 <= each <= 60 for each in lives)


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": None},
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": float("inf")},
        {"ttl": 1, "negative_ttl": 0},
        {"ttl": 1, "stale_if_error": -1},
        {"ttl": 1, "jitter": 1.0},
    ],
    ids=repr,
)
def test_times_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """A wrong time is found where it is written."""
    with pytest.raises(ConfigurationError):
        Policy(**options)


def test_a_soft_timeout_that_would_never_serve_anything_is_refused() -> None:
    """Who is served the old value at once does not wait, so that no time limit of its wait means anything."""
    for options in ({"stale_while_revalidate": 30}, {"stale_while_revalidate": 30, "stale_if_error": 30}):
        with pytest.raises(ConfigurationError, match="stale_if_error=, longer than"):
            Policy(60, soft_timeout=1, **options)
    Policy(60, soft_timeout=1, stale_while_revalidate=30, stale_if_error=60)


def test_what_is_misspelt_is_told_by_its_name() -> None:
    """An option that there is not, and one text where a list belongs."""
    cache: Any = Cache(ttl=60)
    with pytest.raises(TypeError, match=r"no option is called 'stale'; there are: .*stale_if_error"):
        cache.lazy("user:{user_id}", stale=5)
    with pytest.raises(InvalidInput, match=r"get_many\(\['user:1'\]\)"):
        cache.get_many("user:1")


# --------------------------------------------------------------------------------------------------------- journal


def test_a_key_added_during_its_replay_is_replayed_again() -> None:
    """What changes while its older change is told is not forgotten."""
    journal = Journal(10, "all")
    journal.add("a")
    journal.add("b")
    taken = journal.begin()
    assert taken == ["a", "b"]
    assert journal.begin() is None
    journal.add("a")
    journal.done(taken)
    assert journal.begin() == ["a"]
    journal.done([])
    assert len(journal) == 1


def test_a_journal_that_overflows_holds_the_key_that_stands_for_all() -> None:
    """When it cannot hold all keys it forgets them: everything is to be told as changed."""
    journal = Journal(2, "all")
    for key in "abc":
        journal.add(key)
    assert journal.begin() == ["all"]


# ----------------------------------------------------------------------------------------------------------- codec


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


def test_a_key_that_is_no_utf8_can_be_sent() -> None:
    """Half a surrogate pair, as JSON may hold it: the key is sent as a hash, and stays apart from its likes."""
    keys = ["\ud800", "\ud801", "a" * 150 + "\ud800" * 100, "\ud800" * 300]
    made = [physical("shop", key) for key in keys]
    assert len({name.encode() for name in made}) == len(keys)


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


def test_printable_text_stays_readable_in_keys() -> None:
    """Ordinary words are not escaped."""
    assert render("Ada Lovelace") == '"Ada Lovelace"'
    assert all(character in render(character) for character in string.ascii_letters + string.digits)


@pytest.mark.parametrize("namespace", ["", "a:b", "a b", "ü", "x" * 65, None, 3])
def test_a_namespace_that_could_run_into_a_key_is_refused(namespace):
    """A namespace is a word: with a colon in it two caches could share an entry."""
    with pytest.raises(ConfigurationError, match="namespace"):
        Cache(namespace=namespace, ttl=60)
