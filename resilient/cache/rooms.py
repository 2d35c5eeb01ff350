"""The door for the other rooms of this library: what they use of the cache beside what its users do.

Nothing here is promised to users: it changes when those rooms do.
"""

from resilient.cache._codecs import ANYTHING, Codec, CodecChoice, Secret, Settings
from resilient.cache._entry import Entry, Unreadable
from resilient.cache._lock import Lock
from resilient.cache._memory import Table
from resilient.cache._pending import Changes
from resilient.cache._refusals import Refusals
from resilient.cache._seen import Fence
from resilient.cache._stamps import UNKNOWN, is_ours
from resilient.cache._sync.deferred import After, deferring
from resilient.cache._values import AsyncLoader, Loader

__all__ = [
    "ANYTHING",
    "UNKNOWN",
    "After",
    "AsyncLoader",
    "Changes",
    "Codec",
    "CodecChoice",
    "Entry",
    "Fence",
    "Loader",
    "Lock",
    "Refusals",
    "Secret",
    "Settings",
    "Table",
    "Unreadable",
    "deferring",
    "is_ours",
]
