"""Sharded writes: rows of different keys in different databases, used as one.

>>> from resilient.storage.shards import ShardMap, ShardSet
>>> shards = ShardSet({"a": "sqlite://", "b": "sqlite://"})
>>> shards.create(ShardMap.hashed(["a", "b"])).shard_for(42)
'b'
>>> shards.close()
"""

from resilient.wire import sql as _sql  # noqa: F401 - first, so that a missing SQLAlchemy is told as a missing extra

# isort: split
from resilient.storage.shards._events import Gathered, ShardMissing
from resilient.storage.shards._gather import GatherResult, GatherSession
from resilient.storage.shards._map import Key, Layout, ShardMap, bucket_of
from resilient.storage.shards._set import Replicated, ShardSet, ShardStatus

__all__ = [
    "GatherResult",
    "GatherSession",
    "Gathered",
    "Key",
    "Layout",
    "Replicated",
    "ShardMap",
    "ShardMissing",
    "ShardSet",
    "ShardStatus",
    "bucket_of",
]
