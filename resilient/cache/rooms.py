"""The door for the other rooms of this library: what they use of the cache beside what its users do.

Nothing here is promised to users: it changes when those rooms do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient.exports import loaded_when_used

if TYPE_CHECKING:
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

_HOMES = {
    "ANYTHING": "resilient.cache._codecs",
    "After": "resilient.cache._sync.deferred",
    "AsyncLoader": "resilient.cache._values",
    "Changes": "resilient.cache._pending",
    "Codec": "resilient.cache._codecs",
    "CodecChoice": "resilient.cache._codecs",
    "Entry": "resilient.cache._entry",
    "Fence": "resilient.cache._seen",
    "Loader": "resilient.cache._values",
    "Lock": "resilient.cache._lock",
    "Refusals": "resilient.cache._refusals",
    "Secret": "resilient.cache._codecs",
    "Settings": "resilient.cache._codecs",
    "Table": "resilient.cache._memory",
    "UNKNOWN": "resilient.cache._stamps",
    "Unreadable": "resilient.cache._entry",
    "deferring": "resilient.cache._sync.deferred",
    "is_ours": "resilient.cache._stamps",
}
"""Where each name stands; it is loaded when it is first used."""

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

if not TYPE_CHECKING:  # which knows the names
    __getattr__, __dir__ = loaded_when_used(globals(), _HOMES)
