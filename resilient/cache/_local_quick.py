"""The way of every local hit: from the arguments of a call to its value, without a step that could wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from resilient import events
from resilient.cache._events import CacheRead
from resilient.cache._local_keys import KeyOf
from resilient.cache._local_tier import LocalTier
from resilient.cache._quick import NOTHING

__all__ = ["Quick", "quick"]

Quick: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def quick(tier: LocalTier, key_of: KeyOf, owner: object, aside: Callable[[], Any], inside: Callable[[], Any]) -> Quick:
    """What gives the value of a call where it is kept in this process and right, and `NOTHING` anywhere else.

    Args:
        tier: Where it may be kept.
        key_of: Makes the key of a call.
        owner: Who has judged the value.
        aside: What is true where the cache is bypassed.
        inside: What is true where changes are collected for a commit.
    """
    table, monotonic, wanted = tier.table, tier.clock.monotonic, events.wanted

    def value(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        slot = table.get(key_of(args, kwargs))
        if slot is None or slot.owner is not owner:
            return NOTHING
        now = monotonic()
        if now >= slot.until or now >= tier.until or aside() or inside() or wanted(CacheRead):
            return NOTHING
        for mark in slot.marks:
            if not mark.alive:
                return NOTHING
        slot.hot = True
        tier.hit()
        read = slot.read
        return slot.value if read is None else read(slot.data[slot.at :])

    return value
