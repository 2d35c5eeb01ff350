"""Keys and tags of calls, and the keys of the store."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import inspect
import re
import string
import time
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import atoms

from resilient.cache import AsyncCache, Cache
from resilient.cache._keys import parse, physical, physical_many, render, tag_name, tag_names
from resilient.cache._templates import KeyMaker, TagMaker
from resilient.errors import ConfigurationError, InvalidInput


def positional(a: Any, /, b: Any, c: Any = 3, *, d: Any = 4) -> None: ...
def plain(a: Any, b: Any = 2, c: Any = 3) -> None: ...
def named(*, a: Any, b: Any = 2) -> None: ...
def starred(a: Any, *args: Any, **kwargs: Any) -> None: ...
def without() -> None: ...


FUNCTIONS = [positional, plain, named, starred, without]


@given(
    st.sampled_from(FUNCTIONS),
    st.lists(st.integers(0, 3), max_size=5),
    st.dictionaries(st.sampled_from("abcdx"), st.integers(4, 6), max_size=4),
)
def test_arguments_are_bound_as_python_binds_them(function: Any, args: list[int], kwargs: dict[str, int]) -> None:
    """By position, by name or by default: one key for one call, and the function's own TypeError for a wrong one."""
    make = KeyMaker(function, None)
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        with pytest.raises(TypeError, match=re.escape(str(error))):
            make(tuple(args), kwargs)
        return
    bound.apply_defaults()
    expected = ":".join((f"{function.__module__}.{function.__qualname__}", *map(render, bound.arguments.values())))
    assert make(tuple(args), kwargs) == expected


def test_a_template_takes_what_it_names_from_wherever_it_stands() -> None:
    """Defaults, names and attributes of parameters."""
    make = KeyMaker(positional, "x:{d}:{a.real}:{c}")
    assert make((1, 2), {}) == "x:4:1:3"
    assert make((1,), {"b": 2, "d": "e", "c": None}) == 'x:"e":1:none'


class Right(enum.Flag):
    READ = 1


class Tenant:
    def __init__(self, number: int) -> None:
        self.number = number

    def __cache_key__(self) -> tuple[str, int]:
        return ("tenant", self.number)

    def rates(self, day: int) -> None: ...

    @property
    def plain(self) -> int:
        return self.number


class Named:
    __cache_key__ = "by:name"


class Shop:
    def rates(self, day: int) -> None: ...


def test_an_object_may_say_what_it_is_in_a_key() -> None:
    """As an argument, in a template, and as the self of a method; without that self is left out."""
    assert render(Tenant(3)) == '("tenant",3)'
    assert render(Named()) == '"by%3Aname"'
    assert KeyMaker(plain, "t:{a}")((Tenant(4),), {}) == 't:("tenant",4)'
    assert KeyMaker(Tenant.rates, None)((Tenant(5), 1), {}) == f'{__name__}.Tenant.rates:("tenant",5):1'
    assert KeyMaker(Tenant.rates, "{self}:{day}")((Tenant(5),), {"day": 1}) == '("tenant",5):1'
    assert KeyMaker(Shop.rates, None)((Shop(), 1), {}) == f"{__name__}.Shop.rates:1"


def test_methods_of_objects_with_keys_do_not_share_entries() -> None:
    """The whole way, through the decorator."""
    cache = Cache(ttl=60)

    class Store:
        def __init__(self, number: int) -> None:
            self.number = number

        def __cache_key__(self) -> int:
            return self.number

        @cache.lazy()
        def total(self, day: int) -> int:
            return self.number * day

    assert [Store(1).total(5), Store(2).total(5), Store(1).total(5)] == [5, 10, 5]


@pytest.mark.parametrize("value", [object(), Shop(), {"a": object()}, (1, [object()]), range(3), lambda: 1, Shop])
def test_an_argument_without_a_text_of_its_own_is_refused_with_advice(value: Any) -> None:
    """Its repr could hold an address, or be the same for two meanings."""
    with pytest.raises(InvalidInput, match=r"__cache_key__"):
        KeyMaker(plain, None)((value,), {})


def test_what_python_cannot_hash_is_a_key_all_the_same() -> None:
    """Lists, dicts and sets, in an order of their own."""
    make = KeyMaker(plain, "{a}")
    assert make(({"b": [1], "a": {2, 1}},), {}) == make(({"a": {1, 2}, "b": [1]},), {})


# ------------------------------------------------------------------------------------------------------------ tags


def test_tags_are_what_a_person_would_write() -> None:
    """Texts stand in them as they are; a template without a parameter is a tag of all calls."""
    make = TagMaker(plain, ["users", "user:{a}", "{b.real}:{c}"])
    assert make((17,), {"c": "x"}) == ("users", "user:17", "2:x")
    assert make(("a:b",), {}) == ("users", "user:a:b", "2:3")
    assert TagMaker(plain, ("one", "two"))((), {}) == ("one", "two")
    assert TagMaker(without, [])((), {}) == ()


@pytest.mark.parametrize("templates", ["users", ["{nowhere}"], ["{a!r}"], [""], ["{a}{b}"]], ids=repr)
def test_wrong_tags_are_refused_where_they_are_written(templates: Any) -> None:
    """A text in place of a list too: each of its letters would be a tag."""
    with pytest.raises(ConfigurationError):
        TagMaker(plain, templates)


def test_an_empty_tag_is_refused() -> None:
    """It would be that of all calls with an empty argument."""
    with pytest.raises(InvalidInput, match="empty"):
        TagMaker(plain, ["{a}"])(("",), {})


# ------------------------------------------------------------------------------------------------------ physical keys


def test_a_list_of_keys_is_told_to_be_unpacked() -> None:
    """As Django's ``delete_many(keys)`` is written."""
    cache: Cache = Cache(ttl=60)
    with pytest.raises(InvalidInput, match=r"a cache key is a text .* this is a list; write a star"):
        cache.invalidate(["a", "b"])  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"a tag is a text .* this is a tuple; write a star"):
        cache.invalidate_tags(("a", "b"))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"a cache key is a text that is not empty, and this is a int$"):
        cache.get(17)  # type: ignore[call-overload]
    with pytest.raises(InvalidInput, match=r"this is an empty one"):
        cache.get("")


raw_keys = st.text(alphabet="{}#ab:0\ud800ü", min_size=1, max_size=250)


@given(raw_keys, raw_keys)
def test_no_key_of_the_store_holds_a_brace_or_is_that_of_another(one: str, other: str) -> None:
    """Braces would choose a Cluster's slot."""
    made = physical("shop", one)
    assert "{" not in made
    assert "}" not in made
    assert len(made) <= 210
    assert made.encode()
    assert (made == physical("shop", other)) is (one == other)


def test_a_key_that_looks_hashed_is_not_taken_for_the_one_it_looks_like() -> None:
    """Somebody may choose a key that is what a long one became."""
    long = "x" * 300
    hashed = physical("shop", long).removeprefix("shop:")
    assert physical("shop", hashed) != physical("shop", long)
    assert physical("shop", physical("shop", hashed).removeprefix("shop:")) != physical("shop", hashed)


def test_ordinary_keys_stay_readable() -> None:
    """What a person would look for with redis-cli."""
    assert physical("shop", KeyMaker(plain, "user:{a}:{b}")((17, "de_DE"), {})) == 'shop:user:17:"de_DE"'
    assert physical("shop", "user:{17}").startswith("shop:user:(17)#")


@pytest.mark.parametrize("key", ["x", "café", "Zürich:17", "a#b", "x" * 200, "é" * 200])
def test_a_key_that_can_stand_as_it_is_does(key: str) -> None:
    """Letters of any alphabet, and as many as the longest has: whoever looks at the server finds it."""
    assert physical("shop", key) == f"shop:{key}"
    assert physical_many("shop", [key, "other"]) == [f"shop:{key}", "shop:other"]


def test_building_a_key_is_quick() -> None:
    """Several times the usual measure, so that only a blunder fails: a key takes about a microsecond."""
    make = KeyMaker(plain, "user:{a}")
    best = min(_time(lambda: make((17,), {})) for _ in range(20))
    assert best < 15e-6


def _time(call: Any) -> float:
    began = time.perf_counter()
    for _ in range(100):
        call()
    return (time.perf_counter() - began) / 100


def rank(value: Any) -> Any:
    """Equal for values that must share a key."""
    if isinstance(value, list | tuple):
        return type(value), tuple(map(rank, value))
    if isinstance(value, float):
        return float, repr(value)
    return type(value), repr(value) if isinstance(value, decimal.Decimal) else value


arguments = atoms | st.lists(atoms, max_size=2) | st.tuples(atoms, atoms)


@given(arguments, arguments)
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


async def _load(user_id: int) -> int:
    return user_id


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


def test_an_object_is_no_key_part() -> None:
    """A value without a text of its own is refused with advice."""
    with pytest.raises(InvalidInput, match="attribute"):
        render(object())


@given(st.text(min_size=1, max_size=600), st.text(min_size=1, max_size=600))
def test_keys_of_the_store_are_short_and_distinct(one: str, other: str) -> None:
    """A long key ends in a hash; two keys are one only if they are equal."""
    assert len(physical("n", one)) <= 210
    assert (physical("n", one) == physical("n", other)) is (one == other)


def test_a_key_that_is_no_utf8_can_be_sent() -> None:
    """Half a surrogate pair, as JSON may hold it: the key is sent as a hash, and stays apart from its likes."""
    keys = ["\ud800", "\ud801", "a" * 150 + "\ud800" * 100, "\ud800" * 300]
    made = [physical("shop", key) for key in keys]
    assert len({name.encode() for name in made}) == len(keys)


def test_printable_text_stays_readable_in_keys() -> None:
    """Ordinary words are not escaped."""
    assert render("Ada Lovelace") == '"Ada Lovelace"'
    assert all(character in render(character) for character in string.ascii_letters + string.digits)


@pytest.mark.parametrize("namespace", ["", "a:b", "a b", "ü", "x" * 65, None, 3])
def test_a_namespace_that_could_run_into_a_key_is_refused(namespace):
    """A namespace is a word: with a colon in it two caches could share an entry."""
    with pytest.raises(ConfigurationError, match="namespace"):
        Cache(namespace=namespace, ttl=60)


def test_a_member_of_an_enum_is_named_in_a_key() -> None:
    """By its class and its name, which stay where its value changes."""
    assert render(Right.READ) == "Right.READ"


@pytest.mark.parametrize("given", ["", 17, None, ["a"]], ids=repr)
def test_what_is_no_text_is_neither_key_nor_tag(given: Any) -> None:
    """Refused alone and among others, before anything is asked of the store."""
    for make in (lambda: physical("shop", given), lambda: physical_many("shop", ["user:1", given])):
        with pytest.raises(InvalidInput, match="a cache key is a text that is not empty"):
            make()
    for name in (lambda: tag_name(given), lambda: tag_names(["user:1", given])):
        with pytest.raises(InvalidInput, match="a tag is a text that is not empty"):
            name()


def test_a_key_is_stored_alike_alone_and_among_others() -> None:
    """An odd one among plain ones changes neither its own name in the store nor theirs."""
    for odd in ("user:2", "a{", "a}", "{a}", "a#b", "x#" + "0" * 32, "#", "x" * 200, "x" * 201, "ü", "\ud800"):
        made = physical_many("shop", ["user:1", odd, "user:3"])
        assert made == ["shop:user:1", physical("shop", odd), "shop:user:3"]


def test_a_tag_stays_as_it_is_unless_no_key_could_be_so() -> None:
    """Readable tags are kept up to the longest; braces and length end in a hash of fixed length, once for all."""
    for tag in ("user:17", "ü", "a#b", "x" * 200):
        assert tag_name(tag) == tag
    hashed = [tag_name(tag) for tag in ("{" + "x" * 500, "x" * 201, "{a}", "{b}", "a\ud800")]
    assert [len(name) for name in hashed] == [133, 133, 36, 36, 35]
    assert hashed[0].startswith("(xxx")
    assert hashed[2].startswith("(a)#")
    assert len(set(hashed)) == len(hashed)
    assert [tag_name(name) for name in hashed] == hashed


def test_tags_are_named_once_each_in_their_order() -> None:
    """A tag that is told twice is one; one text instead of a list is refused."""
    assert tag_names(["b", "a", "b", "{a}"]) == ("b", "a", tag_name("{a}"))
    with pytest.raises(ConfigurationError, match="tags are a list"):
        tag_names("user")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("", "may hold text"),
        ("x:{}", "may hold text"),
        ("x:{a!r}", "may hold text"),
        ("x:{a:>3}", "may hold text"),
        ("x:{a[0]}", "may not index"),
        ("x:{a}{b}", "where one parameter ends"),
        ("x:{a", "cannot be read"),
    ],
)
def test_a_template_is_refused_for_what_is_wrong_with_it(template: str, why: str) -> None:
    """Each mistake is told by its own name."""
    with pytest.raises(ConfigurationError, match=why):
        parse(template)


def test_a_template_is_pairs_of_text_and_parameter() -> None:
    """Text that follows the last parameter stands alone."""
    assert parse("user:{user.id}:{day}/all") == [("user:", "user.id"), (":", "day"), ("/all", None)]
