# Generated from resilient/cache/_async/stores.py by tools/unasync.py: do not edit.
"""Where entries are kept: a Redis server, or this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resilient.cache._memory import Table
from resilient.clock import SYSTEM, Clock

if TYPE_CHECKING:
    from resilient.wire.redis import Connector

__all__ = ["MemoryStore", "RedisStore"]

_HEAD = 36  # bytes of an entry that suffice to tell it from every other: the header bears a random stamp

# One step on the server, on one key: replace or delete what is there, if it is still what was seen.
_SWAP = """
local seen = redis.call('GET', KEYS[1])
if not seen or string.sub(seen, 1, string.len(ARGV[1])) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""


class MemoryStore:
    """Entries in this process: bounded, and gone with it.

    Args:
        size: How many entries at most; the least recently used goes first.
        clock: Where time is read.

    Examples:
        >>> import asyncio
        >>> store = MemoryStore(size=100)
        >>> store.put("k", b"v", life=1000)
        >>> store.get("k")
        b'v'
    """

    local: bool = True
    failures: tuple[type[BaseException], ...] = ()

    def __init__(self, size: int = 10_000, *, clock: Clock = SYSTEM) -> None:
        self.table = Table(size, clock)

    def get(self, key: str) -> bytes | None:
        """The bytes under a key."""
        return self.table.get_many((key,))[0]

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key, in order."""
        return self.table.get_many(keys)

    def put(self, key: str, raw: bytes, life: int) -> None:
        """Store, whatever was there."""
        self.table.put_many({key: raw}, life)

    def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        """Store several with one life."""
        self.table.put_many(entries, life)

    def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        """Store or delete only if what is there still begins as expected; ``None`` expects nothing there."""
        return self.table.swap(key, expected and expected[:_HEAD], raw, life)

    def exchange(self, key: str, raw: bytes, life: int) -> bytes | None:
        """Store, and return what was there."""
        return self.table.exchange(key, raw, life)

    def bury(self, keys: Sequence[str], raw: Sequence[bytes], life: int) -> list[bytes | None]:
        """Store tombstones, and return what was there."""
        return [self.table.exchange(key, mark, life) for key, mark in zip(keys, raw, strict=True)]

    def close(self) -> None:
        """Forget everything."""
        self.table.clear()


class RedisStore:
    """Entries on a Redis or Valkey server, single or clustered.

    Args:
        connector: The connection, from `resilient.wire.redis`.
    """

    local: bool = False

    def __init__(self, connector: Connector) -> None:
        import redis

        self.failures: tuple[type[BaseException], ...] = (redis.RedisError, OSError)
        self._refusals = redis.ResponseError
        self._watch_error = redis.WatchError
        self._connector = connector
        self._scripts = True

    def get(self, key: str) -> bytes | None:
        """The bytes under a key."""
        found: bytes | None = self._connector.get().get(key)
        return found

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key, in order."""
        client = self._connector.get()
        read = getattr(client, "mget_nonatomic", client.mget)  # a cluster's keys live on several servers
        found: list[bytes | None] = read(keys)
        return found

    def put(self, key: str, raw: bytes, life: int) -> None:
        """Store, whatever was there."""
        self._connector.get().set(key, raw, px=life)

    def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        """Store several with one life, in one round trip."""
        pipeline = self._connector.get().pipeline(transaction=False)
        for key, raw in entries.items():
            pipeline.set(key, raw, px=life)
        pipeline.execute()

    def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        """Store or delete only if what is there still begins as expected; ``None`` expects nothing there."""
        client = self._connector.get()
        if expected is None:
            return raw is None or bool(client.set(key, raw, px=life, nx=True))
        head = expected[:_HEAD]
        if self._scripts:
            try:
                return bool(client.eval(_SWAP, 1, key, head, raw or b"", life))
            except self._refusals as error:
                if "unknown command" not in str(error).lower():
                    raise
                self._scripts = False  # some fakes and proxies have no scripts
        return self._swap_watched(client, key, head, raw, life)

    def _swap_watched(self, client: Any, key: str, head: bytes, raw: bytes | None, life: int) -> bool:
        """The same as the script does, in more round trips."""
        with client.pipeline(transaction=True) as pipeline:
            pipeline.watch(key)
            seen = pipeline.get(key)
            if seen is None or seen[: len(head)] != head:
                return False
            pipeline.multi()
            if raw is None:
                pipeline.delete(key)
            else:
                pipeline.set(key, raw, px=life)
            try:
                pipeline.execute()
            except self._watch_error:
                return False
            return True

    def exchange(self, key: str, raw: bytes, life: int) -> bytes | None:
        """Store, and return what was there."""
        before: bytes | None = self._connector.get().set(key, raw, px=life, get=True)
        return before

    def bury(self, keys: Sequence[str], raw: Sequence[bytes], life: int) -> list[bytes | None]:
        """Store tombstones, and return what was there; a server that has no room for them can still delete."""
        try:
            if len(keys) == 1:
                return [self.exchange(keys[0], raw[0], life)]
            pipeline = self._connector.get().pipeline(transaction=False)
            for key, mark in zip(keys, raw, strict=True):
                pipeline.set(key, mark, px=life, get=True)
            before: list[bytes | None] = pipeline.execute()
        except self._refusals:
            for key in keys:
                self._connector.get().delete(key)
            return [None] * len(keys)
        return before

    def close(self) -> None:
        """Close the connections, if they were made for this store."""
        self._connector.close()
