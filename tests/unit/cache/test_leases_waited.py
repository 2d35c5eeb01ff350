"""Who waits for a load of another process: its holder has heard of it, and wakes him."""

from __future__ import annotations

import time
from typing import Any

from resilient.cache import Cache, MemoryStore
from resilient.cache._entry import LEASE, WAITED, marker
from resilient.cache._stamps import namespace_key, number

LASTS = 6.0


class Moving(MemoryStore):
    """A store in which, at the next claim, others clear the namespace and begin to load, one after the other."""

    local = False
    moves = False
    waited = -1
    """What the lease that is waited for says: whether somebody waits."""

    def _begin(self, key: str) -> None:
        stamp = number(self.get_many([namespace_key("n")])[0])
        self.put_many({key: marker(LEASE, time.time(), LASTS, generation=stamp)}, int(LASTS * 1000))

    def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> Any:
        if not self.moves:
            return super().claim(key, seen, header, life)
        self.moves = False
        Cache(self, namespace="n").clear()
        self._begin(key)
        answer = super().claim(key, seen, header, life)
        self._begin(key)
        return answer

    def wait(self, key: str, token: int, seconds: float) -> None:
        assert token
        assert seconds
        lease = self.get_many([key])[0]
        assert lease is not None
        self.waited = lease[WAITED]
        self.swap(key, lease, None, 0)


def test_nobody_waits_for_who_has_not_heard_of_it() -> None:
    """A lease that a second look finds may be another than the claim has met; its holder would wake nobody."""
    store = Moving()
    cache = Cache(store, namespace="n", ttl=300, lease=LASTS)
    assert cache.get_or_load("other", lambda: "new") == "new"
    store.moves = True
    assert cache.get_or_load("k", lambda: "new") == "new"
    assert store.waited == 1
    cache.close()
