"""Whose fault it is: the judgement against a model of the world, and instances that talk over one board."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilient import events
from resilient.errors import ConfigurationError
from resilient.health import FaultHere, FaultOver, Health, MemoryBoard, Peers, Status
from resilient.health._core import effect
from resilient.health._peers import Case, Word, judge, pack, unpack
from resilient.health._streak import Rule, Streak, step
from resilient.testing.clock import FakeClock

# ------------------------------------------------------------------------------------------------------ the judgement


class World(RuleBasedStateMachine):
    """A dependency that goes down and up, paths that are cut and mended, instances that look when they like."""

    @initialize(count=st.integers(2, 5))
    def begin(self, count):
        self.now = 0.0
        self.down_since: float | None = None
        self.paths = [True] * count
        self.passes: list[tuple[int, float]] = []
        self.streaks = [Streak()] * count
        self.cases: list[Case | None] = [None] * count
        self.words: dict[int, Word] = {}
        self.held_up: dict[int, Word] = {}

    def tick(self):
        self.now += 0.1

    @rule()
    def goes_down(self):
        self.tick()
        if self.down_since is None:
            self.down_since = self.now

    @rule()
    def comes_up(self):
        self.tick()
        self.down_since = None

    @rule(who=st.integers(0, 4))
    def is_cut(self, who):
        self.tick()
        if who < len(self.paths):
            self.paths[who] = False

    @rule(who=st.integers(0, 4))
    def is_mended(self, who):
        self.tick()
        if who < len(self.paths):
            self.paths[who] = True

    @rule(who=st.integers(0, 4))
    def a_word_lands_late(self, who):
        """The board went on after a stall. It knows when words were said, and keeps the newest."""
        self.tick()
        word = self.held_up.pop(who, None)
        if word is not None and (who not in self.words or self.words[who].began < word.began):
            self.words[who] = word

    @rule(who=st.integers(0, 4), pause=st.floats(0, 3), stalls=st.booleans())
    def looks(self, who, pause, stalls):
        """One probe: run, publish, listen, judge."""
        self.tick()
        self.now += pause
        if who >= len(self.paths):
            return
        good = self.paths[who] and self.down_since is None
        if good:
            self.passes.append((who, self.now))
        found = Status.PASS if good else Status.FAIL
        streak = step(self.streaks[who], found, began=self.now, ended=self.now, rule=Rule())
        self.streaks[who] = streak
        (self.held_up if stalls else self.words)[who] = Word(good, self.now)
        others = [word for each, word in self.words.items() if each != who]
        self.cases[who] = (
            None if good else judge(self.cases[who], others, first_bad=streak.first_bad, last_bad=streak.last_bad)
        )
        if not good and not any(word.good for word in others):
            assert not self.cases[who].local, "nobody passes, so it is everybody's"
        if (
            not good
            and any(word.good and streak.first_bad < word.began for word in others)
            and not any(not word.good for word in others)
        ):
            assert self.cases[who].local, "everybody else passes since, so it is this instance's own"

    @invariant()
    def whoever_is_out_failed_before_and_after_a_peer_passed(self):
        """The proof is in the history: a run of another that passed between two failed ones of this row."""
        for who, case in enumerate(getattr(self, "cases", [])):
            if case is not None and case.local:
                row = self.streaks[who]
                assert any(each != who and row.first_bad < at <= row.last_bad for each, at in self.passes)


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(
    st.integers(2, 6),
    st.floats(0.05, 3),
    st.lists(st.floats(0, 1), min_size=6, max_size=6),
    st.floats(1, 20),
    st.floats(2, 30),
    st.lists(st.floats(0, 5), min_size=1, max_size=7),
)
def test_an_outage_of_all_takes_nobody_out(count, interval, phases, begins, lasts, delays):
    """Instances are asked at their own times, and words take theirs; one outage is nobody's own at any moment."""
    looks = sorted(
        (interval * (phases[who] + at), who)
        for who in range(count)
        for at in range(int((begins + lasts) / interval) + 5)
    )
    streaks, cases, words = [Streak()] * count, dict[int, Case | None](), dict[int, Word]()
    on_their_way: list[tuple[float, int, Word]] = []
    for number, (now, who) in enumerate(looks):
        good = not begins <= now < begins + lasts
        found = Status.PASS if good else Status.FAIL
        streaks[who] = step(streaks[who], found, began=now, ended=now, rule=Rule())
        on_their_way.append((now + delays[number % len(delays)], who, Word(good, now)))
        for lands, whose, word in on_their_way:
            if lands <= now and (whose not in words or words[whose].began < word.began):
                words[whose] = word
        on_their_way = [each for each in on_their_way if each[0] > now]
        others = [word for each, word in words.items() if each != who]
        last = streaks[who]
        cases[who] = None if good else judge(cases.get(who), others, first_bad=last.first_bad, last_bad=last.last_bad)
        case = cases[who]
        assert case is None or not case.local


@given(
    st.integers(2, 6),
    st.floats(0.05, 3),
    st.lists(st.integers(0, 99).map(lambda hundredth: hundredth / 100), min_size=6, max_size=6, unique=True),
    st.floats(1, 20),
)
def test_a_cut_path_takes_its_instance_out_with_its_second_failed_run(count, interval, phases, begins):
    """As long as the others are asked as often: one of them passes in between. Nobody else goes out."""
    looks = sorted(
        (interval * (phases[who] + at), who) for who in range(count) for at in range(int(begins / interval) + 6)
    )
    streaks, cases, words = [Streak()] * count, dict[int, Case | None](), dict[int, Word]()
    failed = 0
    for now, who in looks:
        good = who != 0 or now < begins
        streaks[who] = step(streaks[who], Status.PASS if good else Status.FAIL, began=now, ended=now, rule=Rule())
        words[who] = Word(good, now)
        others = [word for each, word in words.items() if each != who]
        last = streaks[who]
        cases[who] = None if good else judge(cases.get(who), others, first_bad=last.first_bad, last_bad=last.last_bad)
        if who == 0 and not good:
            failed += 1
            assert cases[0].local is (failed >= 2)
        elif who:
            assert cases[who] is None


@given(st.dictionaries(st.text("abc", min_size=1), st.tuples(st.booleans(), st.floats(0, 100)), max_size=5))
def test_words_come_out_as_they_went_in(told):
    """Ages go over the wire, so that nobody's clock matters."""
    words = {name: Word(good, 1000.0 - age) for name, (good, age) in told.items()}
    heard = unpack(pack(words, now=1000.0), 50.0, told)
    assert {name: word.good for name, word in heard.items()} == {name: word.good for name, word in words.items()}
    assert all(abs((50.0 - heard[name].began) - (1000.0 - words[name].began)) < 0.001 for name in told)


@given(
    st.binary(max_size=60)
    | st.sampled_from(
        [b"[]", b'{"db":1}', b'{"db":[1,2]}', b'{"db":[true,-1]}', b'{"db":[true,1e999]}', b'{"db":[true,"1"]}']
    )
)
def test_what_is_no_word_is_left_out(raw):
    """A board may hold anything."""
    assert unpack(raw, 0.0, ["db"]) == {}


@pytest.mark.parametrize("raw", [b'{"db":[true,1' + b"0" * 400 + b"]}", b"[" * 100_000], ids=["huge", "deep"])
def test_what_cannot_be_read_is_left_out(raw):
    """One peer's nonsense does not keep the others from being heard."""
    assert unpack(raw, 0.0, ["db"]) == {}


@given(st.sampled_from(list(Status)), st.booleans(), st.sampled_from([None, "local", "shared"]))
def test_only_a_fault_shown_to_be_local_fails(status, critical, fault):
    """Under shared="peers" no word, or everybody failing, is a warning."""
    told = effect(status, critical=critical, scope="shared", shared="peers", fault=fault)
    if status > Status.WARN:
        assert told is (status if critical and fault == "local" else Status.WARN)
    else:
        assert told is status


# ------------------------------------------------------------------------------------------------------- on one board


class Instance:
    """One instance of a service with one database."""

    def __init__(self, board, clock, **options) -> None:
        self.good = True
        self.runs = 0
        self.health = Health(shared="peers", peers=Peers(board, service="shop", every=0.01), clock=clock)
        self.health.add("db", self.look, scope="shared", **{"ttl": 0, **options})
        self.clock = clock

    def look(self) -> bool:
        self.runs += 1
        return self.good

    def ask(self) -> tuple[str, str | None]:
        self.clock.advance(0.1)
        report = self.health.ready()
        until(lambda: self.health._party.lane._flight is None)  # it may still be telling the others
        return report.word, report.checks["db"].fault


def until(true, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


@pytest.fixture
def pair():
    clock = FakeClock()
    board = MemoryBoard(clock)
    made = Instance(board, clock), Instance(board, clock)
    yield made
    for each in made:
        each.health.close()


def test_an_instance_that_fails_alone_goes_out_and_comes_back(pair):
    """503 with the second failed run, the other stays in; mended, it is in at once. One event for each."""
    sink = events.MemorySink()
    end = events.subscribe(sink)
    a, b = pair
    a.ask(), b.ask()
    a.good = False
    assert a.ask() == ("warn", None)
    assert b.ask() == ("pass", None)
    assert a.ask() == ("fail", "local")
    assert b.ask() == ("pass", None)
    assert a.ask() == ("fail", "local")
    a.good = True
    assert a.ask() == ("pass", None)
    assert a.health._teller.finish(5)
    end()
    assert sink.of(FaultHere) == (FaultHere(check="db"),)
    assert sink.of(FaultOver) == (FaultOver(check="db"),)


def test_an_outage_of_all_warns_everywhere(pair):
    """From its first moment to its last, whoever notices first."""
    for good in (True, False, False, False, True, True, False, False, True):
        for each in pair:
            each.good = good
        for each in pair:
            assert each.ask()[0] == ("pass" if good else "warn")


def test_an_instance_that_is_out_comes_back_when_the_dependency_goes_down_for_all(pair):
    """Failing everywhere is everybody's fault, whatever was before."""
    a, b = pair
    a.ask(), b.ask()
    a.good = False
    a.ask(), b.ask()
    assert a.ask() == ("fail", "local")
    b.good = False
    b.ask()
    assert a.ask() == ("warn", "shared")


def test_no_word_from_peers_is_a_warning(pair):
    """An instance alone cannot tell; and words lapse."""
    a, b = pair
    a.good = False
    assert [a.ask()[0] for _ in range(5)] == ["warn"] * 5
    b.ask(), a.ask()
    assert a.ask() == ("fail", "local")
    a.clock.advance(16)
    assert a.ask() == ("warn", None)


def test_a_peer_looks_again_when_another_begins_to_fail():
    """Its outcome is still fresh, but says nothing about now: one run more, and the word is out with this probe."""
    clock = FakeClock()
    board = MemoryBoard(clock)
    a, b = Instance(board, clock), Instance(board, clock, ttl=100)
    b.ask(), a.ask()
    a.good = False
    assert a.ask() == ("warn", None)
    runs = b.runs
    assert b.ask() == ("pass", None)
    assert b.runs == runs + 1
    assert a.ask() == ("fail", "local")
    b.ask(), b.ask()
    assert b.runs == runs + 1


def test_an_instance_looks_again_when_a_peer_got_through_since():
    """Its failure is still fresh, but perhaps all is well again: the second look decides within the same report."""
    clock = FakeClock()
    board = MemoryBoard(clock)
    a, b = Instance(board, clock, ttl=100), Instance(board, clock)
    a.good = b.good = False
    a.ask(), b.ask()
    a.good = b.good = True
    b.ask()
    assert a.ask() == ("pass", None)
    a.health.close(), b.health.close()


def test_the_async_face_judges_alike(pair):
    """The same course, waited for on the loop."""
    a, b = pair
    a.good = False

    def ask(each: Instance) -> str:
        each.clock.advance(0.1)
        word = asyncio.run(each.health.aready()).word
        until(lambda: each.health._party.lane._flight is None)
        return word

    assert [ask(each) for each in (a, b, a, b, a)] == ["warn", "pass", "fail", "pass", "fail"]


class DeadBoard:
    """A board that fails, or hangs until it is let go."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        self.calls = 0

    def exchange(self, service, instance, words, ttl):
        self.calls += 1
        if self.gate is not None:
            assert self.gate.wait(20)
        raise ConnectionRefusedError("10.0.0.7")

    def leave(self, service, instance):
        raise ConnectionRefusedError("10.0.0.7")


def test_a_dead_board_warns_and_is_let_be():
    """Without peers a failure warns; the board is not asked with every probe, and closing does not raise."""
    board = DeadBoard()
    a = Instance(board, FakeClock())
    a.good = False
    assert [a.ask()[0] for _ in range(10)] == ["warn"] * 10
    assert board.calls == 1
    a.clock.advance(2)
    a.ask()
    assert board.calls == 2
    a.health.close()


def test_a_forked_child_has_no_case_of_its_parents(pair):
    """What was shown of the parent says nothing of the child: it tells of no fault that was not its own."""
    a, b = pair
    a.ask(), b.ask()
    a.good = False
    a.ask(), b.ask()
    assert a.ask() == ("fail", "local")
    a.health._party._reset()
    assert a.health._party.fault("db", a.health._lanes()["db"].streak) == (None, False)


def test_a_board_that_hangs_holds_a_report_up_once_and_briefly():
    """Within the deadline, and from the second probe on not at all."""
    gate = threading.Event()
    board = DeadBoard(gate)
    health = Health(shared="peers", peers=Peers(board, service="shop", timeout=0.2))
    health.add("db", lambda: False, scope="shared", ttl=0)
    began = time.monotonic()
    assert health.ready().word == "warn"
    assert time.monotonic() - began < 0.8
    for _ in range(5):
        began = time.monotonic()
        assert health.ready().word == "warn"
        assert time.monotonic() - began < 0.1
    assert board.calls == 1
    gate.set()


def test_while_all_is_well_nobody_waits_for_the_peers():
    """The words go out beside the report, not in it."""
    gate = threading.Event()
    health = Health(shared="peers", peers=Peers(DeadBoard(gate), service="shop", timeout=0.7))
    health.add("db", lambda: True, scope="shared")
    began = time.monotonic()
    assert health.ready().word == "pass"
    assert time.monotonic() - began < 0.5
    gate.set()


def test_services_on_one_board_do_not_hear_each_other():
    """They may have checks of the same name."""
    clock = FakeClock()
    board = MemoryBoard(clock)
    a, b = Instance(board, clock), Instance(board, clock)
    b.health = Health(shared="peers", peers=Peers(board, service="bank"), clock=clock)
    b.health.add("db", b.look, scope="shared", ttl=0)
    a.good = False
    assert [each.ask()[0] for each in (a, b, a, b, a)] == ["warn", "pass", "warn", "pass", "warn"]


def test_an_instance_that_closes_takes_its_words_back(pair):
    """Its pass must not keep another one out."""
    a, b = pair
    a.good = False
    a.ask(), b.ask()
    assert a.ask() == ("fail", "local")
    b.health.close()
    assert a.ask() == ("warn", None)


def test_an_observer_hears_and_has_no_say(pair):
    """What is reached from elsewhere is no witness: an outage stays everybody's; the observer is told whose it is."""
    a, b = pair
    outsider = Instance(a.health._peers.board, a.clock)
    outsider.health.observe()
    a.good = b.good = False
    for _ in range(3):
        assert [each.ask()[0] for each in (a, outsider, b)] == ["warn", "pass", "warn"]
    b.good = True
    outsider.good = False
    assert [outsider.ask()[0], b.ask()[0], outsider.ask()] == ["warn", "pass", ("fail", "local")]
    outsider.health.close()


def test_who_becomes_an_observer_takes_its_words_back(pair):
    """Also what it had already said."""
    a, b = pair
    a.good = False
    a.ask(), b.ask()
    assert a.ask() == ("fail", "local")
    b.health.observe()
    assert a.ask() == ("warn", None)
    b.ask()
    assert a.ask() == ("warn", None)


def test_who_becomes_an_observer_while_it_speaks_takes_that_back_too():
    """What is on its way cannot be held back; it is taken back at once."""
    gate, speaking = threading.Event(), threading.Event()

    class Slow(MemoryBoard):
        def exchange(self, *words):
            if not gate.is_set():
                speaking.set()
                assert gate.wait(20)
            return super().exchange(*words)

    board = Slow()
    health = Health(shared="peers", peers=Peers(board, service="shop"))
    health.add("db", lambda: True, scope="shared")
    health.ready()
    assert speaking.wait(5)
    health.observe()
    gate.set()
    until(lambda: health._party.lane._flight is None)
    assert board.exchange("shop", "b", b"{}", 15) == {}


def test_a_command_has_no_say(tmp_path, monkeypatch):
    """``resilient health`` and ``flask resilient health`` look, on whatever machine they run, and take nobody out."""
    import flask

    from resilient.cli import main
    from resilient.flask import Resilient

    board = MemoryBoard()
    made = [Health(shared="peers", peers=Peers(board, service="shop")) for _ in range(2)]
    for each in made:
        each.add("db", lambda: True, scope="shared")
    module = type(flask)("seen_from_here")
    module.health = made[0]
    monkeypatch.setitem(sys.modules, "seen_from_here", module)
    assert main(["health", "seen_from_here:health"]) == 0
    app = flask.Flask("shop")
    Resilient(app, health=made[1])
    assert app.test_cli_runner().invoke(args=["resilient", "health"]).exit_code == 0
    for each in made:
        until(lambda each=each: each._party.lane._flight is None and each._party.lane.history.runs)
    assert [raw for raw, _ in board.exchange("shop", "b", b"{}", 15).values()] == [b"{}", b"{}"]


def test_peers_may_judge_one_check_or_one_group_only():
    """shared="peers" of a check or of a group, the rest warning."""
    clock = FakeClock()
    board = MemoryBoard(clock)
    made = []
    for _ in range(2):
        health = Health(peers=Peers(board, service="shop", every=0.01), clock=clock)
        health.add("db", lambda: True, scope="shared", ttl=0)
        health.group("strict", ["db"], shared="peers")
        made.append(health)
    a, b = made
    good = [False]
    a.add("mail", lambda: good[0], scope="shared", ttl=0, shared="peers")
    b.add("mail", lambda: True, scope="shared", ttl=0, shared="peers")
    for each in (a, b, a, b):
        clock.advance(0.1)
        each.ready()
        until(lambda each=each: each._party.lane._flight is None)
    assert (a.ready().word, a.report("strict").word, a.report("all").word) == ("fail", "pass", "fail")


def test_what_only_warns_is_no_witness(pair):
    """Failing, it is told as a warning: that must not be taken for a pass by a peer who counts it as a failure."""
    a, _ = pair
    mild = Instance(a.health._peers.board, a.clock, at_worst=Status.WARN)
    a.good = mild.good = False
    for _ in range(3):
        assert [a.ask(), mild.ask()] == [("warn", None), ("warn", None)]
    mild.health.close()


@pytest.mark.parametrize(
    "arguments",
    [{"service": "a b"}, {"ttl": 0}, {"timeout": -1}, {"every": float("inf")}, {"target": 3}, {"target": "http://x"}],
)
def test_wrong_peers_are_refused(arguments):
    """Where they are written."""
    with pytest.raises(ConfigurationError):
        Peers(**{"target": MemoryBoard(), "service": "shop", **arguments})


@pytest.mark.parametrize(
    "write",
    [
        lambda: Health(shared="peers"),
        lambda: Health().add("db", lambda: True, shared="peers"),
        lambda: Health().group("g", shared="peers"),
    ],
)
def test_peers_as_a_rule_need_peers(write):
    """shared="peers" without any is refused wherever it is written."""
    with pytest.raises(ConfigurationError, match="peers"):
        write()
