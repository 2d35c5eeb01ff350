"""The parts of the work, put together: what each needs it is given."""

from __future__ import annotations

from resilient.cache._async.engine.bulk import AsyncBulk
from resilient.cache._async.engine.commits import AsyncCommits
from resilient.cache._async.engine.counters import AsyncCounters
from resilient.cache._async.engine.leases import AsyncLeases
from resilient.cache._async.engine.loads import AsyncLoads
from resilient.cache._async.engine.reads import AsyncReader
from resilient.cache._async.engine.source import AsyncSource
from resilient.cache._async.engine.tags import AsyncTags
from resilient.cache._async.engine.tier import AsyncTier
from resilient.cache._async.engine.writes import AsyncWrites
from resilient.cache._values import Counts
from resilient.clock import Clock

__all__ = ["AsyncEngine"]


class AsyncEngine:
    """Reads, loads and writes of one cache over one store. It does what `AsyncWork` says, each by the part for it.

    Args:
        name: The cache's namespace, for events.
        tier: The guarded store.
        lease: Seconds that a lease, a tombstone or a fence lasts.
        clock: Where time is read.
        counts: Where reads, loads and stores are counted.
        max_loads: How many loads run at once; ``None`` bounds only those in the background, and those while the shared
            tier is away.
    """

    def __init__(
        self, name: str, tier: AsyncTier, *, lease: float, clock: Clock, counts: Counts, max_loads: int | None = None
    ) -> None:
        self.tier = tier
        self.reads = reads = AsyncReader(name, tier, lease=lease, clock=clock, counts=counts)
        self.stampbook = reads.stampbook
        self.leases = leases = AsyncLeases(reads, max_loads)
        source = AsyncSource(reads, leases)
        self.loads = loads = AsyncLoads(reads, leases, source)
        self.bulk = bulk = AsyncBulk(reads, leases, source, loads)
        self.writes = writes = AsyncWrites(reads)
        self.commits = AsyncCommits(reads, writes)
        self.counters = counters = AsyncCounters(reads, writes)
        self.tags = tags = AsyncTags(reads)
        # What the face calls: bound here, since it is on the way of every hit.
        self.lookup, self.get_many = reads.lookup, reads.get_many
        self.load, self.load_lookup, self.load_many = loads.load, loads.load_lookup, bulk.load_many
        self.entry, self.put, self.put_many, self.add = writes.entry, writes.put, writes.put_many, writes.add
        self.invalidate, self.write = writes.invalidate, writes.write
        self.incr, self.touch = counters.incr, counters.touch
        self.invalidate_tags, self.clear = tags.invalidate, tags.clear

    def reset(self) -> None:
        """Forget what other threads do: for a forked child, where they do not exist."""
        self.reads.reset()

    async def close(self) -> None:
        """Begin no more loads in the background, and tell the store what it was not told yet, if it answers."""
        await self.leases.close()
        await self.tier.close()
