"""The work behind the face: reading, loading and writing over one tier."""

from __future__ import annotations

from resilient.cache._async.bulk import AsyncBulk
from resilient.cache._async.counters import AsyncCounters
from resilient.cache._async.tagging import AsyncTagging
from resilient.cache._async.transactions import AsyncTransactions

__all__ = ["AsyncEngine"]


class AsyncEngine(AsyncBulk, AsyncTransactions, AsyncTagging, AsyncCounters):
    """Reads, loads and writes of one cache; see its bases."""
