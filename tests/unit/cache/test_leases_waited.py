"""Who waits for a load of another process: its holder has heard of it, and wakes him."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from resilient.cache import AsyncCache, AsyncMemoryStore, Cache, MemoryStore
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


class Frozen(MemoryStore):
    """A store that takes what it is told first, as a server that freezes does in the end, and loses what follows."""

    local = False
    failures = (ConnectionError,)
    frozen = False

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[str] = []
        self.lost_all = threading.Event()

    def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> Any:
        done = super().claim(key, seen, header, life)
        if self.frozen:
            raise ConnectionError
        return done

    def get_or_claim(self, keys: Any, header: bytes, life: int) -> Any:
        done = super().get_or_claim(keys, header, life)
        if self.frozen:
            raise ConnectionError
        return done

    def swap_many(self, swaps: Any) -> list[bool]:
        if self.frozen:
            self.lost += [key for key, *_ in swaps]
            if len(self.lost) == 2:
                self.lost_all.set()
            raise ConnectionError
        return super().swap_many(swaps)


@pytest.mark.parametrize("ahead", [False, True], ids=["after the look", "with the look"])
def test_a_claim_is_given_back_once_a_frozen_server_answers_again(ahead: bool) -> None:
    """However often that was tried in vain meanwhile, other processes do not wait for the end of the lease."""
    store, lasts = Frozen(), 60.0
    mine, theirs = (Cache(store, namespace="n", ttl=300, lease=lasts) for _ in range(2))
    for count in range(20 if ahead else 1):
        assert mine.get_or_load(f"other {count}", lambda: "new") == "new"
    store.frozen = True
    assert mine.get_or_load("k", lambda: "mine") == "mine"
    assert store.lost_all.wait(20)
    store.frozen = False
    began = time.monotonic()
    assert theirs.get_or_load("k", lambda: "theirs") == "theirs"
    assert time.monotonic() - began < lasts / 2
    mine.close()


class Slow(AsyncMemoryStore):
    """A store that never takes the first end of a load."""

    local = False

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def swap_many(self, swaps: Any) -> list[bool]:
        if not self.asked.is_set():
            self.asked.set()
            await asyncio.Event().wait()
        return await super().swap_many(swaps)


@pytest.mark.parametrize("closes", [False, True], ids=["goes on", "closes"])
def test_a_lease_is_given_back_by_who_is_cancelled_while_he_gives_it_back(closes: bool) -> None:
    """It is given back a moment later, or when the cache is closed."""

    async def main() -> None:
        store, lasts, begun = Slow(), 60.0, asyncio.Event()
        mine, theirs = (AsyncCache(store, namespace="n", ttl=300, lease=lasts) for _ in range(2))

        async def forever() -> str:
            begun.set()
            await asyncio.Event().wait()
            return "mine"

        async def load() -> str:
            return "theirs"

        task = asyncio.create_task(mine.get_or_load("k", forever))
        for reached in (begun, store.asked):
            await reached.wait()
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        if closes:
            await mine.main.leases.close()
        began = time.monotonic()
        assert await theirs.get_or_load("k", load) == "theirs"
        assert time.monotonic() - began < lasts / 2
        await mine.aclose()

    asyncio.run(main())
