"""The in-process half of the cloud resilience patterns.

Caches, read replicas, shards, uploads, queues and health checks that stay correct and fast while parts of them fail,
over one layer of policies. The names used most are here; each is loaded when it is first used, so that importing this
package loads no other.

    >>> import resilient
    >>> resilient.deadline
    <...>
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient.exports import loaded_when_used

if TYPE_CHECKING:
    from resilient.cache import AsyncCache, Cache
    from resilient.health import Health
    from resilient.policy import Breaker, Bulkhead, Pipeline, Retry, deadline
    from resilient.queue import Consumer, Queue
    from resilient.storage.objects import Bucket, UploadPolicy
    from resilient.storage.replicas import ReplicaSet
    from resilient.storage.shards import ShardMap, ShardSet

__version__ = "0.1.0"

_HOMES = {
    "AsyncCache": "resilient.cache",
    "Breaker": "resilient.policy",
    "Bucket": "resilient.storage.objects",
    "Bulkhead": "resilient.policy",
    "Cache": "resilient.cache",
    "Consumer": "resilient.queue",
    "Health": "resilient.health",
    "Pipeline": "resilient.policy",
    "Queue": "resilient.queue",
    "ReplicaSet": "resilient.storage.replicas",
    "Retry": "resilient.policy",
    "ShardMap": "resilient.storage.shards",
    "ShardSet": "resilient.storage.shards",
    "UploadPolicy": "resilient.storage.objects",
    "deadline": "resilient.policy",
}

__all__ = [
    "AsyncCache",
    "Breaker",
    "Bucket",
    "Bulkhead",
    "Cache",
    "Consumer",
    "Health",
    "Pipeline",
    "Queue",
    "ReplicaSet",
    "Retry",
    "ShardMap",
    "ShardSet",
    "UploadPolicy",
    "__version__",
    "deadline",
]


if not TYPE_CHECKING:  # which knows the names
    __getattr__, __dir__ = loaded_when_used(globals(), _HOMES)
