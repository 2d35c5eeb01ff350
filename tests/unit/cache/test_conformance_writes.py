"""What every cache does when values are written: versions, counters, many keys at once."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest

from resilient.errors import ConfigurationError, InvalidInput, NotFound
from resilient.testing import FakeClock


@dataclasses.dataclass
class Row:
    id: int
    name: str
    version: int


class Table:
    """Rows that count their changes."""

    def __init__(self) -> None:
        self.rows = {17: Row(17, "first", 1)}
        self.reads = 0

    def read(self, row_id: int) -> Row:
        self.reads += 1
        return dataclasses.replace(self.rows[row_id])

    def write(self, row_id: int, name: str) -> Row:
        self.rows[row_id] = Row(row_id, name, self.rows[row_id].version + 1)
        return dataclasses.replace(self.rows[row_id])


@pytest.fixture
def table() -> Table:
    """One row."""
    return Table()


def functions(cache: Any, table: Table, **options: Any) -> tuple[Any, Any]:
    """A function that loads, and one that runs what it is given between its write and its return."""

    @cache.lazy("row:{row_id}", version_of="version", **options)
    def read(row_id: int) -> Row:
        return table.read(row_id)

    @cache.write_through("row:{row_id}", version_of="version")
    def write(
        row_id: int, name: str, before: Callable[[], Any] | None = None, after: Callable[[], Any] | None = None
    ) -> Row:
        if before is not None:
            before()
        written = table.write(row_id, name)
        if after is not None:
            after()
        return written

    return read, write


# --------------------------------------------------------------------------------------------------------- versions


@pytest.mark.parametrize("older_first", [True, False], ids=["delayed", "overtaken"])
def test_of_two_writers_the_newer_value_stays_in_the_cache(kind: Any, table: Table, older_first: bool) -> None:
    """With versions, whichever of two writers at once ends last: what the database holds is what is cached."""
    read, write = functions(kind(), table)
    theirs_read, theirs = functions(kind(), table)
    read(17)
    if older_first:
        write(17, "older", after=lambda: theirs(17, "newer"))
    else:
        write(17, "newer", before=lambda: theirs(17, "older"))
    reads = table.reads
    assert read(17).name == theirs_read(17).name == "newer"
    assert table.reads == reads


def test_the_older_of_two_writers_ends_last_behind_its_own_fence(kind: Any, table: Table, at_once: Any) -> None:
    """The newer one ends while the fence of the older stands: it leaves its value there, which is what stays."""
    begun, fenced, ended = threading.Event(), threading.Event(), threading.Event()
    read, write = functions(kind(), table)
    _, theirs = functions(kind(), table)

    def newer(_: int) -> Row:
        return write(17, "newer", before=lambda: (begun.set(), fenced.wait(10)))

    def older(_: int) -> Row:
        begun.wait(10)

        def meanwhile() -> None:  # this one's fence stands in the place of the other's, and it has written
            fenced.set()
            ended.wait(10)

        return theirs(17, "older", after=meanwhile)

    def run(number: int) -> None:
        if number:
            older(number)
        else:
            newer(number)
            ended.set()

    assert at_once(2, run) == [None, None]
    assert table.rows[17].name == "newer"
    reads = table.reads
    assert read(17).name == "newer"
    assert table.reads == reads


def test_an_older_value_set_by_hand_does_not_replace_a_newer_one(kind: Any) -> None:
    """set(version=) keeps the higher version, whoever sets first; without a version whatever comes last stays."""
    cache, other = kind(), kind()
    cache.set("k", "second", version=2)
    other.set("k", "first", version=1)
    assert cache.get("k") == "second"
    other.set("k", "second again", version=2)
    assert cache.get("k") == "second again"
    other.set("k", "third", version=2**62)
    assert cache.get("k") == "third"
    cache.set("k", "whatever")
    assert other.get("k") == "whatever"
    other.invalidate("k")
    other.set("k", "anew", version=0)
    assert cache.get("k") == "anew"


def test_a_load_from_a_copy_that_lags_behind_does_not_replace_a_newer_value(kind: Any, table: Table) -> None:
    """refresh reads an older row than the one that is cached: its caller gets it, and the cache keeps the newer."""
    cache = kind()
    read, write = functions(cache, table)
    write(17, "newer")
    table.rows[17] = Row(17, "older", 1)
    assert read.refresh(17).name == "older"
    assert read(17).name == "newer"
    table.rows[17] = Row(17, "newest", 3)
    assert read.refresh(17).name == "newest"
    assert read(17).name == "newest"


def test_a_row_that_is_made_anew_may_begin_again(kind: Any, table: Table) -> None:
    """An invalidation forgets the version too: a row that was deleted and made again is cached."""
    cache = kind()
    read, write = functions(cache, table)
    for _ in range(3):
        write(17, "old")
    read.invalidate(17)
    table.rows[17] = Row(17, "new", 0)
    assert read(17).name == "new"
    reads = table.reads
    assert read(17).name == "new"
    assert table.reads == reads


def test_what_tells_no_version_is_said_at_once_or_invalidates(kind: Any, table: Table) -> None:
    """A loader's caller is told that the name is wrong; a writer's value is in the database, and is only not cached."""
    cache = kind()
    with pytest.raises(ConfigurationError, match="version_of"):
        cache.lazy("k", version_of=3)
    with pytest.raises(InvalidInput, match="revision"):
        cache.get_or_load("k", lambda: {"id": 1}, version_of="revision")
    assert cache.get("k") is None
    for wrong in (-1, "1", 1.5, True, 2**63):
        with pytest.raises(InvalidInput, match="whole number"):
            cache.set("k", 1, version=wrong)
    assert cache.get_or_load("k", lambda: {"id": 1, "v": 2}, version_of="v") == {"id": 1, "v": 2}

    @cache.write_through("k", version_of="revision")
    def save() -> dict[str, int]:
        return {"id": 2}

    assert save() == {"id": 2}
    assert cache.get("k") is None

    @cache.lazy("absent", version_of="version", negative_ttl=10)
    def nothing() -> Row:
        raise NotFound("no such row")

    with pytest.raises(NotFound):
        nothing()


# --------------------------------------------------------------------------------------------------------- counters


def test_a_counter_counts_and_is_a_value_like_any_other(kind: Any, clock: FakeClock) -> None:
    """incr begins at 0 with a ttl, which counting on does not extend; get, set and delete see the same number."""
    cache, other = kind(), kind()
    assert cache.incr("hits", ttl=60) == 1
    clock.advance(20)
    assert other.incr("hits", 41) == 42
    assert cache.get("hits") == 42
    assert cache.incr("hits", -2) == 40
    clock.advance(41)
    assert cache.get("hits") is None
    assert cache.incr("hits") == 1
    cache.set("hits", 2**70)
    assert other.incr("hits") == 2**70 + 1
    cache.delete("hits")
    assert other.incr("hits", 5) == 5
    for wrong in ("text", 1.5, True, None):
        cache.set("hits", wrong)
        with pytest.raises(InvalidInput, match="whole number"):
            cache.incr("hits")


def test_counters_lose_no_count(kind: Any, at_once: Any) -> None:
    """Many callers in several processes count at once: every count is there."""
    caches = [kind() for _ in range(3)]
    counted = at_once(9, lambda number: [caches[number % 3].incr("n") for _ in range(3)])
    assert sorted(each for some in counted for each in some) == list(range(1, 28))


def test_touch_gives_a_value_a_new_ttl(kind: Any, clock: FakeClock) -> None:
    """Its age goes on, its end moves; what is not there is not touched."""
    cache = kind()
    assert cache.touch("k") is False
    cache.set("k", "v", ttl=10)
    clock.advance(9)
    assert cache.touch("k", 20) is True
    clock.advance(19)
    assert cache.get("k") == "v"
    assert cache.lookup("k").age == pytest.approx(28, abs=0.1)
    clock.advance(2)
    assert cache.get("k") is None
    assert cache.touch("k") is False
    cache.set("k", "v")
    cache.invalidate("k")
    assert cache.touch("k") is False


# ------------------------------------------------------------------------------------------------- several, and absence


def test_many_keys_are_forgotten_at_once(kind: Any) -> None:
    """delete and invalidate take any number of keys; those that are not there do no harm."""
    cache = kind()
    cache.set_many({f"k{number}": number for number in range(20)})
    cache.delete(*(f"k{number}" for number in range(10)), "nothing")
    cache.invalidate("k10", "k11")
    cache.delete()
    assert cache.get_many(f"k{number}" for number in range(20)) == {f"k{number}": number for number in range(12, 20)}


def test_add_leaves_a_writer_alone_and_an_invalidation_its_protection(kind: Any) -> None:
    """A load from before an invalidation does not go over what was added after it; nothing is added under a writer."""
    cache, other = kind(), kind()

    def load() -> str:
        other.invalidate("k")
        assert other.add("k", "added") is True
        return "loaded"

    assert cache.get_or_load("k", load) == "loaded"
    assert cache.get("k") == "added"

    @cache.write_through("w")
    def save() -> str:
        assert other.add("w", "added") is False
        assert other.incr("w") is None
        return "saved"

    save()
    assert other.get("w") == "saved"


def test_only_if_present_goes_by_versions_too(kind: Any, table: Table) -> None:
    """A key that was not cached stays uncached; one that was gets the newer value."""
    cache = kind()
    read, _ = functions(cache, table)

    @cache.write_through("row:{row_id}", version_of="version", only_if_present=True)
    def save(row_id: int, name: str) -> Row:
        return table.write(row_id, name)

    save(17, "a")
    assert cache.get("row:17", type=Row) is None
    read(17)
    save(17, "b")
    reads = table.reads
    assert read(17).name == "b"
    assert table.reads == reads
