"""The local tier against a server that changes, and a channel that tells of it late, or dies."""

from __future__ import annotations

import random
from collections import deque
from typing import Any, NamedTuple

import hypothesis.strategies as st
from hypothesis import given, settings

from resilient.cache._codecs import Codecs, Settings
from resilient.cache._entry import Entry, pack
from resilient.cache._journal import Journal
from resilient.cache._local import Local
from resilient.cache._local_coherence import LEASE, NO_TICKET, Coherence
from resilient.cache._local_tier import LocalTier
from resilient.cache._stamps import LIFE, namespace_key, number, planted, tag_key
from resilient.cache._tags import pack_tags
from resilient.testing import FakeClock

KEYS = ("s:a", "s:b")
NS, TAG = namespace_key("s"), tag_key("s", "t")
ALL = (*KEYS, NS, TAG)
CODEC = Codecs(Settings())()
OWNER = object()


class Read(NamedTuple):
    """A read on its way: what was asked for, its ticket, and what the server gave, once it did."""

    key: str
    ticket: int
    asked: float
    found: list[bytes | None] | None = None


class World:
    """One process, one server. Messages of the channel come in order, as late as they like.

    A value is a number that grows. What is served locally must not be older than what the server held one lease ago,
    and not older than the last change that was told.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = FakeClock()
        self.tier = LocalTier("s", Local(max_entries=3, max_bytes=100_000), self.clock)
        self.journal = Journal(10, NS)
        self.tier.heed(self.journal)
        self.count = 0
        self.server: dict[str, bytes | None] = dict.fromkeys(ALL)
        self.over: dict[bytes, float] = {}  # when what was there was replaced
        self.gone: set[bytes] = set()  # whose end was told
        self.values: dict[bytes, Any] = {}
        self.bears: dict[bytes, list[bytes | None]] = {}
        self.reads: list[Read] = []
        self.wire: deque[tuple[Any, ...]] = deque()
        self.session: int | None = None
        self.tracked = False  # by the server
        self.served = 0
        for key in (NS, TAG):
            self._store(key, planted(self.clock.wall(), LIFE))
        for key in KEYS:
            self._write(key)
        self.connect()
        self.ping()
        self.deliver(1)

    def _store(self, key: str, raw: bytes | None) -> None:
        before = self.server[key]
        if before is not None:
            self.over[before] = self.clock.monotonic()
        self.server[key] = raw
        if self.tracked:
            self.wire.append(("told", key, before))

    def _write(self, key: str) -> None:
        self.count += 1
        value = [self.count] if self.count % 2 else (self.count,)
        written, body = CODEC.encode(value)
        ns, tag = (number(self.server[each] or b"") for each in (NS, TAG))
        tags = pack_tags([("t", tag)]) if key == "s:a" else b""
        now = self.clock.wall()
        raw = pack(Entry(body, written, 0, 0, self.count, now, 900.0, 900.0, 0.0, generation=ns, tags=tags))
        self.values[raw] = value
        self.bears[raw] = [self.server[each] for each in self._keys(key)[1:]]
        self._store(key, raw)

    # ------------------------------------------------------------------------------------------------------ the server

    def foreign_write(self, key: str) -> None:
        self._write(key)

    def foreign_stamp(self, key: str) -> None:
        self._store(key, planted(self.clock.wall(), LIFE))

    def gone_from_the_server(self, key: str) -> None:
        self._store(key, None)

    # ----------------------------------------------------------------------------------------------------- the process

    def ask(self, key: str) -> None:
        self.reads.append(Read(key, self.tier.ticket(), self.clock.monotonic()))

    def _keys(self, key: str) -> tuple[str, ...]:
        return (key, NS, TAG) if key == "s:a" else (key, NS)

    def read(self, key: str) -> None:
        self.ask(key)
        self._step(-1)
        self._step(-1)

    def step_of_a_read(self, at: int) -> None:
        """The server answers a read, or the answer comes and is kept."""
        self._step(at % len(self.reads))

    def _step(self, at: int) -> None:
        read = self.reads[at]
        keys = self._keys(read.key)
        if read.found is None:
            self.reads[at] = read._replace(found=[self.server[key] for key in keys])
            return
        del self.reads[at]
        self.tier.keep(keys, read.found, read.ticket, read.asked)
        raw, *stamps = read.found
        if raw is not None and self.bears[raw] == stamps:  # else it is judged to be a miss
            self.tier.prepare(keys, read.found, self.values[raw], owner=OWNER, codec=CODEC)

    def own_change(self, key: str) -> None:
        before = self.server[key]
        if key in KEYS:
            self._write(key)
        else:
            self._store(key, planted(self.clock.wall(), LIFE))
        self.tier.forget([key])
        if before is not None:
            self.gone.add(before)

    def own_change_that_fails(self, key: str) -> None:
        """The server has not heard of it, and goes on giving what was there."""
        self.journal.add(key)
        self.tier.forget([key])
        before = self.server[key]
        if before is not None:
            self.gone.add(before)

    def retold(self) -> None:
        """It hears of it now."""
        batch = self.journal.begin()
        assert batch is not None
        for key in batch:
            self.own_change(key)
        self.journal.done(batch)

    # ----------------------------------------------------------------------------------------------------- the channel

    def connect(self) -> None:
        self.tracked = True
        self.wire.clear()
        self.session = self.tier.begun()

    def connect_anew(self) -> None:
        self.connect()
        self.ping()
        self.deliver(1)

    def ping(self) -> None:
        if self.tracked:
            self.wire.append(("heard", self.clock.monotonic(), None))

    def deliver(self, many: int) -> None:
        if self.session is None:
            return
        for _ in range(min(many, len(self.wire))):
            what, of, before = self.wire.popleft()
            if what == "heard":
                self.tier.heard(self.session, of)
            else:
                self.tier.told(self.session, [of.encode()])
                if before is not None:
                    self.gone.add(before)

    def dies_without_a_sign(self) -> None:
        """Nothing more is told, and what was on its way is lost."""
        self.tracked = False
        self.wire.clear()

    def cut(self) -> None:
        assert self.session is not None
        self.tier.cut(self.session)
        self.tracked, self.session = False, None
        assert not self.tier.live()
        assert self.tier.look(ALL) == [None] * len(ALL)

    def time_passes(self, seconds: float, heard: bool) -> None:
        self.clock.advance(seconds)
        self.ping()
        if heard and self.session is not None:
            self.deliver(20)

    # ----------------------------------------------------------------------------------------------------- what must be

    def _check(self, raw: bytes) -> None:
        assert raw not in self.gone, "the end of this was told"
        assert self.clock.monotonic() - self.over.get(raw, self.clock.monotonic()) < LEASE, "older than a lease"

    def what_is_kept_is_right(self) -> None:
        for raw in self.tier.look(ALL):
            if raw is not None:
                self._check(raw)

    def what_is_served_at_once_is_right(self) -> None:
        now = self.clock.monotonic()
        for slot in self.tier.table.values():
            ready = slot.ready
            if not (ready.owner is OWNER and now < ready.until and now < self.tier.until):
                continue
            if not all(stamp.alive for stamp in ready.stamps):
                continue
            self.served += 1
            self._check(slot.raw)
            for stamp in self.bears[slot.raw]:
                assert stamp is not None
                self._check(stamp)
            read = ready.read
            value = ready.value if read is None else read(ready.data[ready.at :])
            assert value == self.values[slot.raw]

    def step(self) -> None:
        """Anything that may happen, the usual more often."""
        key, dice = self.random.choice(KEYS), self.random.random()
        if dice < 0.3:
            self.read(key)
        elif dice < 0.38:
            self.ask(key)
        elif dice < 0.5 and self.reads:
            self.step_of_a_read(self.random.randrange(len(self.reads)))
        elif dice < 0.58:
            self.foreign_write(key)
        elif dice < 0.62:
            self.foreign_stamp(self.random.choice((NS, TAG)))
        elif dice < 0.63:
            self.gone_from_the_server(key)
        elif dice < 0.66:
            self.own_change(self.random.choice(ALL))
        elif dice < 0.67:
            self.own_change_that_fails(self.random.choice(ALL))
        elif dice < 0.8:
            self.deliver(self.random.choice((1, 2, 20)))
        elif dice < 0.93:
            self.time_passes(self.random.choice((0.05, 0.1, 0.4)), heard=self.random.random() < 0.7)
        elif dice < 0.96:
            self.dies_without_a_sign()
        elif not self.tracked:
            if dice < 0.98 and self.session is not None:
                self.cut()
            self.connect_anew()
        if self.journal and self.random.random() < 0.3:
            self.retold()
        self.what_is_kept_is_right()
        self.what_is_served_at_once_is_right()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_nothing_is_served_that_is_older_than_a_lease_or_whose_change_was_told(seed: int) -> None:
    """Whatever order reads, changes, messages and deaths of the channel come in; and much is served from memory."""
    world = World(seed)
    for _ in range(400):
        world.step()
    assert world.served > 20


def test_what_was_read_before_a_change_is_not_kept_after_it() -> None:
    """A reply that comes behind the push for its key is handed on but not kept; one asked for later is."""
    coherence = Coherence()
    coherence.heard(coherence.begun(), 0.0)
    before = coherence.ticket(0.5)
    coherence.changed("k")
    assert not coherence.keeps("k", before)
    assert coherence.keeps("other", before)
    assert coherence.keeps("k", coherence.ticket(0.5))


def test_a_reader_slower_than_what_is_remembered_keeps_nothing() -> None:
    """Of thousands of changes only the last are remembered; who asked before those may have missed one."""
    coherence = Coherence(remembered=3)
    coherence.heard(coherence.begun(), 0.0)
    before = coherence.ticket(0.0)
    for key in "abc":
        coherence.changed(key)
    assert coherence.keeps("d", before)
    coherence.changed("x")
    assert not coherence.keeps("d", before)
    assert coherence.keeps("d", coherence.ticket(0.0))


def test_the_lease_counts_from_the_question_not_from_the_answer() -> None:
    """An answer that was long on its way says little of now; and an older answer does not shorten the lease."""
    coherence = Coherence()
    session = coherence.begun()
    assert coherence.ticket(0.0) == NO_TICKET
    coherence.heard(session, 10.0)
    coherence.heard(session, 9.0)
    assert coherence.until == 10.0 + LEASE
    assert coherence.ticket(10.99) != NO_TICKET
    assert coherence.ticket(11.0) == NO_TICKET


def test_what_was_asked_for_under_one_channel_is_not_kept_under_the_next() -> None:
    """Between two channels anything may have changed untold."""
    coherence = Coherence()
    coherence.heard(coherence.begun(), 0.0)
    before = coherence.ticket(0.0)
    coherence.heard(coherence.begun(), 0.0)
    assert not coherence.keeps("k", before)


def test_an_older_channel_is_not_listened_to() -> None:
    """What a connection says that was replaced neither lengthens the lease nor ends it."""
    clock = FakeClock()
    tier = LocalTier("s", Local(), clock)
    old = tier.begun()
    tier.heard(tier.begun(), clock.monotonic())
    until = tier.until
    tier.keep([NS], [planted(clock.wall(), LIFE)], tier.ticket(), clock.monotonic())
    tier.heard(old, clock.monotonic() + 5)
    tier.told(old, None)
    tier.told(old, [NS.encode()])
    tier.cut(old)
    assert tier.until == until
    assert tier.look([NS]) != [None]
