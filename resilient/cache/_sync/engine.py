# Generated from resilient/cache/_async/engine.py by tools/unasync.py: do not edit.
"""The work behind the face: reading, loading and writing over one tier."""

from __future__ import annotations

from resilient.cache._sync.bulk import Bulk
from resilient.cache._sync.counters import Counters
from resilient.cache._sync.tagging import Tagging
from resilient.cache._sync.transactions import Transactions

__all__ = ["Engine"]


class Engine(Bulk, Transactions, Tagging, Counters):
    """Reads, loads and writes of one cache; see its bases."""
