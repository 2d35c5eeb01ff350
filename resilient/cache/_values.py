"""The plain values a cache hands out, and the protocols of what it is given."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

from resilient.errors import ConfigurationError
from resilient.runtime import fork_safe_lock

__all__ = [
    "AsyncLoader",
    "AsyncStore",
    "CacheStats",
    "Claim",
    "Counts",
    "Loader",
    "Lookup",
    "Store",
    "Swap",
    "Written",
    "checked_store",
    "is_store",
]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Loader: TypeAlias = Callable[P, R]
AsyncLoader: TypeAlias = Callable[P, Awaitable[R]]
Claim: TypeAlias = tuple[str, bytes | None, bytes, int]
"""What `Store.claim` takes."""
Swap: TypeAlias = tuple[str, bytes | None, bytes | None, int]
"""What `Store.swap` takes."""


class Written(IntEnum):
    """How a write by versions ended."""

    UNKNOWN = 0  # nothing there tells which value is the newer: nothing was stored
    STORED = 1
    OLDER = 2  # a newer value is there, or was left there
    LEFT = 3  # another writer is at work, in whose fence the value was left


@dataclass(slots=True)  # not frozen: that takes longer to make than all else of a load's answer
class Lookup(Generic[T_co]):
    """A value, and where it came from.

    Args:
        value: The value.
        source: ``local`` (this process), ``shared`` (the server) or ``loader``.
        age: Seconds since its load began.
        stale: Whether its ttl is over: it was served while it is loaded anew, or because its source failed.
        left: Seconds until its ttl is over, negative where it is; ``None`` where the value is not in the cache.
        revalidates: Seconds after its ttl for which it is served while it is loaded anew.
        stands_in: Seconds after its ttl for which it is served when its source fails.
        names: Its key, and its tags as ``tag:…``: whoever keeps what was made of it must forget that when the cache is
            told that one of them has changed. See `Cache.watch`.
    """

    value: T_co
    source: Literal["local", "shared", "loader"]
    age: float
    stale: bool = False
    left: float | None = field(default=None, compare=False)
    revalidates: float = field(default=0.0, compare=False)
    stands_in: float = field(default=0.0, compare=False)
    names: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What one cache did in this process since it was made.

    Args:
        hits: Reads answered from a tier.
        misses: Reads that found nothing fresh.
        stale: Reads answered past the ttl, while the value is loaded anew or because its source failed.
        loads: Loaders run to their end.
        load_errors: Loaders that failed.
        stores: Values stored.
        refused: Stores refused since the key had been changed after the load began.
        refreshes: Loads begun in the background, while readers are served what there is.
        early: Those of them that began before the ttl was over.
        waits: Reads that waited for a load of another caller, in this process or in another.
        unreadable: Entries that counted as a miss because they could not be read.
        unreachable: Operations the shared tier did not answer, or that were not sent since it is away.
        journal: Keys that changed while the shared tier was away and are still to be deleted there.
        state: ``up`` or ``down``.
        local_hits: Those of the hits that were answered from this process's memory, without a step outside.
        local_entries: Entries that this process keeps now.
        local_bytes: Bytes that these count for.
    """

    hits: int = 0
    misses: int = 0
    stale: int = 0
    loads: int = 0
    load_errors: int = 0
    stores: int = 0
    refused: int = 0
    refreshes: int = 0
    early: int = 0
    waits: int = 0
    unreadable: int = 0
    unreachable: int = 0
    journal: int = 0
    state: Literal["up", "down"] = "up"
    local_hits: int = 0
    local_entries: int = 0
    local_bytes: int = 0

    @property
    def hit_ratio(self) -> float:
        """The part of reads answered from a tier; 0 before the first read."""
        reads = self.hits + self.stale + self.misses
        return (self.hits + self.stale) / reads if reads else 0.0


class Counts:
    """Counters that threads may share.

    What happens at every hit, and at every load, is counted by one step of an `itertools.count`, which is atomic and
    takes no lock; the rest by `add`.
    """

    hit: Callable[[], int]
    """Counts a hit."""
    miss: Callable[[], int]
    """Counts a miss."""
    load: Callable[[], int]
    """Counts a loader that ran to its end."""
    store: Callable[[], int]
    """Counts a value that was stored."""

    def __init__(self) -> None:
        self._lock = fork_safe_lock()
        self.reset()

    def reset(self) -> None:
        """Start from zero."""
        self.hit, self.miss, self.load, self.store = (itertools.count().__next__ for _ in range(4))
        self._steps = {"hits": self.hit, "misses": self.miss, "loads": self.load, "stores": self.store}
        self._looks = 0
        self._values: dict[str, int] = {}

    def add(self, name: str, amount: int = 1) -> None:
        """Count."""
        with self._lock:
            self._values[name] = self._values.get(name, 0) + amount

    def read(self) -> dict[str, Any]:
        """What was counted so far."""
        with self._lock:
            found = dict(self._values)
            for name, step in self._steps.items():
                found[name] = found.get(name, 0) + step() - self._looks  # looking is a step too
            self._looks += 1
            return found


class Store(Protocol):
    """Where entries are kept. Keys are text, entries are bytes, lives are milliseconds.

    ``failures`` are the exceptions that mean "it did not answer".
    """

    local: bool
    failures: tuple[type[BaseException], ...]

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key, in order."""
        ...

    def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        """Store entries with one life, whatever was there."""
        ...

    def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> tuple[bytes | None, float] | None:
        """Begin to load, in one step.

        Where nothing is, or what is there still begins as ``seen``, put the header there for so long and return
        ``None``: the caller is to load. A header that is no lease is written over that of the value that was seen,
        which keeps its body and stays for so long at least. Otherwise return what is there and for how many seconds;
        where it says that somebody loads, the byte is set that says that somebody waits.
        """
        ...

    def get_or_claim(self, keys: Sequence[str], header: bytes, life: int) -> tuple[list[bytes | None], bool]:
        """What `get_many` gives; and where nothing is under the first key, begin to load it, with that header.

        The look comes first; something else may change the key between the two. Returns also whether it was claimed:
        what was found is worth the same where the claim alone is refused.
        """
        ...

    def claim_many(self, claims: Sequence[Claim]) -> list[tuple[bytes | None, float] | None]:
        """Begin to load several, each in one step."""
        ...

    def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        """Store (or with ``None`` delete) only if what is there still begins as ``expected``; ``None`` is absence.

        A life of 0 writes a header over that of a value. Whoever waits for the lease that is expected is woken. A value
        with a version goes over none with a higher one: then what is there stays, and is loaded by nobody any more.
        """
        ...

    def write_versioned(self, key: str, fence: bytes | None, raw: bytes, life: int, lease: int) -> int:
        """End a write whose value has a version, in one step: of two values the one with the higher version stays.

        Where the writer's own fence stands (``None``: it had none) the value is stored, unless another writer left a
        newer one in that fence; then that one is, for one lease. In the fence of another writer it is left, if it is
        newer than what was left there. Over a value with a version it is stored if it is not older, for one lease at
        most. Over anything else it is stored only without a fence. Returns a `Written`.
        """
        ...

    def swap_many(self, swaps: Sequence[Swap]) -> list[bool]:
        """The same for several, each in one step."""
        ...

    def wait(self, key: str, token: int, seconds: float) -> None:
        """Until somebody ends the lease with that token; so many seconds at most. It may return early."""
        ...

    def exchange_many(self, marks: Mapping[str, bytes], life: int) -> list[bytes | None]:
        """Store marks with one life, each in one step, and return what was there, in order.

        A mark is a tombstone, a fence or a stamp: it says that what was there is not to be served any more. So that is
        gone afterwards in any case; where there is no room for the mark, it makes room.
        """
        ...

    def close(self) -> None:
        """Let go of connections made for this store."""
        ...


class AsyncStore(Protocol):
    """The async face of `Store`, method for method."""

    local: bool
    failures: tuple[type[BaseException], ...]

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See `Store.get_many`."""
        ...

    async def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        """See `Store.put_many`."""
        ...

    async def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> tuple[bytes | None, float] | None:
        """See `Store.claim`."""
        ...

    async def get_or_claim(self, keys: Sequence[str], header: bytes, life: int) -> tuple[list[bytes | None], bool]:
        """See `Store.get_or_claim`."""
        ...

    async def claim_many(self, claims: Sequence[Claim]) -> list[tuple[bytes | None, float] | None]:
        """See `Store.claim_many`."""
        ...

    async def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        """See `Store.swap`."""
        ...

    async def write_versioned(self, key: str, fence: bytes | None, raw: bytes, life: int, lease: int) -> int:
        """See `Store.write_versioned`."""
        ...

    async def swap_many(self, swaps: Sequence[Swap]) -> list[bool]:
        """See `Store.swap_many`."""
        ...

    async def wait(self, key: str, token: int, seconds: float) -> None:
        """See `Store.wait`."""
        ...

    async def exchange_many(self, marks: Mapping[str, bytes], life: int) -> list[bytes | None]:
        """See `Store.exchange_many`."""
        ...

    async def aclose(self) -> None:
        """See `Store.close`."""
        ...


def is_store(given: object) -> bool:
    """Whether it is meant to keep entries: no address and no client of a server can `claim` a key."""
    return hasattr(given, "claim")


def checked_store(given: T, protocol: type) -> T:
    """What is to keep entries.

    Args:
        given: What the user gave.
        protocol: What it must be, `Store` or `AsyncStore`.

    Raises:
        ConfigurationError: It is no store, or a part of it is missing.
    """
    parts = [*protocol.__annotations__, *(name for name in vars(protocol) if name[0] != "_")]
    missing = [name for name in parts if not hasattr(given, name)]
    if missing and not is_store(given):
        raise ConfigurationError(
            f"a {type(given).__name__} cannot keep entries", advice="pass a cache or a store, as in use(MemoryCache())"
        )
    if missing:
        raise ConfigurationError(
            f"a {type(given).__name__} cannot keep entries: it has no {', '.join(missing)}",
            advice=f"give it every part of resilient.cache.{protocol.__name__}",
        )
    return given
