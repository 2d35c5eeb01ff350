import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilient.errors import ConfigurationError
from resilient.policy import Budget, Pipeline, Retry
from resilient.policy._budget import BudgetCore


def test_a_quiet_process_may_retry():
    """The reserve refills with time alone, up to the burst."""
    core = BudgetCore(ratio=0.2, reserve=1.0, burst=2, now=0.0)
    assert [core.take(0.0, 0) for _ in range(3)] == [True, True, False]
    assert core.take(1.0, 0)
    assert not core.take(1.5, 0)
    assert [core.take(100.0, 0) for _ in range(3)] == [True, True, False]


def test_calls_pay_for_extra_calls():
    """Five calls at a ratio of a fifth pay for one extra."""
    core = BudgetCore(ratio=0.2, reserve=0.0, burst=1, now=0.0)
    assert core.take(0.0, 0)
    assert not core.take(0.0, 4)
    assert core.take(0.0, 5)
    assert not core.take(0.0, 5)
    assert (core.granted, core.refused) == (2, 2)


def test_numbers_that_run_backwards_give_nothing():
    """A clock or a count that another thread read earlier adds nothing and takes nothing."""
    core = BudgetCore(ratio=1.0, reserve=1.0, burst=1, now=10.0)
    assert core.take(10.0, 10)
    assert not core.take(5.0, 3)
    assert not core.take(10.0, 10)
    assert core.take(11.0, 10)


def test_threads_share_it_exactly():
    """Threads together get no more than there is."""
    core = BudgetCore(ratio=0.0, reserve=0.0, burst=50, now=0.0)
    got = []
    threads = [threading.Thread(target=lambda: got.extend(core.take(0.0, 0) for _ in range(50))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == 50


class BudgetMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, extra calls stay below the line, and none is refused without cause."""

    @initialize(ratio=st.floats(0, 1), reserve=st.floats(0, 5), burst=st.floats(1, 20))
    def start(self, ratio, reserve, burst):
        self.core = BudgetCore(ratio, reserve, burst, 0.0)
        self.at, self.calls, self.granted = 0.0, 0, 0
        self.model = burst
        self.line = burst

    @rule(seconds=st.floats(0, 10))
    def pass_time(self, seconds):
        self.at += seconds
        self.model = min(self.core.burst, self.model + seconds * self.core.reserve)
        self.line += seconds * self.core.reserve

    @rule(count=st.integers(0, 50))
    def call(self, count):
        self.calls += count
        self.model = min(self.core.burst, self.model + count * self.core.ratio)
        self.line += count * self.core.ratio

    @rule()
    def ask(self):
        granted = self.core.take(self.at, self.calls)
        if abs(self.model - 1) > 1e-6:  # at the edge, rounding decides
            assert granted == (self.model >= 1)
        self.granted += granted
        self.model = max(0.0, self.model - granted)

    @invariant()
    def below_the_line(self):
        if hasattr(self, "core"):
            assert self.granted <= self.line + 1e-6


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_retries_stop_when_it_is_used_up(clock):
    """A pipeline whose budget is used up hands errors on at once, and says so."""
    pipeline = Pipeline("x", Retry(attempts=3), Budget(ratio=0, reserve=0, burst=3), clock=clock)
    tries = []

    def fails():
        tries.append(1)
        raise ConnectionRefusedError

    for expected in (3, 5, 6):
        with pytest.raises(ConnectionRefusedError):
            pipeline.call(fails)
        assert len(tries) == expected
    assert pipeline.stats().suppressed == 2


def test_it_is_on_by_default(clock):
    """A pipeline that retries without naming a budget has one."""
    pipeline = Pipeline("x", Retry(attempts=4), clock=clock)
    tries = []

    def fails():
        tries.append(1)
        clock.advance(0.01)
        raise ConnectionRefusedError

    for _ in range(1000):
        with pytest.raises(ConnectionRefusedError):
            pipeline.call(fails)
    assert len(tries) <= 1000 * 1.2 + 10 + sum(clock.slept) + len(tries) * 0.01


@given(burst=st.floats(max_value=0.99) | st.just(float("nan")))
def test_a_burst_below_one_is_refused(burst):
    """A bucket that can never hold one call is refused."""
    with pytest.raises(ConfigurationError):
        Budget(burst=burst)


@pytest.mark.parametrize("options", [{"ratio": -0.1}, {"reserve": -1}, {"ratio": "a"}])
def test_nonsense_is_refused(options):
    """Bad numbers are refused where they are written."""
    with pytest.raises(ConfigurationError):
        Budget(**options)
