"""The state of a server, the proof of a copy, and the choice between copies."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resilient.causality import Gtid, Instant
from resilient.storage.replicas._health import Copy, Health, History, choose, judge_lag


def test_it_leaves_after_three_bad_probes_and_returns_after_three_good() -> None:
    """Two late answers change nothing and the third takes it out; two good ones change nothing, the third helps."""
    health = Health()
    states = []
    for target in ["up", "lagging", "lagging", "up", "lagging", "lagging", "lagging", "up", "up", "lagging"]:
        health.probed(target)
        states.append(health.state)
    assert states == ["up"] * 6 + ["lagging"] * 4
    for expected in ["lagging", "lagging", "up"]:
        health.probed("up")
        assert health.state == expected


def test_two_probes_without_an_answer_take_it_out() -> None:
    """One lost probe may be chance; the second is not."""
    health = Health()
    health.probed("up")
    health.probed("down")
    assert health.state == "up"
    health.probed("down")
    assert health.state == "down"


def test_a_callers_failure_takes_it_out_at_once() -> None:
    """A refused connection needs no probe; only three good probes bring it back, whatever was counted before."""
    health = Health()
    for _ in range(5):
        health.probed("up")
    health.failed()
    assert health.state == "down"
    health.probed("up")
    health.probed("up")
    assert health.state == "down"
    health.probed("up")
    assert health.state == "up"


def test_a_primary_is_back_with_one_good_probe() -> None:
    """There is no other primary to prefer."""
    health = Health(returns_after=1)
    health.failed("read_only")
    health.probed("up")
    assert health.state == "up"


@given(st.lists(st.sampled_from(["up", "lagging", "down"]), max_size=30))
def test_whoever_is_up_was_good_lately(targets: list) -> None:
    """A server is never up after three bad probes in a row, and never out after three good ones."""
    health = Health()
    for number, target in enumerate(targets):
        health.probed(target)
        last = targets[max(0, number - 2) : number + 1]
        if len(last) == 3 and all(each != "up" for each in last):
            assert health.state != "up"
        if len(last) == 3 and all(each == "up" for each in last):
            assert health.state == "up"


@given(
    st.lists(st.tuples(st.floats(0.01, 5), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(0, 200),
    st.integers(2, 100),
)
def test_a_proof_is_never_wider_than_the_truth(steps: list, held: int, size: int) -> None:
    """What is proven of a copy at a position is a moment before any commit that the copy lacks."""
    history = History(size)
    now, sequence = 1000.0, 1
    commits: list[tuple[float, int]] = []
    for pause, count in steps:
        asked = now  # the clock is read, then the primary is asked; commits may fall in between
        for _ in range(count):
            now += pause / 10
            sequence += 1
            commits.append((now, sequence))
        history.record(asked, Gtid({0: (1, sequence)}))
        now += pause
    proven = history.proven(Gtid({0: (2, held)}))
    if proven is not None:
        assert all(at > proven for at, number in commits if number > held)


def test_an_equal_position_moves_the_proof_on() -> None:
    """An idle primary proves its copies anew with each answer, in constant memory."""
    history = History(size=2)
    for at in range(100):
        history.record(float(at), Gtid({0: (1, 7)}))
    assert history.proven(Gtid({0: (1, 7)})) == 99.0
    assert history.proven(Gtid({0: (1, 6)})) is None
    assert history.proven(Gtid({1: (1, 7)})) is None


def test_each_position_of_a_full_history_is_known() -> None:
    """As many positions are kept as were asked for, each with its own moment; the oldest gives way."""
    history = History(size=2)
    for at in (1.0, 2.0):
        history.record(at, Gtid({0: (1, int(at))}))
    assert [history.proven(Gtid({0: (1, number)})) for number in (1, 2)] == [1.0, 2.0]
    history.record(3.0, Gtid({0: (1, 3)}))
    assert [history.proven(Gtid({0: (1, number)})) for number in (1, 2, 3)] == [None, 2.0, 3.0]


def test_a_proof_may_be_as_old_as_was_said_and_no_older() -> None:
    """A copy whose proof is older than the reader allows is not chosen, though it is idle."""
    candidates = [Copy(0, "up", 4.9, 0), Copy(1, "up", 5.0, 3)]
    assert choose(candidates, pin=None, oldest=5.0, turn=0) == 1
    assert choose(candidates[:1], pin=None, oldest=5.0, turn=0) is None
    assert choose(candidates, pin=None, oldest=None, turn=0) == 0


def test_unknown_is_lagging_and_never_zero() -> None:
    """Without a proof a copy is not good, whatever else it says."""
    assert judge_lag(None, 100.0, 2.0) == "lagging"
    assert judge_lag(100.0, None, 2.0) == "lagging"
    assert judge_lag(98.0, 100.0, 2.0) == "up"
    assert judge_lag(97.9, 100.0, 2.0) == "lagging"


copies = st.lists(
    st.builds(
        Copy,
        index=st.integers(0, 9),
        state=st.sampled_from(["unknown", "up", "lagging", "down"]),
        proven=st.none() | st.floats(0, 100),
        outstanding=st.integers(0, 5),
    ),
    max_size=6,
    unique_by=lambda copy: copy.index,
)


@given(copies, st.none() | st.floats(0, 100), st.none() | st.floats(0, 100), st.integers(0, 1000))
def test_only_a_proven_copy_is_chosen_and_the_least_busy_of_them(
    given_copies: list, pin: float | None, oldest: float | None, turn: int
) -> None:
    """The chosen one is up, proven for the reader and fresh; no other such copy is less busy; none means none fits."""
    position = None if pin is None else Instant(pin)
    chosen = choose(given_copies, pin=position, oldest=oldest, turn=turn)
    fit = [
        each
        for each in given_copies
        if each.state == "up" and each.proven is not None and each.proven >= (pin or 0) and each.proven >= (oldest or 0)
    ]
    if chosen is None:
        assert fit == []
    else:
        found = next(each for each in given_copies if each.index == chosen)
        assert found in fit
        assert found.outstanding == min(each.outstanding for each in fit)


def test_a_position_of_another_kind_pins_to_the_primary() -> None:
    """A token that this set cannot compare is safe: no replica serves it."""
    assert choose([Copy(0, "up", 1e12, 0)], pin=Gtid({0: (1, 1)}), oldest=None, turn=0) is None
