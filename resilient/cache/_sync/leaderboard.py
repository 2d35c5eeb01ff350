# Generated from resilient/cache/_async/leaderboard.py by tools/unasync.py: do not edit.
"""A leaderboard over a sorted set."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from resilient.arguments import check_seconds
from resilient.cache._board import (
    MemoryScores,
    Pair,
    Ranked,
    checked_score,
    member_bytes,
    ranked,
    score_of,
    slice_around,
)
from resilient.cache._entry import HEAD, LEASE, Unreadable, marker, unpack
from resilient.cache._functions import Mode, require
from resilient.cache._seen import milliseconds
from resilient.cache._sync.engine.tier import UNREACHABLE
from resilient.cache._sync.scores import ADD, INCR, REMOVE, Scores, scores_on
from resilient.cache._values import Loader
from resilient.errors import DeadlineExceeded, InvalidInput
from resilient.policy import deadline
from resilient.runtime import fork_safe_lock

if TYPE_CHECKING:
    from resilient.cache._sync.cache import Cache

__all__ = ["Leaderboard"]

M = TypeVar("M", bound=int | str | uuid.UUID)

_TRIES = 3


class Leaderboard(Generic[M]):
    """Scores in order, kept as a sorted set and rebuilt from the database where they are gone.

    Reads answer what ``ORDER BY score DESC, member`` would: of equal scores the lesser member comes first, by number
    or by code point. The database stays the truth: tell the board of a change after the commit that made it. Should
    one be lost, the board is right again after ``ttl``.

    Where the board is gone (at first, after its ttl, after a flush) one reader loads all of it, in one process of all,
    and puts it in place as a whole; the others wait for it. A change that comes meanwhile is made on the new board
    too; if it was an increment, of which nobody can know whether the loader saw it, the new board lives one lease
    only. While the server is away reads are answered from the loader, and a process that could not tell it of a change
    makes it forget the board before it asks it again.

    Args:
        cache: The cache on whose server it is kept.
        name: Its name within the cache's namespace.
        load: Returns every member with its score, as pairs or as a mapping; called without arguments.
        ttl: Seconds after which it is loaded anew; the cache's own by default.
        lease: Seconds that a load may take at most; the cache's own by default.

    Raises:
        ConfigurationError: An argument is wrong.

    Examples:
        >>> import asyncio
        >>> from resilient.cache import Cache
        >>> def load() -> list[tuple[int, int]]:
        ...     return [(1, 100), (2, 50), (3, 150), (4, 5)]
        >>> def best() -> list[tuple[int, float]]:
        ...     board = Leaderboard(Cache(namespace="game"), "players", load, ttl=60)
        ...     return [(place.member, place.score) for place in board.top(3)]
        >>> best()
        [(3, 150), (1, 100), (2, 50)]
    """

    def __init__(
        self,
        cache: Cache,
        name: str,
        load: Loader[[], Iterable[tuple[M, float]] | Mapping[M, float]],
        ttl: float | None = None,
        *,
        lease: float | None = None,
    ) -> None:
        require(load, asynchronous=Mode.asynchronous)
        if lease is not None:
            check_seconds("lease", lease)
        self._cache = cache
        self._load = load
        self._ttl = cache.plan(ttl).policy.ttl
        self._lease = cache.lease if lease is None else lease
        self._lease_key = cache.physical(f"board:{name}")
        namespace = self._lease_key.partition(":")[0]
        # All its keys stand in one slot of a Cluster: that of the lease's key.
        self._key = f"{namespace}:scores:{{{self._lease_key}}}"
        self._on: tuple[Any, Scores] | None = None
        self._lock = fork_safe_lock()
        self._lost = 0
        """How many changes the server missed, or may have: it must forget the board before it is asked."""

    # ----------------------------------------------------------------------------------------------------------- reads

    def top(self, size: int = 10, start: int = 0) -> list[Ranked[M]]:
        """The best.

        Args:
            size: How many.
            start: How many of the very best to leave out.
        """
        _check_size(size)
        last = start + size - 1
        pairs = self._ask(lambda scores: scores.top(start, last), lambda board: board.slice(start, last))
        return ranked(pairs, start + 1)

    def around(self, member: M, size: int = 5) -> list[Ranked[M]]:
        """A member with its neighbours, so many to each side; nobody where it is not on the board."""
        _check_size(size)
        raw = member_bytes(member)

        def near(board: MemoryScores) -> tuple[int, Sequence[Pair]]:
            at = board.place(raw)
            return (-1, ()) if at is None else (max(0, at - size), board.slice(*slice_around(at, size)))

        first, pairs = self._ask(lambda scores: scores.around(raw, size), near)
        return ranked(pairs, first + 1)

    def rank(self, member: M) -> Ranked[M] | None:
        """A member's place; ``None`` where it is not on the board."""
        found = self.around(member, 0)
        return found[0] if found else None

    def count(self) -> int:
        """How many members there are."""
        found: int = self._ask(lambda scores: scores.count(), len)
        return found

    # --------------------------------------------------------------------------------------------------------- changes

    def add(self, member: M, score: float) -> None:
        """A member's score is this now.

        Two processes that set one member's score at the same time may do so in another order than they committed;
        where scores only grow by amounts, `incr` has no such order.

        Raises:
            InvalidInput: The member or the score cannot be kept.
        """
        self._change(ADD, member, 0.0 - checked_score(score))

    def incr(self, member: M, amount: float = 1) -> float | None:
        """A member's score has grown by so much.

        Returns:
            The score on the board; ``None`` where the board is not there, so that the next read loads it.

        Raises:
            InvalidInput: The member or the amount cannot be kept.
        """
        found = self._change(INCR, member, 0.0 - checked_score(amount))
        return None if found is None else score_of(found)

    def remove(self, member: M) -> None:
        """A member is no longer on the board."""
        self._change(REMOVE, member, 0.0)

    def invalidate(self) -> None:
        """Forget the board: the next read loads it. What is being loaded now is not kept."""
        self._missed()
        self._catch_up()

    def rebuild(self) -> None:
        """Load the board now and put it in the old one's place, unless another process is at it."""
        header = marker(LEASE, self._cache.clock.wall(), self._lease)
        if self._claim(header) is None:
            self._build(header)

    def _change(self, what: str, member: M, turned: float) -> float | None:
        raw = member_bytes(member)
        found: float | None = None
        try:
            if self._lost:
                told = self._catch_up()
            else:
                tier = self._cache.main.tier
                found = tier.run(self._scores().change, what, raw, turned, milliseconds(self._lease))
                told = found is not UNREACHABLE
        except BaseException:  # out of time, or cancelled: the server may not have heard of it
            self._missed()
            raise
        if told:
            return found
        self._missed()
        return None

    def _missed(self) -> None:
        with self._lock:
            self._lost += 1

    def _catch_up(self) -> bool:
        """Forget the board, if the server missed a change. Whether it can be trusted."""
        lost = self._lost
        if lost:
            if self._cache.main.tier.run(self._scores().drop) is UNREACHABLE:
                return False
            with self._lock:
                if self._lost == lost:  # else another was missed, maybe after the board was forgotten
                    self._lost = 0
        return True

    # ------------------------------------------------------------------------------------------------------- the board

    def _scores(self) -> Scores:
        store = self._cache.store
        if self._on is None or self._on[0] is not store:
            self._on = (store, scores_on(store, self._key, self._lease_key, self._cache.clock))
        return self._on[1]

    def _ask(self, ask: Callable[[Scores], Any], own: Callable[[MemoryScores], Any]) -> Any:
        """What the board says; what is loaded says the same where there is no board."""
        tier = self._cache.main.tier
        for _ in range(_TRIES if self._catch_up() else 0):
            found = tier.run(ask, self._scores())
            if found is UNREACHABLE:
                break
            if found is not None:
                return found
            header = marker(LEASE, self._cache.clock.wall(), self._lease)
            standing = self._claim(header)
            if standing is None:
                return own(MemoryScores(self._build(header)))
            if standing is UNREACHABLE:
                break
            self._await(*standing)
        return own(MemoryScores(self._loaded()))

    def _claim(self, header: bytes) -> Any:
        """Nothing where this process is to build; else what stands there and for how long."""
        tier = self._cache.main.tier
        return tier.run(tier.store.claim, self._lease_key, None, header, milliseconds(self._lease))

    def _await(self, raw: bytes | None, left: float) -> None:
        """Until the one who builds is done, or its lease over."""
        store = self._cache.store
        nothing: tuple[type[BaseException], ...] = (Unreadable, *store.failures)
        try:
            entry = unpack(raw or b"")
            store.wait(self._lease_key, entry.token, deadline.bound(min(left, self._lease)))
        except nothing:
            return  # nothing to wait for: whoever asks looks again

    def _build(self, header: bytes) -> list[Pair]:
        tier, store, scores = self._cache.main.tier, self._cache.store, self._scores()
        try:
            tier.run(scores.begin)
            pairs = self._loaded()
            lives = milliseconds(self._ttl), milliseconds(min(self._ttl, self._lease))
            tier.run(scores.publish, pairs, header[:HEAD], *lives)
        finally:
            with contextlib.suppress(DeadlineExceeded):  # the lease ends by itself
                tier.run(store.swap, self._lease_key, header, None, 0)
        return pairs

    def _loaded(self) -> list[Pair]:
        rows = self._load()
        try:
            pairs = [(member, score) for member, score in (rows.items() if isinstance(rows, Mapping) else rows)]
        except (TypeError, ValueError) as error:
            raise InvalidInput("what loads a leaderboard returns pairs of a member and its score") from error
        found = {member_bytes(member): 0.0 - checked_score(score) for member, score in pairs}
        return sorted(found.items(), key=lambda pair: (pair[1], pair[0]))


def _check_size(size: int) -> None:
    if size < 0:
        raise InvalidInput("a leaderboard is asked for no less than nobody")
