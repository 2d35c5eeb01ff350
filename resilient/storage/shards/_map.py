"""The shard map: which key lives where. Plain values, no I/O.

A key is hashed to one of a fixed number of buckets, and the map says which shard holds each bucket. The hash and the
number of buckets never change; what moves later are whole buckets, so no key is ever hashed anew.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType
from typing import Any
from uuid import UUID

from resilient.arguments import check_name
from resilient.errors import ConfigurationError, InvalidInput

__all__ = ["Key", "Layout", "ShardMap", "bucket_of"]

Key = int | str | bytes | UUID
"""What a shard key may be. ``42`` and ``"42"`` are the same key, as are a UUID and its text."""

_HASH = "blake2b-8"
_MAX_BUCKETS = 8192  # so that a bucket fits 13 bits of an id


def bucket_of(key: Key, buckets: int) -> int:
    """The bucket of a key.

    Args:
        key: The key.
        buckets: How many there are.

    Raises:
        InvalidInput: The key is missing, or of a type whose text is not one-to-one (a float, a boolean).

    Examples:
        >>> bucket_of(42, 4096) == bucket_of("42", 4096)
        True
    """
    given: object = key  # callers without a type checker pass anything
    data: bytes | None = None
    if isinstance(given, bytes):
        data = bytes(given)
    elif isinstance(given, str):
        data = _utf8(str.__str__(given))  # what a database stores of an enum with text, not what the enum prints
    elif isinstance(given, int) and not isinstance(given, bool):
        data = int.__repr__(given).encode()
    elif isinstance(given, UUID):
        data = str(given).encode()
    if data is None:
        raise InvalidInput(
            f"a shard key is an int, a str, bytes or a UUID, not {type(key).__name__}",
            advice="say for which key: session(key=…)",
        )
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") % buckets


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("a shard key is text that can be stored, without lone surrogates") from None


@dataclass(frozen=True, slots=True)
class Layout:
    """Which buckets each shard holds.

    Args:
        version: Which map it is; grows by one with each change.
        buckets: How many buckets there are in all.
        shards: For each shard its ranges of buckets, each with its first and last one.
    """

    version: int
    buckets: int
    shards: Mapping[str, tuple[tuple[int, int], ...]]

    def count(self, shard: str) -> int:
        """How many buckets a shard holds."""
        return sum(last - first + 1 for first, last in self.shards[shard])

    def __str__(self) -> str:
        lines = [f"version {self.version}, {self.buckets} buckets"]
        lines += [f"{name}: {self.count(name)} ({self.count(name) / self.buckets:.1%})" for name in self.shards]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ShardMap:
    """Which shard holds each bucket. An immutable value; make one with `hashed`.

    Args:
        owners: The shard of each bucket.
        version: Grows by one with each change.

    Raises:
        ConfigurationError: There are no buckets, more than 8,192, or a name is malformed.

    Examples:
        >>> shards = ShardMap.hashed(["a", "b"])
        >>> shards.shard_for(42)
        'b'
        >>> print(shards.layout())
        version 1, 4096 buckets
        a: 2048 (50.0%)
        b: 2048 (50.0%)
    """

    owners: tuple[str, ...]
    version: int = 1

    def __post_init__(self) -> None:
        if not 1 <= len(self.owners) <= _MAX_BUCKETS:
            raise ConfigurationError(f"a shard map has 1 to {_MAX_BUCKETS} buckets")
        for name in set(self.owners):
            check_name("a shard", name)

    @classmethod
    def hashed(cls, shards: Sequence[str], buckets: int = 4096) -> ShardMap:
        """A map that spreads the buckets evenly.

        Args:
            shards: The shards' names.
            buckets: How many buckets; fixed for the life of the data, so choose far more than there will be shards.
        """
        if not shards or len(set(shards)) != len(shards) or len(shards) > buckets:
            raise ConfigurationError("a shard map needs shards of different names, no more of them than buckets")
        return cls(tuple(shards[number * len(shards) // buckets] for number in range(buckets)))

    @property
    def names(self) -> tuple[str, ...]:
        """The shards that hold buckets, in the order of their first one."""
        return tuple(dict.fromkeys(self.owners))

    def bucket_of(self, key: Key) -> int:
        """The bucket of a key. Raises InvalidInput where it can be none."""
        return bucket_of(key, len(self.owners))

    def shard_for(self, key: Key) -> str:
        """The shard that holds a key. Raises InvalidInput where it can be none."""
        return self.owners[bucket_of(key, len(self.owners))]

    def layout(self) -> Layout:
        """Which buckets each shard holds."""
        ranges: dict[str, list[tuple[int, int]]] = {name: [] for name in self.names}
        numbered = enumerate(self.owners)
        for name, run in itertools.groupby(numbered, key=lambda pair: pair[1]):
            numbers = [number for number, _ in run]
            ranges[name].append((numbers[0], numbers[-1]))
        frozen = {name: tuple(found) for name, found in ranges.items()}
        return Layout(self.version, len(self.owners), MappingProxyType(frozen))

    def to_json(self) -> str:
        """The map as text, without its version, as it is stored."""
        layout = self.layout()
        shards = {name: [list(pair) for pair in ranges] for name, ranges in layout.shards.items()}
        return json.dumps({"strategy": "hash", "hash": _HASH, "buckets": layout.buckets, "shards": shards})

    @classmethod
    def from_json(cls, text: str, version: int) -> ShardMap:
        """Read what `to_json` wrote.

        Raises:
            ConfigurationError: It was written by a version of this library that knows more, or is damaged.
        """
        found: dict[str, Any] = json.loads(text)
        if found.get("strategy") != "hash" or found.get("hash") != _HASH:
            raise ConfigurationError("the stored shard map uses a strategy that is not known here")
        owners: list[str | None] = [None] * found["buckets"]
        for name, ranges in found["shards"].items():
            for first, last in ranges:
                _fill(owners, name, range(first, last + 1))
        if None in owners:
            raise ConfigurationError("the stored shard map leaves buckets without a shard")
        return cls(tuple(owner for owner in owners if owner is not None), version)


def _fill(owners: list[str | None], name: str, numbers: Iterable[int]) -> None:
    for number in numbers:
        if not 0 <= number < len(owners) or owners[number] is not None:
            raise ConfigurationError("the stored shard map gives one bucket to two shards")
        owners[number] = name
