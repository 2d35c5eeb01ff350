"""The local tier as users meet it: alone, and above a store that others change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from resilient import events
from resilient.cache import AsyncCache, AsyncMemoryStore, Cache, CacheRead, Local, MemoryStore
from resilient.cache._async.local import AsyncLocalStore
from resilient.cache._entry import LEASE, marker
from resilient.cache._local_room import OVERHEAD
from resilient.cache._local_tier import LocalTier
from resilient.cache._stamps import is_ours, planted
from resilient.cache._sync.local import LocalStore
from resilient.errors import ConfigurationError
from resilient.testing import FakeClock


class Process:
    """One of several processes that share a store; its channel is what the test says."""

    def __init__(self, store: MemoryStore, clock: FakeClock, *, channel: Any = None, **options: Any) -> None:
        self.clock = clock
        self.tier = LocalTier("shop", Local(**options), clock)
        self.tier.changes = channel
        self.asked: list[str] = []
        self.far = far = MemoryStore(clock=clock)
        far.table, far.local, far.failures = store.table, False, (ConnectionError,)
        real = far.get_many

        def get_many(keys: Any) -> Any:
            self.asked += keys
            return real(keys)

        far.get_many = get_many  # type: ignore[method-assign]
        self.cache = Cache(LocalStore(far, self.tier), namespace="shop", ttl=300, clock=clock, jitter=0.0)
        self.session = self.tier.begun()
        self.hear()

    def hear(self) -> None:
        self.tier.heard(self.session, self.clock.monotonic())

    def asks(self, call: Callable[[], Any]) -> bool:
        """Whether a call asks the store for anything."""
        self.asked.clear()
        call()
        return bool(self.asked)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def two(clock: FakeClock) -> tuple[Process, Process]:
    store = MemoryStore(clock=clock)
    return Process(store, clock), Process(store, clock)


def warm(call: Callable[[], Any]) -> Any:
    """Load, read from the store, and judge."""
    call()
    call()
    return call()


# ------------------------------------------------------------------------------------------------------------- alone


@pytest.mark.parametrize("of_all", [False, True])
def test_one_function_may_share_while_others_do_not(of_all: bool) -> None:
    """What a function says of sharing holds for its values, whatever the cache says of the rest."""
    with Cache(ttl=60, local=Local(share=of_all)) as cache:

        @cache.lazy("mine", share=not of_all)
        def mine() -> list[int]:
            return [1]

        @cache.lazy("all")
        def others() -> list[int]:
            return [1]

        warm(mine), warm(others)
        assert (mine() is mine()) is not of_all
        assert (others() is others()) is of_all


def test_callers_cannot_change_what_others_get() -> None:
    """Each caller gets a copy of its own, from memory too."""
    with Cache(ttl=60) as cache:

        @cache.lazy("user:{user_id}")
        def user(user_id: int) -> dict[str, Any]:
            return {"id": user_id, "tags": ["a"]}

        for _ in range(4):
            found = user(1)
            assert found == {"id": 1, "tags": ["a"]}
            found["tags"].append("b")
        assert cache.stats().local_hits == 2


def test_with_share_all_callers_get_the_same_object() -> None:
    """Who asks for it by name gets no copies."""
    with Cache(ttl=60, local=Local(share=True)) as cache:

        @cache.lazy("user:{user_id}")
        def user(user_id: int) -> dict[str, Any]:
            return {"id": user_id}

        assert warm(lambda: user(1)) is user(1)


def test_whoever_listens_changes_nothing_but_hears_of_each_read() -> None:
    """With a sink for events callers are handed the same object as without, and the sink is told of each."""
    heard: list[tuple[str, str]] = []
    with Cache(namespace="shop", ttl=60, local=Local(share=True)) as cache:

        @cache.lazy("user:{user_id}")
        def user(user_id: int) -> dict[str, Any]:
            return {"id": user_id}

        value = warm(lambda: user(1))
        before = cache.stats().local_hits
        stop = events.subscribe(lambda event: heard.append((event.cache, event.source)), kinds=[CacheRead])
        try:
            assert [user(1) is value for _ in range(3)] == [True] * 3
        finally:
            stop()
        assert user(1) is value
        assert cache.stats().local_hits == before + 4
    assert heard == [("shop", "local")] * 3


def test_what_nobody_can_change_is_not_copied() -> None:
    """A text is handed out as it is."""
    with Cache(ttl=60) as cache:

        @cache.lazy("name:{user_id}")
        def name(user_id: int) -> str:
            return f"a long name, number {user_id}"

        assert warm(lambda: name(1)) is name(1)


def test_an_in_process_cache_is_bounded_by_bytes() -> None:
    """However many entries are allowed, they do not take more than they may."""
    with Cache(ttl=60, local=Local(max_entries=10_000, max_bytes=200_000)) as cache:

        @cache.lazy("page:{number}")
        def page(number: int) -> str:
            return "x" * 1000

        for number in range(400):
            warm(lambda number=number: page(number))
        assert 20 < cache.stats().local_entries < 200
        assert cache.stats().local_bytes <= 200_000
        assert cache.store.store.table._bytes <= 200_000


def test_many_small_entries_of_an_in_process_cache_are_bounded_by_what_they_take() -> None:
    """Most of that is neither their keys nor their values."""
    bound = 200_000
    with Cache(ttl=60, local=Local(max_entries=100_000, max_bytes=bound)) as cache:

        @cache.lazy("number:{number}")
        def numbers(number: int) -> list[int]:
            return [number]

        for number in range(1000):
            numbers(number)
        values = [key for key in cache.store.store.table._entries if not is_ours(key)]
        assert bound / OVERHEAD / 2 < len(values) <= bound / OVERHEAD


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("value", ["x" * 20_000, ["x" * 20_000], ("x" * 20_000,)])
def test_what_is_kept_decompressed_counts_for_what_it_is(clock: FakeClock, value: Any, share: bool) -> None:
    """A few hundred bytes on the server may be many times as much in the memory of a process."""
    limits = Local(max_bytes=1_000_000, share=share)
    cache = Cache(namespace="shop", ttl=300, clock=clock, compress="zlib", local=limits)

    @cache.lazy("text:{number}")
    def text(number: int) -> Any:
        return value

    for number in range(200):
        assert warm(lambda number=number: text(number)) == value
    ready = [slot.ready for slot in cache.local.table.values() if slot.ready.owner is not None]
    held = sum(20_000 for each in ready if each.value is not None or len(each.data) > 20_000)
    assert 0 < held <= cache.stats().local_bytes <= 1_000_000
    cache.close()


def test_a_value_of_another_type_is_not_served_under_the_same_key() -> None:
    """Two functions may share a key; each reads it as its own type."""
    with Cache(ttl=60) as cache:
        cache.set("n:1", "1")

        @cache.lazy("n:{number}", type=str)
        def text(number: int) -> str:
            return "loaded"

        @cache.lazy("n:{number}", type=int)
        def number(number: int) -> int:
            return 1

        assert warm(lambda: text(1)) == "1"
        assert warm(lambda: number(1)) == 1
        assert type(number(1)) is int


def test_calls_that_differ_only_in_a_tag_do_not_share_what_is_kept() -> None:
    """A value that lacks a tag of its reader's is a miss, from memory as from a server."""
    with Cache(ttl=60) as cache:
        loads = []

        @cache.lazy("user:{user_id}", tags=["lang:{lang}"])
        def user(user_id: int, lang: str) -> str:
            loads.append(lang)
            return lang

        assert warm(lambda: user(1, "en")) == "en"
        assert user(1, "de") == "de"
        cache.invalidate_tags("lang:de")
        assert user(1, "de") == "de"
        assert loads == ["en", "de", "de"]


def test_a_method_of_an_object_is_served_from_memory_too() -> None:
    """Its copies share what was worked out for the function."""
    with Cache(ttl=60) as cache:

        class Shop:
            @cache.lazy("item:{number}")
            def item(self, number: int) -> str:
                return f"item {number}"

        shop = Shop()
        assert warm(lambda: shop.item(1)) == "item 1"
        before = cache.stats().local_hits
        assert shop.item(1) == "item 1"
        assert cache.stats().local_hits == before + 1


def test_a_coroutine_function_is_served_from_memory_too() -> None:
    """The async face looks there first as well."""

    async def main() -> None:
        async with AsyncCache(ttl=60) as cache:

            @cache.lazy("user:{user_id}")
            async def user(user_id: int) -> list[int]:
                return [user_id]

            for _ in range(4):
                assert await user(1) == [1]
            assert cache.stats().local_hits == 2
            await user.invalidate(1)
            assert await user(1) == [1]
            assert cache.stats().loads == 2

    asyncio.run(main())


# -------------------------------------------------------------------------------------------- what ends what is kept

CHANGES: dict[str, Callable[[Cache], Any]] = {
    "set": lambda cache: cache.set("user:1", "new"),
    "set_many": lambda cache: cache.set_many({"user:1": "new"}),
    "invalidate": lambda cache: cache.invalidate("user:1"),
    "tag": lambda cache: cache.invalidate_tags("users"),
    "clear": lambda cache: cache.clear(),
    "touch": lambda cache: cache.touch("user:1", 100),
    "write_through": lambda cache: cache.write_through("user:{number}")(lambda number: "new")(1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_this_process_changes_it_sees_at_once(
    two: tuple[Process, Process], change: Callable[[Cache], Any]
) -> None:
    """No push need come: a change of one's own is known."""
    process, _ = two

    @process.cache.lazy("user:{number}", tags=["users"])
    def user(number: int) -> str:
        return "loaded"

    warm(lambda: user(1))
    assert not process.asks(lambda: user(1))
    change(process.cache)
    assert process.asks(lambda: user(1))


@pytest.mark.parametrize(
    ("change", "key"),
    [("set", "shop:user:1"), ("invalidate", "shop:user:1"), ("tag", "shop:tag:{users}"), ("clear", "shop:all:{shop}")],
)
def test_what_another_process_changes_is_seen_once_it_is_told(
    two: tuple[Process, Process], change: str, key: str
) -> None:
    """Until then the old value is served; after it never again."""
    mine, other = two
    source = ["old"]

    @mine.cache.lazy("user:{number}", tags=["users"])
    def user(number: int) -> str:
        return source[0]

    warm(lambda: user(1))
    source[0] = "new"
    CHANGES[change](other.cache)
    assert user(1) == "old"
    mine.tier.told(mine.session, [b"shop:nothing", key.encode()])
    assert mine.asks(lambda: user(1))
    assert user(1) == "new" or change == "set"
    assert user(1) == (other.cache.get("user:1") or "new")


def test_what_comes_from_the_store_is_judged_by_the_stamps_that_stand_there(two: tuple[Process, Process]) -> None:
    """Though nobody has told yet that they have changed: else it would be taken for old, and loaded over."""
    mine, other = two
    mine.cache.set_many({"a": 1, "b": 1})
    assert mine.cache.get_many(["a", "b"]) == {"a": 1, "b": 1}
    other.cache.clear()
    other.cache.set("k", "new")
    assert mine.cache.get("k") == "new"
    assert mine.cache.get_many(["a", "k"]) == {"k": "new"}


def test_everything_may_have_changed(two: tuple[Process, Process]) -> None:
    """As when a server is told to forget all it holds."""
    mine, _ = two

    @mine.cache.lazy("user:{number}")
    def user(number: int) -> str:
        return "loaded"

    warm(lambda: user(1))
    mine.tier.told(mine.session, None)
    assert mine.asks(lambda: user(1))


def test_without_word_from_the_channel_nothing_is_served_after_a_second(
    two: tuple[Process, Process], clock: FakeClock
) -> None:
    """And what is read meanwhile is not kept; once the channel speaks again what it held is good again."""
    mine, _ = two

    @mine.cache.lazy("user:{number}")
    def user(number: int) -> str:
        return "loaded"

    warm(lambda: user(1))
    clock.advance(0.9)
    assert not mine.asks(lambda: user(1))
    clock.advance(0.2)
    assert mine.asks(lambda: user(1))
    assert mine.asks(lambda: user(1))
    mine.hear()
    assert not mine.asks(lambda: user(1))
    mine.tier.cut(mine.session)
    assert mine.asks(lambda: user(1))


class Interrupting(FakeClock):
    """A clock at which, once, something happens while it is read."""

    meanwhile: Callable[[], None] | None = None

    def monotonic(self) -> float:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().monotonic()


def test_what_was_found_while_nobody_told_of_changes_is_not_served_once_somebody_does() -> None:
    """A change is told, and the channel speaks again, in the middle of a read: what it found before does not count."""
    clock = Interrupting()
    store = MemoryStore(clock=clock)
    mine, other = Process(store, clock), Process(store, clock)

    @mine.cache.lazy("user:{number}")
    def user(number: int) -> str:
        return "loaded"

    def meanwhile() -> None:
        mine.tier.told(mine.session, [b"shop:user:1"])
        mine.hear()

    warm(lambda: user(1))
    other.cache.set("user:1", "new")
    clock.advance(1.5)
    clock.meanwhile = meanwhile
    assert user(1) == "new"


def test_a_value_ends_when_its_ttl_does(two: tuple[Process, Process], clock: FakeClock) -> None:
    """Memory keeps nothing longer than the store would."""
    mine, _ = two
    loads = []

    @mine.cache.lazy("user:{number}", ttl=5)
    def user(number: int) -> int:
        loads.append(number)
        return number

    warm(lambda: user(1))
    for _ in range(12):
        clock.advance(0.5)
        mine.hear()
        user(1)
    assert len(loads) == 2


def test_a_stamp_that_lives_for_one_lease_is_not_kept(two: tuple[Process, Process], clock: FakeClock) -> None:
    """If another writer was at work and has died, nobody but time tells, of which a server tells when it likes."""
    mine, other = two
    loads = []

    @mine.cache.lazy("user:{number}", tags=["users"])
    def user(number: int) -> int:
        loads.append(number)
        return number

    other.cache.store.store.put_many({"shop:tag:{users}": planted(clock.wall(), 10.0)}, 10_000)
    warm(lambda: user(1))
    clock.advance(10.1)
    mine.hear()
    user(1)
    assert len(loads) == 2


def test_a_value_of_writers_who_met_is_not_kept(two: tuple[Process, Process], clock: FakeClock) -> None:
    """The server holds it for one lease, though its header says more; later what is still there is kept."""
    mine, other = two
    far = other.cache.store.store
    for life, seconds, ends in ((10_000, 10.1, True), (300_000, 31.0, False)):
        other.cache.set("k", "v", version=life)
        far.put_many({"shop:k": far.get_many(["shop:k"])[0]}, life)
        assert [mine.cache.get("k"), mine.cache.get("k")] == ["v", "v"]
        clock.advance(seconds)
        mine.hear()
        assert mine.cache.get("k") == (None if ends else "v")
    assert not mine.asks(lambda: mine.cache.get("k"))


class Channel:
    """Tells of changes whenever a test says so; something may happen before a read is sent."""

    keep = float("inf")
    waited: float | None = None
    meanwhile: Callable[[], None] | None = None

    def ensure(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()

    def news(self, keys: Any) -> list[tuple[str, ...]]:
        return []

    def close(self, wait: float) -> None:
        self.waited = wait


def test_what_the_server_was_not_told_of_is_not_kept_from_it(clock: FakeClock) -> None:
    """A change that fails while a read is about to be sent: the read may get the old value, but nobody after it."""
    channel = Channel()
    mine = Process(MemoryStore(clock=clock), clock, channel=channel)
    mine.cache.main.tier.timer.interval = 1e6  # who comes next tells what was not told
    mine.cache.set("k", "old")
    exchange_many = mine.far.exchange_many

    def lost(*args: Any) -> Any:
        mine.far.exchange_many = exchange_many  # type: ignore[method-assign]
        raise ConnectionError("lost")

    mine.far.exchange_many = lost  # type: ignore[method-assign,assignment]
    channel.meanwhile = lambda: mine.cache.invalidate("k")
    mine.cache.get("k")
    assert mine.cache.stats().journal == 1
    assert mine.cache.get("k") is None
    assert mine.cache.stats().journal == 0
    mine.cache.close()


@pytest.mark.parametrize("there", [False, True], ids=["nothing", "a value"])
def test_a_look_that_claims_nothing_is_no_change_to_tell_of(there: bool, clock: FakeClock) -> None:
    """What the others keep of that key is right; a claim that was granted is a change."""
    tier = LocalTier("shop", Local(), clock)
    told: list[Any] = []
    tier.changes = channel = Channel()
    channel.news = lambda keys: told.append(tuple(keys)) or []  # type: ignore[method-assign,func-returns-value]
    far = MemoryStore(clock=clock)
    if there:
        far.put_many({"shop:k": b"v"}, 1000)
    found, claimed = LocalStore(far, tier).get_or_claim(
        ("shop:k", "shop:all:{shop}"), marker(LEASE, clock.wall(), 10.0), 1000
    )
    assert (found, claimed) == ([b"v" if there else None, None], not there)
    assert told == ([] if there else [("shop:k",)])


def test_a_cache_that_is_closed_does_not_hold_its_event_loop_up(clock: FakeClock) -> None:
    """The thread that was told of changes may be connecting; a thread waits for it, a loop does not."""
    tier = LocalTier("shop", Local(), clock)
    tier.changes = channel = Channel()
    LocalStore(MemoryStore(), tier).close()
    assert channel.waited == 1.0
    asyncio.run(AsyncLocalStore(AsyncMemoryStore(), tier).aclose())
    assert channel.waited == 0.0


def test_the_local_ttl_has_the_store_asked_again(clock: FakeClock) -> None:
    """For those who want to be told by time as well."""
    mine = Process(MemoryStore(clock=clock), clock, ttl=3.0)

    @mine.cache.lazy("user:{number}")
    def user(number: int) -> str:
        return "loaded"

    warm(lambda: user(1))
    for seconds in (1.0, 1.0, 1.5):
        clock.advance(seconds)
        mine.hear()
    assert mine.asks(lambda: user(1))


def test_what_was_read_long_ago_is_kept_for_no_longer_than_that(clock: FakeClock) -> None:
    """The process was stopped between the server's answer and its own next step: the time it lost counts too."""
    mine = Process(MemoryStore(clock=clock), clock, ttl=3.0)

    @mine.cache.lazy("user:{number}")
    def user(number: int) -> str:
        return "loaded"

    user(1)
    store = mine.cache.store
    plain = store._get_many

    def stopped(keys: Any) -> Any:
        found = plain(keys)
        clock.advance(2.5)
        mine.hear()
        return found

    store._get_many = stopped
    user(1)
    store._get_many = plain
    assert not mine.asks(lambda: user(1))
    clock.advance(0.6)
    mine.hear()
    assert mine.asks(lambda: user(1))


def test_a_forked_child_keeps_nothing_until_it_is_told_of_changes_itself(two: tuple[Process, Process]) -> None:
    """Its parent's channel is not its own."""
    mine, _ = two

    @mine.cache.lazy("user:{number}")
    def user(number: int) -> str:
        return "loaded"

    warm(lambda: user(1))
    old = mine.session
    mine.tier._reset()  # as `after_fork` does
    assert mine.asks(lambda: user(1))
    mine.tier.heard(old, mine.clock.monotonic())
    assert mine.asks(lambda: user(1))


# ------------------------------------------------------------------------------------------------- what stands aside


def test_a_lookup_says_that_a_value_came_from_memory(two: tuple[Process, Process]) -> None:
    """``local`` where the server was not asked, ``shared`` where it was."""
    mine, other = two
    other.cache.set("k", [1], tags=["t"])
    assert mine.cache.lookup("k").source == "shared"
    assert mine.cache.lookup("k").source == "local"
    assert mine.cache.get_many(["k", "absent"]) == {"k": [1]}
    assert not mine.asks(lambda: mine.cache.get("k"))


def test_bypass_use_and_commits_stand_before_what_is_kept(two: tuple[Process, Process]) -> None:
    """Whoever does without the cache gets nothing of it, nor who uses another store, nor who is about to change it."""
    mine, other = two
    loads = []

    @mine.cache.lazy("user:{number}")
    def user(number: int) -> int:
        loads.append(number)
        return len(loads)

    assert warm(lambda: user(1)) == 1
    with mine.cache.bypass():
        assert user(1) == 2
    with mine.cache.use(MemoryStore()):
        assert user(1) == 3
    with Session(sa.create_engine("sqlite://")) as session, mine.cache.on_commit(session) as after:
        after.set("user:1", 4)
        assert user(1) == 4
        session.execute(sa.text("SELECT 1"))
        session.rollback()
    assert user(1) == 1
    with other.cache.bypass():
        assert user(1) == 1


def test_listeners_hear_of_every_read(two: tuple[Process, Process]) -> None:
    """What is served from memory is an event too, for those who want it."""
    mine, _ = two

    @mine.cache.lazy("user:{number}")
    def user(number: int) -> str:
        return "loaded"

    warm(lambda: user(1))
    counted = mine.cache.stats().local_hits
    seen: list[Any] = []
    stop = events.subscribe(seen.append, kinds=[CacheRead])
    try:
        user(1)
    finally:
        stop()
    user(1)
    assert [event.source for event in seen] == ["local"]
    assert mine.cache.stats().local_hits == counted + 2


def test_a_value_that_may_be_loaded_early_is_judged_at_each_read(two: tuple[Process, Process]) -> None:
    """Its reader throws dice, for which it must know what the value cost."""
    mine, _ = two

    @mine.cache.lazy("user:{number}", early=True)
    def user(number: int) -> str:
        return "loaded"

    warm(lambda: user(1))
    assert not mine.asks(lambda: user(1))
    assert user._shortcut.owner is None  # whom its key alone would do for


def test_add_and_incr_ask_the_store(two: tuple[Process, Process]) -> None:
    """What decides between processes is decided where all of them see it."""
    mine, other = two
    mine.cache.set("k", 1)
    mine.cache.get("k")
    mine.cache.get("k")
    other.cache.invalidate("k")
    mine.clock.advance(0.1)
    assert mine.asks(lambda: mine.cache.add("k", 2))
    assert [mine.cache.incr("n"), other.cache.incr("n"), mine.cache.incr("n")] == [1, 2, 3]


# ------------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    "options",
    [{"max_entries": 0}, {"max_entries": True}, {"max_bytes": 1.5}, {"ttl": 0}, {"ttl": float("inf")}],
    ids=str,
)
def test_bounds_are_positive(options: dict[str, Any]) -> None:
    """A tier without room is a mistake, and so is one without a whole number of entries."""
    with pytest.raises(ConfigurationError):
        Local(**options)


def test_nothing_is_kept_of_a_store_that_tells_of_no_changes() -> None:
    """A store of the user's own has no channel."""
    with pytest.raises(ConfigurationError, match="tells of no changes"):
        Cache(MemoryStore(), local=Local())


def test_whoever_reads_from_memory_is_counted(two: tuple[Process, Process]) -> None:
    """Not functions alone: a look at a key, one of several keys, a lookup, and what is loaded for a key."""
    mine, _ = two
    cache = mine.cache
    cache.set_many({"a": 1, "b": 2})
    ways = (
        lambda: cache.get("a"),
        lambda: cache.lookup("a"),
        lambda: cache.get_many(["a", "b"]),
        lambda: cache.get_or_load("a", lambda: 3),
    )
    for way in ways:
        warm(way)
        before = cache.stats()
        assert not mine.asks(way)
        after = cache.stats()
        read = after.hits - before.hits
        assert read == after.local_hits - before.local_hits == (2 if way is ways[2] else 1)


def test_stats_tell_what_is_kept(two: tuple[Process, Process]) -> None:
    """Hits from memory are hits."""
    mine, _ = two

    @mine.cache.lazy("user:{number}")
    def user(number: int) -> str:
        return "loaded"

    for _ in range(5):
        user(1)
    stats = mine.cache.stats()
    assert (stats.hits, stats.local_hits, stats.local_entries) == (4, 3, 1)
    assert 0 < stats.local_bytes < 2000
