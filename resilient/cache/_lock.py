"""A lock of all processes that use a cache: a lease that no value follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient.cache._entry import LEASE, TOKEN, marker
from resilient.cache._seen import milliseconds
from resilient.cache._sync.engine.tier import UNREACHABLE
from resilient.errors import DeadlineExceeded

if TYPE_CHECKING:
    from resilient.cache._sync.cache import Cache

__all__ = ["Lock"]

_LOOK = 1.0  # seconds after which one who waits looks for himself


class Lock:
    """A lock on the cache's server. It keeps processes apart; their threads must be kept apart before.

    While the server is away everybody gets it: it spares work, and is no safeguard of anything else.

    Args:
        cache: Where it stands.
        name: What tells it from others.
        life: Seconds after which it goes by itself, should its holder die.
    """

    def __init__(self, cache: Cache, name: str, life: float) -> None:
        self._tier = cache.main.tier
        self._clock = cache.clock
        self._key = cache.physical(f"lock:{name}")
        self._life = life
        self._mine: bytes | None = None

    def acquire(self, *, wait: bool) -> bool:
        """Take it. Whether it was taken; it always is where one waits. Raises DeadlineExceeded."""
        header = marker(LEASE, self._clock.wall(), self._life)
        while True:
            found = self._tier.run(self._tier.store.claim, self._key, None, header, milliseconds(self._life))
            if found is UNREACHABLE:
                return True
            if found is None:
                self._mine = header
                return True
            raw, seconds = found
            if not wait:
                return False
            if raw is not None:
                held = int.from_bytes(raw[TOKEN], "big")
                self._tier.run(self._tier.store.wait, self._key, held, min(seconds, _LOOK))

    def release(self) -> None:
        """Give it back, and wake one who waits for it. Where there is no time left for that it goes by itself."""
        mine, self._mine = self._mine, None
        try:
            if mine is not None:
                self._tier.run(self._tier.store.swap, self._key, mine, None, 0)
        except DeadlineExceeded:
            return

    def held(self) -> bool:
        """Whether some process holds it. Raises DeadlineExceeded."""
        found = self._tier.run(self._tier.store.get_many, [self._key])
        return found is not UNREACHABLE and found[0] is not None
