import asyncio
import gc
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilient.errors import ConfigurationError
from resilient.policy import Budget, Hedge, Pipeline, Retry, _budget
from resilient.policy._budget import BudgetCore, budget_of
from resilient.testing import FakeClock


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


def refuse():
    raise ConnectionRefusedError


def retries(pipeline, calls=1):
    """How many retries so many failing calls got."""
    before = pipeline.stats().retried
    for _ in range(calls):
        with pytest.raises(ConnectionRefusedError):
            pipeline.call(refuse)
    return pipeline.stats().retried - before


def test_one_for_each_dependency(clock):
    """Pipelines of one name are one dependency: what one of them spends, none of the others has."""
    reads, writes = (Pipeline("orders", Retry(attempts=11, base=0), clock=clock) for _ in range(2))
    other = Pipeline("billing", Retry(attempts=11, base=0), clock=clock)
    assert retries(reads, calls=2) == 10
    assert retries(writes) == 0
    assert writes.stats().suppressed == 1
    assert retries(other) == 10


def test_hedges_and_retries_of_one_dependency_share_it(clock):
    """A pipeline that only hedges asks the budget that another one's retries have spent."""
    retrying = Pipeline("orders", Retry(attempts=11, base=0), clock=clock)
    hedging = Pipeline("orders", Hedge(delay=0.001), clock=clock)
    assert retries(retrying) == 10
    asyncio.run(hedging.idempotent.acall(asyncio.sleep, 0.02))
    assert (hedging.stats().hedged, hedging.stats().suppressed) == (0, 1)


def test_each_pays_with_its_own_calls(clock):
    """Calls that succeed pay for the retries of their own pipeline, once; what they paid in, all may spend."""
    reads, writes = (Pipeline("orders", Retry(attempts=11, base=0), clock=clock) for _ in range(2))
    assert retries(writes) == 10
    for _ in range(25):
        reads.call(len, "")
    assert retries(writes) == 0, "its own one call pays for a fifth"
    assert retries(reads) == 5, "a fifth of 25, and of that one call"
    assert retries(reads) == 0


def test_a_call_that_passes_several_of_them_counts_once(clock):
    """Pipelines of one name that stand inside each other get no more than one alone."""
    stack = [Pipeline("orders", Retry(attempts=4, base=0), clock=clock) for _ in range(3)]
    reached = []

    def fails():
        reached.append(1)
        raise ConnectionRefusedError

    for _ in range(1000):
        with pytest.raises(ConnectionRefusedError):
            stack[0].call(stack[1].call, stack[2].call, fails)
    assert len(reached) <= 1000 * 1.2 + 10


def test_pipelines_made_with_options_share_it(clock):
    """Options change no budget."""
    orders = Pipeline("orders", Retry(attempts=11, base=0), clock=clock)
    assert retries(orders.with_options(attempts=9)) == 8
    assert retries(orders) == 2


def test_other_numbers_are_another_budget(clock):
    """A pipeline that names other numbers neither changes those of its namesakes nor spends from them."""
    usual = Pipeline("orders", Retry(attempts=11, base=0), clock=clock)
    named = Pipeline("orders", Retry(attempts=11, base=0), Budget(burst=3), clock=clock)
    same = Pipeline("orders", Retry(attempts=11, base=0), Budget(), clock=clock)
    assert retries(named) == 3
    assert retries(usual) == 10
    assert retries(same) == 0


def test_clocks_share_nothing(clock):
    """Pipelines of one name on different clocks have budgets of their own."""
    orders = Pipeline("orders", Retry(attempts=11, base=0), clock=clock)
    assert retries(orders) == 10
    assert retries(Pipeline("orders", Retry(attempts=11, base=0), clock=FakeClock())) == 10
    assert retries(orders) == 0


def test_a_budget_goes_with_its_last_pipeline(clock):
    """Names that are not used any more take no memory, and what they spent is forgotten."""
    orders = Pipeline("orders", Retry(attempts=11, base=0), clock=clock)
    assert retries(orders) == 10
    assert len(_budget._budgets) == 1
    del orders
    gc.collect()
    assert not _budget._budgets
    assert retries(Pipeline("orders", Retry(attempts=11, base=0), clock=clock)) == 10


def test_a_count_that_runs_backwards_pays_once(clock):
    """A pipeline whose count is read lower than before gives nothing and takes nothing."""

    class Payer:
        total, paid = 5, 0

        def calls(self):
            return self.total

    budget = budget_of("orders", Budget(ratio=1, reserve=0, burst=5), clock)
    payer = Payer()
    assert sum(budget.ask(payer) for _ in range(9)) == 5
    for payer.total, granted in ((3, 0), (5, 0), (7, 2)):
        assert sum(budget.ask(payer) for _ in range(9)) == granted


def test_threads_share_a_budget_exactly(clock):
    """Threads that ask for several pipelines at once get no more than there is."""
    budget = budget_of("orders", Budget(ratio=1, reserve=0, burst=100), clock)
    states = [Pipeline("orders", Retry(), clock=clock)._slow.state for _ in range(4)]
    for state in states:
        for _ in range(25):
            state.ok()
    got = []
    threads = [threading.Thread(target=lambda s=s: got.extend(budget.ask(s) for _ in range(90))) for s in states * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 100 <= sum(got) <= 200


def test_threads_make_one_budget(clock):
    """Pipelines of one name that are made by many threads at once get one budget."""
    made, start = [], threading.Barrier(8)

    def make():
        start.wait()
        made.append(Pipeline("orders", Retry(), clock=clock))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each._slow.state.budget) for each in made}) == 1
