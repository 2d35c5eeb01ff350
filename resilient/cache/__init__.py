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
