"""Leaderboards: on a fake, on fakeredis, sync and async."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
import uuid
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest

from resilient.cache import AsyncCache, AsyncLeaderboard, Cache, Leaderboard
from resilient.errors import ConfigurationError, InvalidInput
from resilient.testing import FakeClock
from resilient.testing.cache import MemoryCache

GAMERS = [("gamer1", 100), ("gamer2", 50), ("gamer3", 150), ("gamer4", 5)]


class Source:
    """A table of scores that counts how often it is read."""

    def __init__(self, rows: Any = GAMERS) -> None:
        self.rows = dict(rows)
        self.loads = 0

    def __call__(self) -> list[tuple[Any, float]]:
        self.loads += 1
        return list(self.rows.items())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["alone", "memory", "fakeredis"])
def cache(request: pytest.FixtureRequest, clock: FakeClock) -> Cache:
    """A cache of any kind."""
    if request.param == "alone":
        return Cache(namespace="game", clock=clock)
    if request.param == "memory":
        return MemoryCache(namespace="game", clock=clock)
    return Cache(fakeredis.FakeRedis(), namespace="game", unbounded=True)


def places(found: list[Any]) -> list[tuple[int, Any, float]]:
    return [(each.rank, each.member, each.score) for each in found]


def rank_of(found: Any) -> int:
    assert found is not None
    return int(found.rank)


def test_the_best_three(cache: Cache) -> None:
    """Scores 100, 50, 150 and 5 give gamer3, gamer1, gamer2; the source is read once."""
    source = Source()
    board = Leaderboard(cache, "players", source, ttl=60)
    best = [(1, "gamer3", 150), (2, "gamer1", 100), (3, "gamer2", 50)]
    assert places(board.top(3)) == best
    assert places(board.top(3)) == best
    assert places(board.top(2, start=2)) == [(3, "gamer2", 50), (4, "gamer4", 5)]
    assert places(board.top(9, start=4)) == []
    assert board.count() == 4
    assert source.loads == 1


def test_changes_move_members(cache: Cache) -> None:
    """A new score, a growth and a removal show at once."""
    board = Leaderboard(cache, "players", Source(), ttl=60)
    board.top()
    board.add("gamer5", 120)
    board.add("gamer2", 7.5)
    assert board.incr("gamer4", 200) == 205
    board.remove("gamer1")
    assert places(board.top()) == [(1, "gamer4", 205), (2, "gamer3", 150), (3, "gamer5", 120), (4, "gamer2", 7.5)]
    assert board.rank("gamer1") is None
    assert places([board.rank("gamer2")]) == [(4, "gamer2", 7.5)]


def test_neighbours(cache: Cache) -> None:
    """A member with so many to each side, cut at the ends."""
    board = Leaderboard(cache, "n", Source([(each, each) for each in range(10)]), ttl=60)
    assert places(board.around(5, 1)) == [(4, 6, 6), (5, 5, 5), (6, 4, 4)]
    assert places(board.around(9, 2)) == [(1, 9, 9), (2, 8, 8), (3, 7, 7)]
    assert places(board.around(0, 2)) == [(8, 2, 2), (9, 1, 1), (10, 0, 0)]
    assert board.around(77) == []


def test_an_empty_board_is_a_board(cache: Cache) -> None:
    """Nobody is on it, and its source is not asked again."""
    source = Source([])
    board = Leaderboard(cache, "players", source, ttl=60)
    assert (board.top(), board.count(), board.around("x"), board.rank("x")) == ([], 0, [], None)
    assert source.loads == 1


def test_equal_to_order_by(cache: Cache) -> None:
    """10,000 random rows with many equal scores come as ORDER BY score DESC, id brings them."""
    chance = random.Random(7)
    rows = [(number, chance.choice([chance.randrange(300), chance.random() * 300, -5])) for number in range(10_000)]
    with sqlite3.connect(":memory:") as base:
        base.execute("CREATE TABLE player (id INTEGER PRIMARY KEY, score REAL)")
        base.executemany("INSERT INTO player VALUES (?, ?)", rows)
        ordered = base.execute("SELECT id, score FROM player ORDER BY score DESC, id").fetchall()
    base.close()
    board = Leaderboard(cache, "players", Source(rows), ttl=60)
    board.rebuild()
    assert [(each.member, each.score) for each in board.top(10_000)] == ordered
    for at in (0, 1, 5_000, 9_999):
        assert rank_of(board.rank(ordered[at][0])) == at + 1


def test_members_of_each_kind(cache: Cache) -> None:
    """Integers with their signs, texts and UUIDs come back as they were, ties in their own order."""
    ids = sorted(uuid.UUID(int=number) for number in (5, 2**100, 77))
    for kind in ([-5, -1, 0, 3, 20, 2**62], ["", "B", "a", "ä", "😀"], ids):
        board = Leaderboard(cache, f"ties {kind[0]}", Source([(each, 1) for each in reversed(kind)]), ttl=60)
        board.rebuild()
        assert [each.member for each in board.top()] == kind


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 2**60, "5", True, None])
def test_scores_that_cannot_be_kept_are_refused(cache: Cache, score: Any) -> None:
    """What a server would round or misread does not get there."""
    board = Leaderboard(cache, "players", Source(), ttl=60)
    with pytest.raises(InvalidInput):
        board.add("gamer1", score)
    with pytest.raises(InvalidInput):
        board.add(1.5, 1)
    with pytest.raises(InvalidInput):
        board.top(-1)


def test_a_flush_is_followed_by_one_rebuild(cache: Cache) -> None:
    """Where the board is gone, the next read loads it, and changes to the absent board do not make half of one."""
    source = Source()
    board = Leaderboard(cache, "players", source, ttl=60)
    board.top()
    board.invalidate()
    board.add("gamer9", 1000)
    assert board.incr("gamer9", 1) is None
    source.rows["gamer9"] = 1001
    assert places(board.top(1)) == [(1, "gamer9", 1001)]
    assert board.count() == 5
    assert source.loads == 2


def test_the_ttl_ends_it(clock: FakeClock) -> None:
    """After its ttl the board is loaded anew."""
    source = Source()
    board = Leaderboard(MemoryCache(clock=clock), "players", source, ttl=60)
    board.top()
    source.rows["gamer4"] = 999
    clock.advance(59)
    assert board.top(1)[0].member == "gamer3"
    clock.advance(2)
    assert board.top(1)[0].member == "gamer4"


def test_one_of_many_readers_loads(cache: Cache, at_once: Callable[..., list[Any]]) -> None:
    """The others wait for it, and all get the same."""
    gate = threading.Event()
    source = Source()

    def load() -> list[tuple[str, float]]:
        gate.wait(5)
        return source()

    board = Leaderboard(cache, "players", load, ttl=60)
    threading.Timer(0.1, gate.set).start()
    found = at_once(8, lambda _: places(board.top(1)))
    assert found == [[(1, "gamer3", 150)]] * 8
    assert source.loads == 1


def test_a_change_while_the_board_is_loaded_is_on_the_new_one(cache: Cache) -> None:
    """Whether or not the loader saw it."""
    source = Source()
    board: Leaderboard[str]

    def load() -> list[tuple[str, float]]:
        rows = source()
        if source.loads == 1:
            board.add("gamer2", 400)
            board.remove("gamer3")
        return rows

    board = Leaderboard(cache, "players", load, ttl=60)
    board.top()
    assert places(board.top(2)) == [(1, "gamer2", 400), (2, "gamer1", 100)]
    assert source.loads == 1


def test_a_growth_while_the_board_is_loaded_makes_it_live_one_lease(clock: FakeClock) -> None:
    """Nobody knows whether the loader saw it: the new board is soon loaded again."""
    source = Source()
    board: Leaderboard[str]

    def load() -> list[tuple[str, float]]:
        rows = source()
        if source.loads == 1:
            source.rows["gamer2"] += 400
            board.incr("gamer2", 400)
        return rows

    board = Leaderboard(MemoryCache(clock=clock, lease=5), "players", load, ttl=600)
    board.top()
    assert board.top(1)[0].member == "gamer3"
    clock.advance(5.1)
    assert board.top(1)[0].member == "gamer2"


def test_a_board_that_was_invalidated_while_it_was_loaded_is_not_kept(cache: Cache) -> None:
    """What was read before is older than the invalidation."""
    source = Source()
    board: Leaderboard[str]

    def load() -> list[tuple[str, float]]:
        rows = source()
        if source.loads == 1:
            source.rows["gamer4"] = 999
            board.invalidate()
        return rows

    board = Leaderboard(cache, "players", load, ttl=60)
    assert board.top(1)[0].member == "gamer3"
    assert board.top(1)[0].member == "gamer4"


def test_a_loader_that_fails_leaves_the_board_to_the_next(cache: Cache) -> None:
    """Its error goes to its caller; nobody waits for its lease."""
    source = Source()

    def load() -> list[tuple[str, float]]:
        if source.loads == 0:
            source.loads = 1
            raise LookupError
        return source()

    board = Leaderboard(cache, "players", load, ttl=60)
    with pytest.raises(LookupError):
        board.top()
    assert board.top(1)[0].member == "gamer3"


def test_while_the_server_is_away_the_loader_answers(clock: FakeClock) -> None:
    """And what it could not be told of is not forgotten when it is back."""
    source = Source()
    cache = MemoryCache(clock=clock)
    board = Leaderboard(cache, "players", source, ttl=60)
    board.top()
    with cache.outage():
        assert places(board.top(1)) == [(1, "gamer3", 150)]
        source.rows["gamer4"] = 999
        board.add("gamer4", 999)
        assert rank_of(board.rank("gamer4")) == 1
        assert board.count() == 4
        assert board.around("gamer4", 0)[0].score == 999
    clock.advance(1)
    assert board.top(1)[0].member == "gamer4"
    assert rank_of(board.rank("gamer3")) == 2


def test_wrong_arguments_are_refused(cache: Cache) -> None:
    """A ttl that is none, and a loader of the other face."""

    async def load() -> list[tuple[str, float]]:
        return []

    with pytest.raises(ConfigurationError, match="ttl is a positive number of seconds, not 0"):
        Leaderboard(cache, "players", Source(), ttl=0)
    with pytest.raises(ConfigurationError, match="lease is a positive number of seconds, not -1"):
        Leaderboard(cache, "players", Source(), ttl=60, lease=-1)
    with pytest.raises(ConfigurationError, match="needs a ttl"):
        Leaderboard(Cache(), "players", Source())
    with pytest.raises(ConfigurationError):
        Leaderboard(cache, "players", load, ttl=60)  # type: ignore[arg-type]


def test_a_loader_may_return_a_mapping(cache: Cache) -> None:
    """Members with their scores; what is neither that nor pairs is told."""
    assert Leaderboard(cache, "players", lambda: {"a": 1, "b": 2}, ttl=60).top(1)[0].member == "b"
    with pytest.raises(InvalidInput, match="returns pairs of a member and its score"):
        Leaderboard(cache, "others", lambda: [1, 2], ttl=60).top(1)


def test_without_a_ttl_it_has_that_of_its_cache() -> None:
    """As everything else has."""
    clock, source = FakeClock(), Source()
    board = Leaderboard(MemoryCache(ttl=60, clock=clock), "players", source)
    for seconds, loads in ((0, 1), (59, 1), (2, 2)):
        clock.advance(seconds)
        board.top(1)
        assert source.loads == loads


def test_the_async_face() -> None:
    """The same with awaits, on fakeredis."""

    async def load() -> list[tuple[str, int]]:
        return GAMERS

    async def story() -> None:
        cache = AsyncCache(fakeredis.FakeAsyncRedis(), namespace="game", unbounded=True)
        board = AsyncLeaderboard(cache, "players", load, ttl=60)
        assert (await board.top(1))[0].member == "gamer3"
        await board.incr("gamer2", 500)
        assert rank_of(await board.rank("gamer2")) == 1
        await board.rebuild()
        assert rank_of(await board.rank("gamer2")) == 3
        await cache.aclose()

    asyncio.run(story())


def test_calls_that_meet_leave_the_board_where_it_is(clock: FakeClock, at_once: Callable[..., list[Any]]) -> None:
    """Changes and reads at the same moment in one process: all are made, and nothing is loaded again."""
    cache, source = MemoryCache(clock=clock), Source([(each, each) for each in range(8)])
    board = Leaderboard(cache, "players", source, ttl=60)
    board.top()
    scores = board._scores()
    gate, change = threading.Barrier(4), scores.change

    def slowly(*args: Any) -> Any:
        gate.wait(10)
        return change(*args)

    scores.change = slowly  # type: ignore[method-assign]
    at_once(4, lambda number: board.add(number, 100 + number))
    assert [each.member for each in board.top(4)] == [3, 2, 1, 0]
    assert source.loads == 1


def test_calls_of_tasks_that_meet_leave_the_board_where_it_is() -> None:
    """The same with tasks."""

    async def story() -> None:
        rows, loads = {each: each for each in range(8)}, 0

        async def load() -> list[tuple[int, int]]:
            nonlocal loads
            loads += 1
            return list(rows.items())

        cache = AsyncCache(fakeredis.FakeAsyncRedis(), namespace="game", unbounded=True)
        board = AsyncLeaderboard(cache, "players", load, ttl=60)
        await board.top()
        for turn in range(5):
            await asyncio.gather(*(board.add(number, 100 + turn) for number in range(5)), board.top())
        assert [each.score for each in await board.top(6)] == [104] * 5 + [7]
        assert loads == 1
        await cache.aclose()

    asyncio.run(story())


def test_one_of_two_changes_that_meet_is_missed(clock: FakeClock) -> None:
    """The board is forgotten once before it is asked again; so it is when one is missed while it is forgotten."""
    cache, source = MemoryCache(clock=clock), Source()
    board = Leaderboard(cache, "players", source, ttl=60)
    board.top()
    scores = board._scores()
    change, drop, drops = scores.change, scores.drop, 0

    def fails(*args: Any) -> Any:
        raise ConnectionError

    def dropped() -> Any:
        nonlocal drops
        drops += 1
        done = drop()
        if drops == 1:  # another thread's change, begun before
            board._missed()
        return done

    scores.change = fails  # type: ignore[method-assign]
    board.add("gamer4", 999)
    scores.change, scores.drop = change, dropped  # type: ignore[method-assign]
    source.rows["gamer4"] = 999
    assert board.top(1)[0].member == "gamer4"
    assert board.count() == 4
    board.top()
    assert drops == 2
    assert source.loads == 3
