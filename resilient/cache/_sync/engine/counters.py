# Generated from resilient/cache/_async/engine/counters.py by tools/unasync.py: do not edit.
"""Changing a value where it is: counting, and giving it a longer life."""

from __future__ import annotations

import random
from typing import Any

from resilient.cache._entry import FAILED, NEGATIVE, Life, new_token, pack
from resilient.cache._freshness import Policy
from resilient.cache._seen import Plan, Seen, is_fenced, milliseconds
from resilient.cache._sync.engine.reads import Reader
from resilient.cache._sync.engine.tier import UNREACHABLE
from resilient.cache._sync.engine.writes import Writes
from resilient.errors import InvalidInput, Overloaded

__all__ = ["Counters"]

_TRIES = 200  # each time, somebody else was quicker: of so many at once one is the last


class _Unread:
    """A codec for who asks whether a value stands, and not for the value: of whatever type it is."""

    def decode(self, number: int, schema: int, body: bytes) -> None:
        """Nothing."""


_UNREAD: Any = _Unread()


class Counters:
    """Read, change, and store only if nobody else has changed it since.

    Args:
        reader: What is read, and how.
        writes: What makes entries.
    """

    def __init__(self, reader: Reader, writes: Writes) -> None:
        self._reader, self._writes = reader, writes
        self._tier, self._stampbook, self._flights = reader.tier, reader.stampbook, reader.flights
        self._clock, self._name = reader.clock, reader.name

    def incr(self, key: str, by: int, plan: Plan) -> int | None:
        """Add to a number; one that is not there, or a value that is no longer fresh, is 0.

        Raises:
            InvalidInput: The value is no whole number.
            Overloaded: Others changed it again and again in between.
        """
        self._flights.overtake(key)
        for _ in range(_TRIES):
            seen = self._reader.look(key, plan.codec, plan.tags)
            if seen.raw is UNREACHABLE or is_fenced(seen):
                return None
            before = _number(seen)
            number = by if before is None else before + by
            done = self._recount(key, seen, number, plan, fresh=before is None)
            if done is UNREACHABLE:
                return None
            if done:
                self._tier.tell((key,))
                return number
        raise Overloaded(
            f"a counter of the cache {self._name!r} was changed {_TRIES} times by others before it could be",
            advice="spread the count over several keys and add them up",
        )

    def _recount(self, key: str, seen: Seen, number: int, plan: Plan, *, fresh: bool) -> Any:
        entry = self._writes.entry(number, plan)
        if fresh or seen.entry is None:
            entry = (self._stampbook.ensured(seen.stamps, entry.keep)).on(entry)
            if not entry.generation:
                return UNREACHABLE  # nobody could read it
            life = entry.keep
        else:
            old, now = seen.entry, self._clock.wall()
            # Its stamps, its tags and its end stay: it is the same value, counted on.
            entry = old._replace(body=entry.body, codec=entry.codec, schema=entry.schema, token=new_token(), version=0)
            life = entry.keep - entry.age(now)
        return self._tier.run(self._tier.store.swap, key, seen.raw, pack(entry), milliseconds(life))

    def touch(self, key: str, policy: Policy) -> bool:
        """Give a value a new ttl from now on. Whether there was one."""
        for _ in range(_TRIES):
            self._tier.forget((key,))
            seen = self._reader.look(key, _UNREAD)
            raw, entry, now = seen.raw, seen.entry, self._clock.wall()
            if entry is None or seen.life is Life.GONE or entry.flags & (NEGATIVE | FAILED):
                return False
            fresh, keep = policy.lives(random.random())  # noqa: S311 - spreads ends, hides nothing
            age = entry.age(now)
            new = entry._replace(token=new_token(), fresh=age + fresh, keep=age + keep, busy=0.0)
            done = self._tier.run(self._tier.store.swap, key, raw, pack(new), milliseconds(keep))
            if done is UNREACHABLE:
                return False
            if done:
                return True
        return False


def _number(seen: Seen) -> int | None:
    """The number that is there; ``None`` where there is none."""
    if seen.life is not Life.FRESH or seen.entry is None or seen.entry.flags & (NEGATIVE | FAILED):
        return None
    if not isinstance(seen.value, int) or isinstance(seen.value, bool):
        raise InvalidInput(f"incr counts whole numbers, and the value of this key is a {type(seen.value).__name__}")
    return seen.value
