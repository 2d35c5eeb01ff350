"""Where keys live."""

from __future__ import annotations

from enum import Enum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.errors import ConfigurationError, InvalidInput
from resilient.storage.shards import ShardMap, ShardSet, bucket_of

keys = st.integers() | st.text() | st.binary() | st.uuids()
names = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)


def test_the_hash_is_fixed_for_ever() -> None:
    """Buckets written down once: a change here would lose every row that is stored."""
    found = [bucket_of(key, 4096) for key in (0, 42, "42", "müller", b"\x00", UUID(int=1))]
    assert found == [3957, 2170, 2170, 1547, 584, 1896]


def test_a_key_is_what_the_database_stores_of_it() -> None:
    """An enum with text or a number is stored as that, so it lives where that lives; half a character is no key."""

    class Plan(str, Enum):  # noqa: UP042 - the one that prints its name
        FREE = "free"

    class Level(int, Enum):
        ONE = 1

    assert bucket_of(Plan.FREE, 4096) == bucket_of("free", 4096)
    assert bucket_of(Level.ONE, 4096) == bucket_of(1, 4096)
    with pytest.raises(InvalidInput):
        bucket_of("\ud800", 4096)


@given(keys, names, st.integers(8, 8192))
def test_each_key_has_one_shard_that_the_map_names(key: object, shards: list[str], buckets: int) -> None:
    """Every key falls into a bucket that exactly one shard holds, the same each time."""
    made = ShardMap.hashed(shards, buckets)
    assert made.shard_for(key) in shards  # type: ignore[arg-type] # drawn from the allowed types
    assert made.shard_for(key) == made.shard_for(key)  # type: ignore[arg-type] # as above


@given(names, st.integers(8, 8192))
def test_buckets_are_spread_evenly_and_survive_storage(shards: list[str], buckets: int) -> None:
    """No shard has two buckets more than another; the stored text gives the same map back."""
    made = ShardMap.hashed(shards, buckets)
    counts = [made.layout().count(name) for name in shards]
    assert sum(counts) == buckets
    assert max(counts) - min(counts) <= 1
    assert ShardMap.from_json(made.to_json(), 1) == made


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=50))
def test_any_layout_survives_storage(owners: list[str]) -> None:
    """Also a layout of scattered buckets, as moves will leave it."""
    made = ShardMap(tuple(owners), version=7)
    assert ShardMap.from_json(made.to_json(), 7) == made


def test_keys_spread() -> None:
    """100,000 numbered users over four shards: none holds more than 2 % above its quarter."""
    made = ShardMap.hashed(["a", "b", "c", "d"])
    held = dict.fromkeys("abcd", 0)
    for user in range(100_000):
        held[made.shard_for(user)] += 1
    assert max(held.values()) < 25_500


@pytest.mark.parametrize("key", [None, 1.0, True, (1, 2), object()])
def test_what_is_no_key_is_refused(key: object) -> None:
    """A missing key and types whose text is not one-to-one raise before anything is sent."""
    with pytest.raises(InvalidInput, match="a shard key is"):
        ShardMap.hashed(["a"]).shard_for(key)  # type: ignore[arg-type] # the point of the test


def test_maps_that_make_no_sense_are_refused() -> None:
    """No shards, the same twice, more shards than buckets, too many buckets, a malformed name, a damaged text."""
    for wrong in ([], ["a", "a"]):
        with pytest.raises(ConfigurationError):
            ShardMap.hashed(wrong)
    with pytest.raises(ConfigurationError):
        ShardMap.hashed(["a", "b"], buckets=1)
    with pytest.raises(ConfigurationError):
        ShardMap.hashed(["a"], buckets=10_000)
    with pytest.raises(ConfigurationError):
        ShardMap.hashed(["a b"])
    text = ShardMap.hashed(["a", "b"], 8).to_json()
    for damaged in (
        text.replace("blake2b-8", "crc32"),
        text.replace('"buckets": 8', '"buckets": 9'),
        text.replace("[4, 7]", "[3, 7]"),
        text.replace("[4, 7]", "[4, 8]"),
    ):
        assert damaged != text
        with pytest.raises(ConfigurationError):
            ShardMap.from_json(damaged, 1)


@pytest.mark.parametrize("shards", [["sqlite://", "sqlite://"], "sqlite://"])
def test_shards_have_names(shards):
    """A list of addresses is refused with what to write instead."""
    with pytest.raises(ConfigurationError, match="by name"):
        ShardSet(shards)


def test_a_layout_tells_each_shards_share() -> None:
    """As it is printed: the version, then each shard with how much it holds."""
    shards = ShardMap.hashed(["a", "b", "c"], buckets=8)
    told = str(ShardMap(shards.owners, version=7).layout())
    assert told.splitlines() == ["version 7, 8 buckets", "a: 3 (37.5%)", "b: 3 (37.5%)", "c: 2 (25.0%)"]


def test_a_map_has_4096_buckets_by_default_and_finds_each() -> None:
    """Enough for far more shards than there will be; the map's own answer is that of the hash."""
    shards = ShardMap.hashed(["a", "b"])
    assert len(shards.owners) == 4096
    assert {shards.bucket_of(key) == bucket_of(key, 4096) for key in range(100)} == {True}
