"""What every cache does with tags and its namespace, whatever keeps its entries: what is forgotten, and when."""

from __future__ import annotations

import time
from typing import Any

import pytest
from threads import Slow, start

from resilient.cache._entry import LEASE, TOMBSTONE, marker
from resilient.cache._stamps import LIFE, UNKNOWN, is_unsure
from resilient.errors import ConfigurationError, InvalidInput, NotFound, Unavailable
from resilient.testing import FakeClock

# --------------------------------------------------------------------------------------------------- what is forgotten


def test_a_tag_forgets_what_bears_it_in_every_process(kind: Any) -> None:
    """Values that bear the tag are gone for all, whether their readers know of it or not; others stay."""
    mine, other = kind(), kind()
    mine.set("a", 1, tags=["price", "user:1"])
    mine.set_many({"b": 2, "c": 3}, tags=["price"])
    assert mine.add("d", 4, tags=["user:1"])
    mine.set("e", 5)
    assert other.get_many(["a", "b", "c", "d", "e"]) == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    other.invalidate_tags("price")
    for cache in (mine, other):
        assert cache.get("a") is None
        assert cache.get_many(["a", "b", "c", "d", "e"]) == {"d": 4, "e": 5}
    mine.invalidate_tags("user:1", "nobody bears this")
    assert other.get_many(["a", "b", "c", "d", "e"]) == {"e": 5}
    mine.set("a", 6, tags=["price"])
    assert other.get("a") == 6


def test_clear_forgets_the_namespace_in_every_process(kind: Any) -> None:
    """All entries of the namespace are gone for all processes, with tags or without; another namespace is not."""
    mine, other, stranger = kind(), kind(), kind(namespace="else")
    mine.set("a", 1, tags=["t"])
    mine.set("b", 2)
    stranger.set("a", 3)
    other.clear()
    assert mine.get_many(["a", "b"]) == {}
    assert other.get("b") is None
    assert stranger.get("a") == 3
    assert mine.get_or_load("a", lambda: 4) == 4
    assert mine.add("b", 5)
    assert other.get_many(["a", "b"]) == {"a": 4, "b": 5}


def test_tags_are_templates_as_keys_are(kind: Any) -> None:
    """Each call bears its own tags: one user is forgotten, the others stay; a tag without parameters is for all."""
    cache, calls = kind(), []

    @cache.lazy("user:{user_id}", tags=["users", "user:{user_id}"])
    def user(user_id: int) -> int:
        calls.append(user_id)
        return user_id

    assert [user(1), user(2), user(1), user(2)] == [1, 2, 1, 2]
    assert calls == [1, 2]
    cache.invalidate_tags("user:1")
    assert [user(1), user(2), user.lookup(1).source, user.lookup(2).source] == [1, 2, kind.source, kind.source]
    assert calls == [1, 2, 1]
    kind().invalidate_tags("users")
    assert [user(1), user(2)] == [1, 2]
    assert calls == [1, 2, 1, 1, 2]
    assert user.refresh(2) == 2
    assert user.lookup(2).source == kind.source


def test_what_is_written_through_bears_the_tags_of_what_is_loaded(kind: Any) -> None:
    """Under the same template, unless the writer names its own: no value lacks what its reader asks for."""
    cache = kind()
    rows = {17: "a"}

    @cache.write_through("user:{user_id}")
    def save(user_id: int, name: str) -> str:
        rows[user_id] = name
        return name

    @cache.lazy("user:{user_id}", tags=["users", "user:{user_id}"])
    def load(user_id: int) -> str:
        return rows[user_id]

    @cache.write_through("user:{user_id}", tags=["user:{user_id}"])
    def save_badly(user_id: int, name: str) -> str:
        rows[user_id] = name
        return name

    save(17, "b")
    assert load.lookup(17).source == kind.source
    cache.invalidate_tags("users")
    assert load.lookup(17).source == "loader"
    save_badly(17, "c")
    assert load.lookup(17).source == "loader", "it lacks a tag of its reader"
    assert load(17) == "c"


def test_many_that_are_loaded_at_once_bear_their_tags(kind: Any) -> None:
    """The values of one batch bear the same tags, and the absent ones too."""
    cache, other, asked = kind(), kind(), []

    def load(keys: list[str]) -> dict[str, str]:
        asked.append(sorted(keys))
        return {key: key.upper() for key in keys if key != "none"}

    def ask(cache: Any, tags: tuple[str, ...] = ("t",)) -> Any:
        return cache.get_many(["a", "b", "none"], load_many=load, tags=tags, negative_ttl=60)

    assert ask(cache) == ask(other) == {"a": "A", "b": "B"}
    assert asked == [["a", "b", "none"]]
    other.set("b", "other", tags=["t", "u"])
    cache.invalidate_tags("u")
    assert ask(cache) == {"a": "A", "b": "B"}
    assert asked[1:] == [["b"]]
    other.invalidate_tags("t")
    assert ask(cache) == {"a": "A", "b": "B"}
    assert asked[2:] == [["a", "b", "none"]]


def test_absence_and_errors_bear_tags_too(kind: Any) -> None:
    """What says that there is no such thing is forgotten by its tag, and so is a remembered error."""
    cache = kind()
    answer: list[Any] = [NotFound("no")]

    def load() -> Any:
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    def ask() -> Any:
        return cache.get_or_load("k", load, tags=["t"], negative_ttl=60, cache_errors=(ValueError,), error_ttl=60)

    with pytest.raises(NotFound):
        ask()
    answer[0] = ValueError("bad")
    with pytest.raises(NotFound):
        ask()
    cache.invalidate_tags("t")
    with pytest.raises(ValueError, match="bad"):
        ask()
    answer[0] = "v"
    with pytest.raises(ValueError, match="bad"):
        ask()
    cache.invalidate_tags("t")
    assert ask() == "v"


def test_what_was_invalidated_is_never_served_as_stale(kind: Any, clock: FakeClock) -> None:
    """Neither while it is loaded anew nor when its source fails: it is not old, it is wrong."""
    cache = kind()
    answer: list[Any] = ["old"]

    def load() -> Any:
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    def ask() -> Any:
        return cache.get_or_load("k", load, 10, tags=["t"], stale_while_revalidate=60, stale_if_error=600)

    assert ask() == "old"
    clock.advance(100)  # in the time in which errors are bridged
    answer[0] = ConnectionError("the source is away")
    assert ask() == "old"
    cache.invalidate_tags("t")
    clock.advance(100)
    with pytest.raises(Unavailable):
        ask()
    answer[0] = "new"
    assert ask() == "new"
    cache.clear()
    answer[0] = ConnectionError("the source is away")
    with pytest.raises(Unavailable):
        ask()


def test_a_value_that_lacks_a_tag_of_its_reader_is_a_miss(kind: Any) -> None:
    """An invalidation of that tag would not reach it. One that bears more tags than its reader knows of is a hit."""
    cache = kind()
    cache.set("k", "bare")
    assert cache.get("k") == "bare"
    assert cache.get_or_load("k", lambda: "loaded", tags=["t"]) == "loaded"
    cache.set("k", "both", tags=["u", "t"])
    assert cache.get_or_load("k", lambda: "loaded", tags=["t"]) == "both"
    assert cache.get_or_load("k", lambda: "loaded", tags=["t", "u"]) == "both"
    assert cache.get_or_load("k", lambda: "loaded") == "both"
    cache.invalidate_tags("u")
    assert cache.get_or_load("k", lambda: "loaded", tags=["t"]) == "loaded"


# -------------------------------------------------------------------------------------------------------- the stamps


@pytest.mark.parametrize("place", [0, 1], ids=["namespace", "tag"])
def test_an_absent_stamp_is_a_miss(kind: Any, place: int) -> None:
    """A stamp that was evicted, or is no stamp, is made anew: nothing from before is served, and all goes on."""
    cache, other = kind(), kind()
    engine = cache.main
    key = engine.stampbook.keys(["t"])[place]
    for raw in (None, b"", b"x" * 100, b"x"):  # evicted, empty, foreign, short
        cache.set("k", "old", tags=["t"])
        assert cache.get("k") == "old"
        before = kind.done(engine.tier.store.get_many([key]))[0]
        assert kind.done(engine.tier.store.swap(key, before, raw, 60_000))
        assert cache.get("k") is None, raw
        assert cache.get_or_load("k", lambda: "new", tags=["t"]) == "new"
        assert other.get("k") == "new", raw
        cache.set("k", "newer", tags=["t"])
        assert other.get("k") == "newer", raw


def test_stamps_outlive_what_bears_them(kind: Any, clock: FakeClock) -> None:
    """A stamp past half its life is extended by who loads, and stays the same stamp."""
    cache = kind()
    assert cache.get_or_load("k", lambda: 1, 10, tags=["t"]) == 1
    stamps = cache.main.stampbook.keys(["t"])
    first = kind.done(cache.main.tier.store.get_many(stamps))
    clock.advance(LIFE * 0.4)
    assert cache.get_or_load("k", lambda: 2, 10, tags=["t"]) == 2
    assert kind.done(cache.main.tier.store.get_many(stamps)) == first
    clock.advance(LIFE * 0.2)
    assert cache.get_or_load("k", lambda: 3, 10, tags=["t"]) == 3
    second = kind.done(cache.main.tier.store.get_many(stamps))
    assert [raw[8:16] for raw in second] == [raw[8:16] for raw in first]
    assert second != first
    assert cache.get_or_load("k", lambda: 4, LIFE, tags=["t"]) == 3
    cache.set("k", 5, LIFE, tags=["t"])
    third = kind.done(cache.main.tier.store.get_many(stamps))
    assert [raw[8:16] for raw in third] == [raw[8:16] for raw in first]
    clock.advance(LIFE * 0.9)
    assert cache.get("k") == 5


def test_a_tag_may_be_any_text(kind: Any) -> None:
    """Also one that a Cluster or a server would read in its own way; and it is no other tag."""
    cache = kind()
    for tag in ("{user}:1", "a b\nc", "ü" * 300, "\ud800", "x" * 1000, "*", "}{"):
        cache.set("k", 1, tags=[tag])
        cache.invalidate_tags(tag + "x", tag[:-1] or "y")
        assert cache.get("k") == 1, tag
        cache.invalidate_tags(tag)
        assert cache.get("k") is None, tag


def test_what_is_no_tag_is_refused(kind: Any) -> None:
    """One text in the place of a list would be taken letter by letter."""
    cache = kind()
    with pytest.raises(ConfigurationError, match="list of texts"):
        cache.set("k", 1, tags="price")
    with pytest.raises(ConfigurationError, match="list of texts"):
        cache.get_or_load("k", lambda: 1, tags="price")
    with pytest.raises(ConfigurationError, match="list of texts"):
        cache.lazy("k:{n}", tags="price")
    with pytest.raises(ConfigurationError, match="no parameter"):
        cache.lazy("k:{n}", tags=["{m}"])(lambda n: n)
    for tags in ([""], [7], [None]):
        with pytest.raises(InvalidInput, match="a tag is a text"):
            cache.set("k", 1, tags=tags)
        with pytest.raises(InvalidInput, match="a tag is a text"):
            cache.invalidate_tags(*tags)


# ------------------------------------------------------------------------------------------------- loads on their way


@pytest.mark.parametrize("everything", [False, True], ids=["tag", "clear"])
@pytest.mark.parametrize("same", [True, False], ids=["same process", "another process"])
def test_a_load_that_began_before_is_served_to_nobody_who_comes_after(kind: Any, same: bool, everything: bool) -> None:
    """Who began before gets what was loaded; who comes after the invalidation loads anew, and that is what is kept."""
    cache = kind()
    other = cache if same else kind()
    slow = Slow()
    loading, first = start(lambda: cache.get_or_load("k", slow, tags=["t"]))
    assert slow.inside.wait(10)
    if everything:
        other.clear()
    else:
        other.invalidate_tags("t")
    began = time.monotonic()
    assert other.get_or_load("k", lambda: "new", tags=["t"]) == "new"
    assert time.monotonic() - began < 5, "it waited for a load that is of no use to it"
    assert cache.get_or_load("k", lambda: "newer", tags=["t"]) == "new"
    slow.go.set()
    loading.join(10)
    assert first == ["old"]
    assert cache.get("k") == other.get("k") == "new"


def test_a_load_without_a_stamp_of_its_tag_at_its_begin_is_not_of_use_after_an_invalidation(kind: Any) -> None:
    """The stamps are taken before the load begins, also where they had to be made for it."""
    mine, other = kind(), kind()
    slow = Slow()
    loading, first = start(lambda: mine.get_or_load("k", slow, tags=["new tag"]))
    assert slow.inside.wait(10)
    other.invalidate_tags("new tag")
    slow.go.set()
    loading.join(10)
    assert first == ["old"]
    assert mine.get("k") is None
    assert other.get("k") is None


def test_a_write_that_began_before_is_not_kept(kind: Any) -> None:
    """A value written through bears the stamps of before its write."""
    cache, other = kind(), kind()
    slow = Slow("written")

    @cache.write_through("k", tags=["t"])
    def save() -> str:
        return str(slow())

    writing, result = start(save)
    assert slow.inside.wait(10)
    other.invalidate_tags("t")
    slow.go.set()
    writing.join(10)
    assert result == ["written"]
    assert cache.get("k") is None
    slow.value = "again"
    assert save() == "again"
    assert other.get("k") == "again"


def test_a_lease_from_before_an_invalidation_is_taken_over(kind: Any, clock: FakeClock) -> None:
    """What its holder loads is of no use any more, dead or alive: nobody waits for it."""
    cache = kind(lease=30.0)
    cache.set("other", 1, tags=["t"])
    stamps = kind.done(cache.main.stampbook.read(("t",)))
    raw = marker(LEASE, clock.wall(), 30.0, generation=stamps.generation, tags=stamps.block())
    kind.put_raw(cache, "k", raw, 30_000)
    cache.invalidate_tags("t")
    began = time.monotonic()
    assert cache.get_or_load("k", lambda: "v", tags=["t"]) == "v"
    assert time.monotonic() - began < 5
    assert cache.stats().waits == 0
    assert kind().get("k") == "v"


def test_callers_that_meet_new_stamps_share_one_load(kind: Any, at_once: Any) -> None:
    """On a namespace nobody has used yet, and for a tag nobody has borne, one load is enough for several processes."""
    caches = [kind(), kind(), kind()]
    calls = []

    def load() -> str:
        calls.append(1)
        time.sleep(0.1)
        return "v"

    assert at_once(12, lambda index: caches[index % 3].get_or_load("k", load, tags=["a", "b"])) == ["v"] * 12
    assert len(calls) == 1


# -------------------------------------------------------------------------------------------- around a transaction


def test_a_fenced_tag_is_neither_served_nor_stored(kind: Any) -> None:
    """While a writer commits, who reads what bears its tag reads the source; then all is as it should be."""
    cache, other = kind(), kind()
    cache.set("k", "old", tags=["t"])
    cache.set("apart", 1, tags=["u"])
    fences = kind.done(other.main.tags.fence(["t"]))
    assert cache.get("k") is None
    assert cache.get_or_load("k", lambda: "meanwhile", tags=["t"]) == "meanwhile"
    assert cache.get_or_load("k", lambda: "meanwhile too", tags=["t"]) == "meanwhile too"
    assert cache.get("apart") == 1
    stamps = kind.done(other.main.tags.finish(fences, ["t"], kind.done(other.main.stampbook.read(("t",)))))
    assert stamps.whole
    assert cache.get("k") is None
    assert cache.get_or_load("k", lambda: "new", tags=["t"]) == "new"
    assert other.get("k") == "new"


def test_a_fence_is_lifted_when_nothing_was_written(kind: Any) -> None:
    """After a rollback the values are those of before, and nothing had to be loaded."""
    cache, other = kind(), kind()
    cache.set("k", "old", tags=["t"])
    kind.done(other.main.tags.cancel(kind.done(other.main.tags.fence(["t", "unknown"]))))
    assert cache.get("k") == "old"
    assert cache.get_or_load("n", lambda: 1, tags=["unknown"]) == 1
    assert cache.get("n") == 1


def test_a_writer_that_dies_with_its_fence_costs_one_lease(kind: Any, clock: FakeClock) -> None:
    """What was cached before it stays uncached, and nothing old comes back when the fence is over."""
    cache = kind(lease=kind.lease)
    cache.set("k", "old", tags=["t"])
    kind.done(cache.main.tags.fence(["t"]))
    assert cache.get("k") is None
    kind.a_lease_later()
    assert cache.get("k") is None
    assert cache.get_or_load("k", lambda: "new", tags=["t"]) == "new"
    assert cache.get("k") == "new"


@pytest.mark.parametrize("second_ends_first", [True, False])
def test_of_two_writers_of_a_tag_neither_brings_back_what_the_other_changed(kind: Any, second_ends_first: bool) -> None:
    """Whichever ends first, and though one gives up: what was loaded before the last commit is served no more."""
    cache = kind()
    cache.set("k", "old", tags=["t"])
    read = kind.done(cache.main.stampbook.read(("t",)))
    first = kind.done(cache.main.tags.fence(["t"]))
    second = kind.done(cache.main.tags.fence(["t"]))
    if second_ends_first:
        kind.done(cache.main.tags.cancel(second))
        assert cache.get("k") is None
        assert cache.get_or_load("k", lambda: "between", tags=["t"]) == "between"
    kind.done(cache.main.tags.finish(first, ["t"], read))
    assert cache.get("k") is None
    assert cache.get_or_load("k", lambda: "after", tags=["t"]) == "after"
    if not second_ends_first:
        kind.done(cache.main.tags.cancel(second))
        assert cache.get("k") in {None, "after"}
    raw = kind.done(cache.main.tier.store.get_many(cache.main.stampbook.keys(["t"])))[1]
    assert raw[2] == TOMBSTONE
    assert is_unsure(raw), "another writer may be at work: the stamp is a short one"


@pytest.mark.parametrize("committing", [True, False], ids=["a commit", "an invalidation"])
def test_a_writer_that_dies_beside_another_costs_one_lease(kind: Any, clock: FakeClock, committing: bool) -> None:
    """The stamp that the other left is a short one: what was loaded under it before the dead one's commit goes."""
    cache = kind(lease=kind.lease)
    kind.done(cache.main.tags.fence(["t"]))  # its writer commits below, and dies
    if committing:
        kind.done(cache.main.tags.finish(kind.done(cache.main.tags.fence(["t"])), ["t"], UNKNOWN))
    else:
        cache.invalidate_tags("t")
    assert cache.get_or_load("k", lambda: "from before its commit", tags=["t"]) == "from before its commit"
    kind.a_lease_later()
    assert cache.get("k") is None
    assert cache.get_or_load("k", lambda: "from after it", tags=["t"]) == "from after it"
    assert cache.get("k") == "from after it"


def test_touch_gives_no_life_to_what_was_forgotten(kind: Any) -> None:
    """A value that was cleared, or forgotten by a tag, is none; one that stands is one, its tags unnamed."""
    cache, other = kind(), kind()
    cache.set("a", 1)
    assert other.touch("a", 60) is True
    other.clear()
    assert cache.touch("a", 60) is False
    cache.set("b", 1, tags=["red"])
    assert other.touch("b", 60) is True
    assert cache.get("b") == 1
    other.invalidate_tags("red")
    assert cache.touch("b", 60) is False
    assert cache.get("b") is None
