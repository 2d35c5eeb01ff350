"""Lazy loading and write-through over Redis or Valkey, or in this process.

`Cache` is the sync face and `AsyncCache` the async one; both do the same:

    cache = Cache("redis://127.0.0.1:6379/0", namespace="shop", ttl=300)

    @cache.lazy("user:{user_id}", ttl=300, negative_ttl=30, stale_if_error=3600)
    def get_user(user_id: int) -> User: ...

    @cache.write_through("user:{user_id}")
    def save_user(user_id: int, values: dict) -> User: ...

The server may die at any time: then values come from their loaders, and what changed meanwhile is deleted on the server
before it is trusted again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient.exports import loaded_when_used

if TYPE_CHECKING:
    from resilient.cache._async.cache import AsyncCache
    from resilient.cache._async.functions import AsyncLazy, AsyncWriter
    from resilient.cache._async.leaderboard import AsyncLeaderboard
    from resilient.cache._async.refresher import AsyncRefresher
    from resilient.cache._async.stores import AsyncMemoryStore, AsyncRedisStore
    from resilient.cache._async.write_behind import AsyncWriteBehind
    from resilient.cache._board import Ranked
    from resilient.cache._codecs import ValueCodec
    from resilient.cache._events import (
        CacheDown,
        CacheRead,
        CacheRefused,
        CacheUp,
        ChangesUntold,
        EntryUnreadable,
        LoadFailed,
        ValueRefused,
        WritesLost,
    )
    from resilient.cache._local import Local
    from resilient.cache._sync.cache import Cache
    from resilient.cache._sync.functions import Lazy, Writer
    from resilient.cache._sync.leaderboard import Leaderboard
    from resilient.cache._sync.refresher import Refresher
    from resilient.cache._sync.stores import MemoryStore, RedisStore
    from resilient.cache._sync.write_behind import WriteBehind
    from resilient.cache._values import AsyncStore, CacheStats, Lookup, Store

_HOMES = {
    "AsyncCache": "resilient.cache._async.cache",
    "AsyncLazy": "resilient.cache._async.functions",
    "AsyncLeaderboard": "resilient.cache._async.leaderboard",
    "AsyncMemoryStore": "resilient.cache._async.stores",
    "AsyncRedisStore": "resilient.cache._async.stores",
    "AsyncRefresher": "resilient.cache._async.refresher",
    "AsyncStore": "resilient.cache._values",
    "AsyncWriteBehind": "resilient.cache._async.write_behind",
    "AsyncWriter": "resilient.cache._async.functions",
    "Cache": "resilient.cache._sync.cache",
    "CacheDown": "resilient.cache._events",
    "CacheRead": "resilient.cache._events",
    "CacheRefused": "resilient.cache._events",
    "CacheStats": "resilient.cache._values",
    "CacheUp": "resilient.cache._events",
    "ChangesUntold": "resilient.cache._events",
    "EntryUnreadable": "resilient.cache._events",
    "Lazy": "resilient.cache._sync.functions",
    "Leaderboard": "resilient.cache._sync.leaderboard",
    "LoadFailed": "resilient.cache._events",
    "Local": "resilient.cache._local",
    "Lookup": "resilient.cache._values",
    "MemoryStore": "resilient.cache._sync.stores",
    "Ranked": "resilient.cache._board",
    "RedisStore": "resilient.cache._sync.stores",
    "Refresher": "resilient.cache._sync.refresher",
    "Store": "resilient.cache._values",
    "ValueCodec": "resilient.cache._codecs",
    "ValueRefused": "resilient.cache._events",
    "WriteBehind": "resilient.cache._sync.write_behind",
    "Writer": "resilient.cache._sync.functions",
    "WritesLost": "resilient.cache._events",
}
"""Where each name stands. It is loaded when it is first used: who needs one face does without the other, and without
what stands beside them."""

__all__ = [
    "AsyncCache",
    "AsyncLazy",
    "AsyncLeaderboard",
    "AsyncMemoryStore",
    "AsyncRedisStore",
    "AsyncRefresher",
    "AsyncStore",
    "AsyncWriteBehind",
    "AsyncWriter",
    "Cache",
    "CacheDown",
    "CacheRead",
    "CacheRefused",
    "CacheStats",
    "CacheUp",
    "ChangesUntold",
    "EntryUnreadable",
    "Lazy",
    "Leaderboard",
    "LoadFailed",
    "Local",
    "Lookup",
    "MemoryStore",
    "Ranked",
    "RedisStore",
    "Refresher",
    "Store",
    "ValueCodec",
    "ValueRefused",
    "WriteBehind",
    "Writer",
    "WritesLost",
]

if not TYPE_CHECKING:  # which knows the names
    __getattr__, __dir__ = loaded_when_used(globals(), _HOMES)
