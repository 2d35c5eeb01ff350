"""Leaderboards without I/O: members as bytes that sort as they do, scores, ranks, and a board in memory."""

from __future__ import annotations

import bisect
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from resilient.errors import InvalidInput

__all__ = ["MemoryScores", "Ranked", "checked_score", "member_bytes", "member_of", "ranked", "score_of", "slice_around"]

M = TypeVar("M", bound=int | str | uuid.UUID)
Pair: TypeAlias = tuple[bytes, float]
"""A member and its score turned round, so that ascending order is the board's: the highest first, ties by member."""

_BIAS = 2**63
_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Ranked(Generic[M]):
    """One place of a leaderboard.

    Args:
        rank: 1 for the highest score. Of equal scores the lesser member comes first, so that no two share a rank.
        member: Who.
        score: The score.
    """

    rank: int
    member: M
    score: float


def member_bytes(member: object) -> bytes:
    """A member as bytes, whose order is the members' own.

    Raises:
        InvalidInput: It is no integer of 64 bits, no text and no UUID.

    Examples:
        >>> sorted([member_bytes(10), member_bytes(9), member_bytes(-1)]) == [
        ...     member_bytes(-1), member_bytes(9), member_bytes(10)]
        True
        >>> member_of(member_bytes("gamer3"))
        'gamer3'
    """
    if type(member) is int and -_BIAS <= member < _BIAS:
        return b"i%020d" % (member + _BIAS)
    if isinstance(member, str):
        return b"s" + member.encode()
    if isinstance(member, uuid.UUID):
        return b"u" + member.hex.encode()
    raise InvalidInput("a member of a leaderboard is an integer, a text or a UUID")


def member_of(raw: bytes) -> Any:
    """What `member_bytes` wrote."""
    kind, rest = raw[:1], raw[1:].decode()
    return int(rest) - _BIAS if kind == b"i" else uuid.UUID(rest) if kind == b"u" else rest


def checked_score(score: object) -> float:
    """A score, as a server keeps it.

    Raises:
        InvalidInput: It is no finite number, or an integer beyond 2**53, which a server would round.
    """
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise InvalidInput("a score is a finite number: an int or a float", advice="turn a Decimal into one of them")
    if isinstance(score, int) and abs(score) > _EXACT:
        raise InvalidInput("a score of a leaderboard is at most 2**53: beyond it, scores would be rounded")
    return float(score)


def score_of(turned: float) -> float:
    """The score that a server keeps turned round; a whole one as an int."""
    return int(-turned) if turned.is_integer() else -turned


def ranked(pairs: Iterable[Pair], first: int) -> list[Ranked[Any]]:
    """Places from pairs in order, the first of which has that rank."""
    return [Ranked(at, member_of(raw), score_of(turned)) for at, (raw, turned) in enumerate(pairs, first)]


def slice_around(at: int, size: int) -> tuple[int, int]:
    """From where to where the neighbours of the place ``at`` go, counted from 0; the end is the last one."""
    return max(0, at - size), at + size


class MemoryScores:
    """The scores of one board in memory, in order. Not safe for threads by itself.

    Examples:
        >>> scores = MemoryScores([(b"a", -5.0), (b"b", -7.0)])
        >>> scores.slice(0, 9)
        [(b'b', -7.0), (b'a', -5.0)]
    """

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._of = dict(pairs)
        self._order = sorted((turned, raw) for raw, turned in self._of.items())

    def __len__(self) -> int:
        return len(self._order)

    def put(self, raw: bytes, turned: float) -> None:
        """Set a member's score."""
        self.drop(raw)
        self._of[raw] = turned
        bisect.insort(self._order, (turned, raw))

    def drop(self, raw: bytes) -> None:
        """Take a member off."""
        known = self._of.pop(raw, None)
        if known is not None:
            del self._order[bisect.bisect_left(self._order, (known, raw))]

    def get(self, raw: bytes) -> float | None:
        """A member's score."""
        return self._of.get(raw)

    def place(self, raw: bytes) -> int | None:
        """A member's place, counted from 0."""
        known = self._of.get(raw)
        return None if known is None else bisect.bisect_left(self._order, (known, raw))

    def slice(self, first: int, last: int) -> Sequence[Pair]:
        """The pairs from one place to another, both included."""
        return [(raw, turned) for turned, raw in self._order[first : last + 1]]
