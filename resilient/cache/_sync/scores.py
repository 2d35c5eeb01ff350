# Generated from resilient/cache/_async/scores.py by tools/unasync.py: do not edit.
"""Where a leaderboard keeps its scores: in a sorted set on a server, or in this process.

A board is complete or absent, never partial: it is built under another name and then renamed, and every change to an
absent one is dropped. A change that comes while the board is being built is noted, and made again on the new one.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

from resilient.cache._board import MemoryScores, Pair, slice_around
from resilient.cache._memory import Table
from resilient.clock import Clock
from resilient.errors import ConfigurationError
from resilient.runtime import fork_safe_lock

__all__ = ["ADD", "INCR", "REMOVE", "Scores", "scores_on"]

ADD, INCR, REMOVE = "add", "incr", "rem"
_END = b""  # a member after all others, so that a board without members is there all the same
_CHUNK = 500

_CHANGE = """
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('RPUSH', KEYS[3], ARGV[1], ARGV[2], ARGV[3])
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
if ARGV[1] == 'add' then redis.call('ZADD', KEYS[1], ARGV[3], ARGV[2]) return ARGV[3] end
if ARGV[1] == 'rem' then redis.call('ZREM', KEYS[1], ARGV[2]) return '0' end
return redis.call('ZINCRBY', KEYS[1], ARGV[3], ARGV[2])
"""
"""Change a member, if the board is there; note it, if the board is being built."""

_PUBLISH = """
if redis.call('GETRANGE', KEYS[2], 0, #ARGV[1] - 1) ~= ARGV[1] then
  redis.call('DEL', KEYS[4])
  return 0
end
local life = ARGV[2]
local noted = redis.call('LRANGE', KEYS[3], 0, -1)
for at = 1, #noted, 3 do
  if noted[at] == 'add' then redis.call('ZADD', KEYS[4], noted[at + 2], noted[at + 1])
  elseif noted[at] == 'rem' then redis.call('ZREM', KEYS[4], noted[at + 1])
  else life = ARGV[3] end
end
redis.call('DEL', KEYS[3])
redis.call('RENAME', KEYS[4], KEYS[1])
redis.call('PEXPIRE', KEYS[1], life)
return 1
"""
"""Put a new board in the old one's place, if its builder's lease still stands.

Nobody knows whether what was loaded holds an increment that came meanwhile: such a board lives one lease only.
"""

_AROUND = """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local at = redis.call('ZRANK', KEYS[1], ARGV[1])
if not at then return {-1} end
local first = math.max(0, at - ARGV[2])
return {first, redis.call('ZRANGE', KEYS[1], first, at + ARGV[2], 'WITHSCORES')}
"""


class Scores(Protocol):
    """The scores of one board. ``None`` as an answer means that the board is not there."""

    def top(self, first: int, last: int) -> Sequence[Pair] | None:
        """The pairs from one place to another."""
        ...

    def around(self, raw: bytes, size: int) -> tuple[int, Sequence[Pair]] | None:
        """A member's neighbours with itself, and the place of the first; a place below 0 where it is not there."""
        ...

    def count(self) -> int | None:
        """How many members there are."""
        ...

    def change(self, what: str, raw: bytes, turned: float, lease: int) -> float | None:
        """Change a member; what its score is then."""
        ...

    def begin(self) -> None:
        """A new board is about to be loaded: forget what was noted before."""
        ...

    def publish(self, pairs: Sequence[Pair], head: bytes, life: int, lease: int) -> bool:
        """Put a new board in the old one's place, if its builder's lease still stands."""
        ...

    def drop(self) -> None:
        """Forget the board."""
        ...


def scores_on(store: Any, key: str, lease_key: str, clock: Clock) -> Scores:
    """The scores of a board on a store.

    Raises:
        ConfigurationError: The store is neither a server nor in this process.
    """
    channel = getattr(store, "channel", None)
    if channel is not None:
        return RedisBoard(channel, key, lease_key)
    if isinstance(getattr(store, "table", None), Table):
        return MemoryBoard(store.table, key, lease_key, clock)
    raise ConfigurationError(f"a {type(store).__name__} cannot keep a leaderboard", advice="use a cache over a server")


def _pairs(flat: Sequence[bytes]) -> list[Pair]:
    return [(flat[at], float(flat[at + 1])) for at in range(0, len(flat), 2) if flat[at] != _END]


class RedisBoard:
    """Scores on a server."""

    def __init__(self, channel: Any, key: str, lease_key: str) -> None:
        from resilient.wire.redis import Script

        self._channel = channel
        self._keys = (key, lease_key, f"{key}:noted")
        self._change, self._publish, self._around = Script(_CHANGE), Script(_PUBLISH), Script(_AROUND)

    def top(self, first: int, last: int) -> Sequence[Pair] | None:
        """See `Scores`."""
        words = ("ZRANGE", self._keys[0], first, last, "WITHSCORES")
        if first == 0:
            flat = self._channel.call(*words)
            return _pairs(flat) if flat else None
        there, flat = self._channel.call_many([("EXISTS", self._keys[0]), words])
        return _pairs(flat) if there else None

    def around(self, raw: bytes, size: int) -> tuple[int, Sequence[Pair]] | None:
        """See `Scores`."""
        reply = self._channel.script(self._around, self._keys[:1], (raw, size))
        if reply is None:
            return None
        return (reply[0], _pairs(reply[1])) if len(reply) > 1 else (-1, ())

    def count(self) -> int | None:
        """See `Scores`."""
        count = self._channel.call("ZCARD", self._keys[0])
        return count - 1 if count else None

    def change(self, what: str, raw: bytes, turned: float, lease: int) -> float | None:
        """See `Scores`."""
        reply = self._channel.script(self._change, self._keys, (what, raw, repr(turned), lease))
        return None if reply is None else float(reply)

    def begin(self) -> None:
        """See `Scores`."""
        self._channel.call("DEL", self._keys[2])

    def publish(self, pairs: Sequence[Pair], head: bytes, life: int, lease: int) -> bool:
        """See `Scores`."""
        new = f"{self._keys[0]}:{head.hex()}"
        whole: list[Any] = [part for raw, turned in [*pairs, (_END, float("inf"))] for part in (repr(turned), raw)]
        steps = [("ZADD", new, *whole[at : at + 2 * _CHUNK]) for at in range(0, len(whole), 2 * _CHUNK)]
        for at in range(0, len(steps), 10):
            for reply in self._channel.call_many([*steps[at : at + 10], ("PEXPIRE", new, lease)]):
                if isinstance(reply, Exception):
                    raise reply
        return bool(self._channel.script(self._publish, (*self._keys, new), (head, life, lease)))

    def drop(self) -> None:
        """See `Scores`."""
        self._channel.call("DEL", self._keys[0], self._keys[1])


_boards: weakref.WeakKeyDictionary[Table, dict[str, tuple[MemoryScores, float]]] = weakref.WeakKeyDictionary()
_noted: weakref.WeakKeyDictionary[Table, dict[str, list[tuple[str, bytes, float]]]] = weakref.WeakKeyDictionary()
_lock = fork_safe_lock()


class MemoryBoard:
    """Scores in this process; all boards over one table of entries share theirs."""

    def __init__(self, table: Table, key: str, lease_key: str, clock: Clock) -> None:
        self._table, self._clock = table, clock
        self._key, self._lease_key = key, lease_key

    def _find(self) -> MemoryScores | None:
        self._table.get_many(())  # fails where the store of a test is away
        found = _boards.setdefault(self._table, {}).get(self._key)
        return found[0] if found is not None and found[1] > self._clock.monotonic() else None

    def top(self, first: int, last: int) -> Sequence[Pair] | None:
        """See `Scores`."""
        with _lock:
            board = self._find()
            return None if board is None else board.slice(first, last)

    def around(self, raw: bytes, size: int) -> tuple[int, Sequence[Pair]] | None:
        """See `Scores`."""
        with _lock:
            board = self._find()
            if board is None:
                return None
            at = board.place(raw)
            if at is None:
                return -1, ()
            first, last = slice_around(at, size)
            return first, board.slice(first, last)

    def count(self) -> int | None:
        """See `Scores`."""
        with _lock:
            board = self._find()
            return None if board is None else len(board)

    def change(self, what: str, raw: bytes, turned: float, lease: int) -> float | None:  # noqa: ARG002 - as on a server
        """See `Scores`."""
        with _lock:
            board = self._find()
            if self._table.get_many([self._lease_key])[0] is not None:
                _noted.setdefault(self._table, {}).setdefault(self._key, []).append((what, raw, turned))
            return None if board is None else _changed(board, what, raw, turned)

    def begin(self) -> None:
        """See `Scores`."""
        with _lock:
            self._find()
            _noted.setdefault(self._table, {}).pop(self._key, None)

    def publish(self, pairs: Sequence[Pair], head: bytes, life: int, lease: int) -> bool:
        """See `Scores`."""
        with _lock:
            standing = self._table.get_many([self._lease_key])[0]
            if standing is None or standing[: len(head)] != head:
                return False
            board = MemoryScores(pairs)
            for what, raw, turned in _noted.setdefault(self._table, {}).pop(self._key, ()):
                if what == INCR:
                    life = lease
                else:
                    _changed(board, what, raw, turned)
            until = self._clock.monotonic() + life / 1000
            _boards.setdefault(self._table, {})[self._key] = (board, until)
            return True

    def drop(self) -> None:
        """See `Scores`."""
        with _lock:
            self._find()
            _boards.setdefault(self._table, {}).pop(self._key, None)
            self._table.swap(self._lease_key, self._table.get_many([self._lease_key])[0], None, 0)


def _changed(board: MemoryScores, what: str, raw: bytes, turned: float) -> float:
    if what == REMOVE:
        board.drop(raw)
        return 0.0
    score = turned + (board.get(raw) or 0.0) if what == INCR else turned
    board.put(raw, score)
    return score
