"""Weighted choice. A share of the keys, always the same ones, and back where it fails."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient import events
from resilient.errors import ConfigurationError, InvalidInput, NotFound
from resilient.policy import WeightedChoice
from resilient.policy.events import ArmChanged

WEIGHTS = {"old": 100, "new": 10}


def arms(choice, keys=range(10_000)):
    return {key: choice.choose(f"user {key}") for key in keys}


@pytest.mark.parametrize("name", ["checkout", "search", "2026-11"])
def test_weights_are_shares_of_the_keys(name):
    """Weights of 10 and 100 give 9.1 % of 10,000 keys, give or take one, whatever is chosen."""
    chosen = list(arms(WeightedChoice(name, WEIGHTS)).values())
    assert abs(chosen.count("new") / len(chosen) - 10 / 110) <= 0.01


def test_a_key_keeps_its_arm_everywhere():
    """These are the same in every process and after every restart; a number and its text are one key."""
    choice = WeightedChoice("checkout", WEIGHTS)
    assert [key for key in range(30) if choice.choose(f"user {key}") == "new"] == [13, 17]
    assert all(choice.choose(key) == choice.choose(str(key)) == choice.choose(b"%d" % key) for key in range(200))


@pytest.mark.parametrize("drawn", [b"\x00" * 8, b"\xff" * 8])
def test_the_luckiest_and_the_unluckiest_key(monkeypatch, drawn):
    """The ends of what can be drawn have an arm like all others."""

    class Drawn:
        def __init__(self, *args, **options): ...
        def copy(self):
            return self

        def update(self, text): ...
        def digest(self):
            return drawn

    monkeypatch.setattr("hashlib.blake2b", Drawn)
    assert WeightedChoice("checkout", {"old": 1e-12, "new": 1e12}).choose("alice") == "new"
    assert WeightedChoice("checkout", {"old": 1, "new": 1}).choose("alice") == "old"


def test_any_text_is_a_key():
    """Also what is no valid Unicode, as it may come from a request."""
    assert WeightedChoice("checkout", WEIGHTS).choose("\ud800") in WEIGHTS


def test_another_choice_draws_anew():
    """Who is first to try one thing is not first to try everything."""
    one, other = (arms(WeightedChoice(name, {"old": 1, "new": 1})) for name in ("checkout", "search"))
    assert 0.45 < sum(one[key] == other[key] for key in one) / len(one) < 0.55


@given(
    before=st.floats(0.01, 100),
    more=st.floats(0.01, 100),
    others=st.lists(st.floats(0.01, 100), min_size=1, max_size=3),
)
def test_more_weight_only_draws_keys(before, more, others):
    """Raised step by step, a weight moves no key but to its own arm; lowered, none but away from it."""
    rest = {f"arm {number}": weight for number, weight in enumerate(others)}
    less = arms(WeightedChoice("checkout", {**rest, "new": before}), range(100))
    after = arms(WeightedChoice("checkout", {**rest, "new": before + more}), range(100))
    assert all(after[key] in {less[key], "new"} for key in less)


def test_an_arm_without_weight_gets_no_keys():
    """Neither the new one before its release, nor the old one after it."""
    assert set(arms(WeightedChoice("checkout", {"old": 1, "new": 0})).values()) == {"old"}
    assert set(arms(WeightedChoice("checkout", {"old": 0, "new": 1e12})).values()) == {"new"}


def test_an_error_rate_rolls_back(clock):
    """An arm of which every tenth call fails is withdrawn, for good; its users are served by the first arm."""
    choice = WeightedChoice("checkout", WEIGHTS, rate=0.1, min_calls=50, clock=clock)
    sink = events.MemorySink()
    unsubscribe = events.subscribe(sink, kinds=(ArmChanged,))
    served = {"old": 0, "new": 0}
    before = arms(choice)
    try:
        for key in range(10_000):
            clock.advance(0.01)
            try:
                with choice.turn(f"user {key}") as arm:
                    served[arm] += 1
                    if arm == "new" and served["new"] % 10 == 0:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
    finally:
        unsubscribe()
    assert served == {"old": 9950, "new": 50}
    assert [(told.arm, told.withdrawn, told.reason) for told in sink.events] == [
        ("new", True, "5 of 50 calls failed in 300 s")
    ]
    assert choice.withdrawn == {"new"}
    assert repr(choice) == "<weighted choice checkout: old 100, new 10, withdrawn: new>"
    clock.advance(1e6)
    assert set(arms(choice).values()) == {"old"}
    choice.restore("new")
    assert arms(choice) == before


def test_by_default_five_of_a_hundred_are_too_many(clock):
    """Once there have been fifty calls within five minutes, and not before."""
    choice = WeightedChoice("checkout", {"old": 0, "new": 1}, clock=clock)
    assert repr(choice) == "<weighted choice checkout: old 0, new 1>"
    for number in range(50):
        clock.advance(5)
        assert choice.choose("alice") == "new"
        with contextlib.suppress(ZeroDivisionError), choice.turn("alice"):
            if number >= 47:
                raise ZeroDivisionError
    assert choice.choose("alice") == "old"
    with choice.turn("alice"):
        clock.advance(100)
    assert choice.counts()["old"] == (1, 0, 0)


def test_the_first_arm_is_never_withdrawn(clock):
    """There is nothing to go back to, however much of it fails."""
    choice = WeightedChoice("checkout", {"old": 1, "new": 0}, min_calls=1, clock=clock)
    for _ in range(10):
        with pytest.raises(ZeroDivisionError), choice.turn("alice"):
            raise ZeroDivisionError
    assert choice.withdrawn == frozenset()
    assert choice.counts() == {"old": (10, 10, 0), "new": (0, 0, 0)}
    with pytest.raises(InvalidInput, match="give it the weight 0"):
        choice.withdraw("old")


@pytest.mark.parametrize(("error", "counted"), [(NotFound, True), (KeyboardInterrupt, False), (GeneratorExit, False)])
def test_what_is_no_failure_of_an_arm(clock, error, counted):
    """An answer that is no is an answer; an interrupt says nothing."""
    choice = WeightedChoice("checkout", {"old": 0, "new": 1}, min_calls=1, clock=clock)
    with pytest.raises(error), choice.turn("alice"):
        raise error
    assert choice.counts()["new"] == (int(counted), 0, 0)
    assert choice.withdrawn == frozenset()


def test_own_answers(clock):
    """Which errors are answers is for the user to say."""
    choice = WeightedChoice("checkout", {"old": 0, "new": 1}, min_calls=1, expected=KeyError, clock=clock)
    with pytest.raises(KeyError), choice.turn("alice"):
        raise KeyError
    with pytest.raises(NotFound), choice.turn("alice"):
        raise NotFound
    assert choice.withdrawn == {"new"}


def test_what_is_old_is_forgotten(clock):
    """Failures outside of the window withdraw nothing."""
    choice = WeightedChoice("checkout", {"old": 0, "new": 1}, rate=0.5, min_calls=2, window=10, clock=clock)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), choice.turn("alice"):
            raise ZeroDivisionError
        clock.advance(20)
    assert choice.withdrawn == frozenset()


def test_a_turn_of_an_arm_that_goes_meanwhile(clock, monkeypatch):
    """A call that was about to be given an arm gets the first one; one that runs there counts nothing any more."""
    choice = WeightedChoice("checkout", {"old": 1, "new": 1}, clock=clock)
    monkeypatch.setattr(choice, "choose", lambda key: "new")
    with choice.turn("alice") as arm:
        assert arm == "new"
        choice.withdraw("new")
    with choice.turn("alice") as arm:
        assert arm == "old"
    choice.restore("new")
    assert choice.counts()["new"] == (0, 0, 0)


def test_an_arm_by_hand_is_told_once(clock):
    """Withdrawn twice and restored once is one event of each."""
    sink = events.MemorySink()
    unsubscribe = events.subscribe(sink, kinds=(ArmChanged,))
    try:
        choice = WeightedChoice("checkout", WEIGHTS, clock=clock)
        choice.withdraw("new")
        choice.withdraw("new")
        choice.restore("new")
    finally:
        unsubscribe()
    assert [(told.choice, told.arm, told.withdrawn) for told in sink.events] == [
        ("checkout", "new", True),
        ("checkout", "new", False),
    ]
    with pytest.raises(InvalidInput, match="it has old, new"):
        choice.restore("newer")


def test_a_fork_takes_no_lock_along(clock):
    """A child counts on, whatever a thread of its parent held."""
    choice = WeightedChoice("checkout", {"old": 0, "new": 1}, min_calls=1, clock=clock)
    core = choice._cores["new"]
    held = core._lock
    held.acquire()
    choice._forked()
    assert core._lock is not held
    with pytest.raises(ZeroDivisionError), choice.turn("alice"):
        raise ZeroDivisionError
    assert choice.withdrawn == {"new"}


@pytest.mark.parametrize("key", [None, 1.5, True, ("alice",), object])
def test_a_key_that_may_change_is_refused(key):
    """With advice what to choose by instead."""
    with pytest.raises(InvalidInput, match="what stays the same"):
        WeightedChoice("checkout", WEIGHTS).choose(key)


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: WeightedChoice("", WEIGHTS), "is its name"),
        (lambda: WeightedChoice("x", {"old": 1}), "two or more arms"),
        (lambda: WeightedChoice("x", ["old", "new"]), "two or more arms"),
        (lambda: WeightedChoice("x", {1: 1, 2: 2}), "two or more arms"),
        (lambda: WeightedChoice("x", {"old": 1, "new": -1}), r"WeightedChoice\(weights\['new'\]=\.\.\.\) .* 0 or more"),
        (lambda: WeightedChoice("x", {"old": 1, "new": 2e12}), "at most 1e"),
        (lambda: WeightedChoice("x", {"old": 1, "new": math.nan}), "0 or more"),
        (lambda: WeightedChoice("x", {"old": 1, "new": math.inf}), "at most"),
        (lambda: WeightedChoice("x", {"old": 1, "new": "10"}), "0 or more"),
        (lambda: WeightedChoice("x", {"old": 0, "new": 0}), "all weights are zero"),
        (lambda: WeightedChoice("x", WEIGHTS, rate=0), "part of 1"),
        (lambda: WeightedChoice("x", WEIGHTS, min_calls=0), "from 1 up"),
        (lambda: WeightedChoice("x", WEIGHTS, window=0), "more than 0"),
        (lambda: WeightedChoice("x", WEIGHTS, expected="NotFound"), "classes of errors"),
        (lambda: WeightedChoice("x", WEIGHTS, expected=(KeyboardInterrupt,)), "classes of errors"),
        (lambda: WeightedChoice("x", WEIGHTS, clock=3), "is no clock"),
    ],
)
def test_nonsense_is_refused(make, advice):
    """At construction, with words that say what to write."""
    with pytest.raises(ConfigurationError, match=advice):
        make()
