# Generated from resilient/cache/_async/engine/engine.py by tools/unasync.py: do not edit.
"""The parts of the work, put together: what each needs it is given."""

from __future__ import annotations

from resilient.cache._sync.engine.bulk import Bulk
from resilient.cache._sync.engine.commits import Commits
from resilient.cache._sync.engine.counters import Counters
from resilient.cache._sync.engine.leases import Leases
from resilient.cache._sync.engine.loads import Loads
from resilient.cache._sync.engine.reads import Reader
from resilient.cache._sync.engine.source import Source
from resilient.cache._sync.engine.tags import Tags
from resilient.cache._sync.engine.tier import Tier
from resilient.cache._sync.engine.writes import Writes
from resilient.cache._values import Counts
from resilient.clock import Clock

__all__ = ["Engine"]


class Engine:
    """Reads, loads and writes of one cache over one store. It does what `Work` says, each by the part for it.

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
        self, name: str, tier: Tier, *, lease: float, clock: Clock, counts: Counts, max_loads: int | None = None
    ) -> None:
        self.tier = tier
        self.reads = reads = Reader(name, tier, lease=lease, clock=clock, counts=counts)
        self.stampbook = reads.stampbook
        self.leases = leases = Leases(reads, max_loads)
        source = Source(reads, leases)
        self.loads = loads = Loads(reads, leases, source)
        self.bulk = bulk = Bulk(reads, leases, source, loads)
        self.writes = writes = Writes(reads)
        self.commits = Commits(reads, writes)
        self.counters = counters = Counters(reads, writes)
        self.tags = tags = Tags(reads)
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

    def close(self) -> None:
        """Begin no more loads in the background, and tell the store what it was not told yet, if it answers."""
        self.leases.close()
        self.tier.close()
