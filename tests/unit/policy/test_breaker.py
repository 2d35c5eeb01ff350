"""The core, with time handed in. The rows of the correctness table stand in test_correctness_table.py."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from resilient import events
from resilient.errors import CircuitOpen, ConfigurationError
from resilient.policy import Breaker, Pipeline
from resilient.policy._breaker import SLICES, BreakerCore
from resilient.policy.events import BreakerChanged


def make(*, tell=None, draw=lambda: 0.5, **options):
    return BreakerCore(Breaker(**options), tell, draw)


def enter(core, now):
    """What a compiled pipeline does before a call."""
    generation = core.now
    return core.enter(now) if now >= generation.until else generation


def fail(core, now, times=1):
    for _ in range(times):
        core.failed(enter(core, now), now)


def succeed(core, now, times=1):
    for _ in range(times):
        enter(core, now).ok()


def test_opens_at_the_rate_and_not_before():
    """Nine failures of nine are too few to judge; the tenth opens it."""
    core = make()
    fail(core, 0.0, 9)
    assert core.state == "closed"
    fail(core, 0.0)
    assert core.state == "open"


def test_the_rate_is_of_all_calls_in_the_window():
    """Failures below the rate leave it closed, however many they are."""
    core = make(rate=0.5)
    succeed(core, 0.0, 90)
    fail(core, 1.0, 89)
    assert core.state == "closed"
    assert core.counts(1.0) == (179, 89, 0)
    fail(core, 1.0)
    assert core.state == "open"


def test_what_is_older_than_the_window_does_not_count():
    """Old successes do not hide a new outage, and old failures do not blame a healthy dependency."""
    core = make(window=10.0)
    succeed(core, 0.0, 1000)
    fail(core, 10.0, 10)
    assert core.state == "open"
    core = make(window=10.0)
    fail(core, 0.0, 9)
    assert core.counts(9.99) == (9, 9, 0)
    fail(core, 10.0)
    assert core.state == "closed"
    assert core.counts(10.0) == (1, 1, 0)


@pytest.mark.parametrize("window", [0.5, 5.0, 20.0, 3600.0])
def test_windows_of_any_length(window):
    """Failures and slow calls stay in the window for its length, less at most a tenth, and then leave it."""
    core = make(window=window, slow=0.001, min_calls=100)
    core.failed(enter(core, 0.0), 0.0, slow=True)
    core.failed(enter(core, 0.0), 0.0, slow=True)
    core.slow(enter(core, 0.0), 0.0)
    succeed(core, window * 0.55)
    assert core.counts(window * 0.85) == (4, 2, 3)
    assert core.counts(window * 1.05) == (1, 0, 0)
    assert core.counts(window * 1.65) == (0, 0, 0)


def test_refusals_shortly_before_the_probe():
    """The wait that is left is told exactly, also when it is short."""
    core = make(min_calls=1, wait=5)
    fail(core, 0.0)
    with pytest.raises(CircuitOpen) as caught:
        enter(core, 4.75)
    assert caught.value.retry_after == 0.25


def test_the_wait_grows_up_to_its_limit_and_shrinks_after_closing():
    """Each failed probe doubles the wait; a success resets it."""
    core = make(min_calls=1, wait=5, max_wait=15)
    now, waits = 0.0, []
    fail(core, now)
    for _ in range(4):
        waits.append(core.retry_after(now))
        now += core.retry_after(now)
        fail(core, now)
    assert waits == [5, 10, 15, 15]
    now += core.retry_after(now)
    succeed(core, now)
    assert core.state == "closed"
    fail(core, now)
    assert core.retry_after(now) == 5


def test_the_wait_survives_absurd_numbers():
    """After thousands of failed probes the wait is still its limit."""
    core = make(min_calls=1, wait=1, max_wait=60)
    core._trips = 5000
    fail(core, 0.0)
    assert core.retry_after(0.0) == 60


@pytest.mark.parametrize(("drawn", "wait"), [(0.0, 4.0), (1.0, 6.0)])
def test_the_wait_is_jittered(drawn, wait):
    """The wait varies by a fifth either way."""
    core = make(min_calls=1, wait=5, draw=lambda: drawn)
    fail(core, 0.0)
    assert core.retry_after(0.0) == pytest.approx(wait)


def test_several_probes_and_successes():
    """As many probes as configured may run at once, and so many must succeed before it closes."""
    core = make(min_calls=1, probes=2, successes=3)
    fail(core, 0.0)
    first, second = enter(core, 10), enter(core, 10)
    with pytest.raises(CircuitOpen):
        enter(core, 10)
    first.ok()
    third = enter(core, 10)
    second.ok()
    assert core.state == "half_open"
    third.ok()
    assert core.state == "closed"


def test_a_probe_counts_once():
    """Saying twice that a probe succeeded is one success, and a late failure of it is none."""
    core = make(min_calls=1, successes=2)
    fail(core, 0.0)
    probe = enter(core, 10)
    probe.ok()
    probe.ok()
    core.failed(probe, 10)
    assert core.state == "half_open"
    assert core._out == 0
    assert not core._settle(probe)


def test_a_probe_that_was_told_twice_changes_nothing():
    """The second word of a probe neither closes the breaker, nor opens it, nor frees a place that is not its own."""
    core = make(min_calls=1, wait=5, probes=2, successes=2)
    fail(core, 0.0)
    probe, other = enter(core, 10.0), enter(core, 10.0)
    probe.ok()
    probe.ok()
    assert core.state == "half_open"
    core.failed(probe, 10.0)
    assert core.state == "half_open"
    third = enter(core, 10.0)
    with pytest.raises(CircuitOpen):
        enter(core, 10.0)
    core.released(third)
    other.ok()
    assert core.state == "closed"


def test_a_probe_of_an_earlier_half_open_time_counts_nothing():
    """A probe that outlived its time neither closes nor opens the breaker that probes anew, and frees no place."""
    core = make(min_calls=1, wait=5, probes=2)
    fail(core, 0.0)
    late = enter(core, 10.0)
    core.failed(enter(core, 10.0), 10.0)
    later = enter(core, 30.0)
    late.ok()
    assert core.state == "half_open"
    other = enter(core, 30.0)
    with pytest.raises(CircuitOpen):
        enter(core, 30.0)
    core.released(other)
    later.ok()
    assert core.state == "closed"


def test_within_a_slice_nobody_asks():
    """Between two slices of the window, calls go ahead without the lock."""
    core = make(window=10.0)
    enter(core, 3.2)
    assert core.now.until == 4.0
    enter(core, 4.0)
    assert core.now.until == 5.0


def test_a_few_slow_calls_do_not_open_it():
    """The part of slow calls must be reached, also when a failure makes the breaker judge."""
    core = make(slow=1.0, slow_rate=0.5, rate=0.5, min_calls=10)
    succeed(core, 0.0, 9)
    core.slow(enter(core, 0.0), 0.0)
    fail(core, 0.0)
    assert core.state == "closed"
    assert core.counts(0.0) == (11, 1, 1)


def test_a_dropped_probe_gives_its_place_back():
    """A probe whose caller vanished does not block the breaker for ever."""
    core = make(min_calls=1, probes=3)
    fail(core, 0.0)
    probes = [enter(core, 10), enter(core, 10), enter(core, 10)]
    with pytest.raises(CircuitOpen):
        enter(core, 10)
    probes.pop()  # at once, without the cycle collector
    kept = enter(core, 10)
    with pytest.raises(CircuitOpen):
        enter(core, 10)
    kept.ok()
    assert core.state == "closed"


def test_a_dropped_probe_of_the_past_gives_nothing_back():
    """A probe from before the last change does not free a place it never held."""
    core = make(min_calls=1, probes=2)
    fail(core, 0.0)
    old = enter(core, 10)
    fail(core, 10)
    probes = [enter(core, 30), enter(core, 30)]
    del old
    with pytest.raises(CircuitOpen):
        enter(core, 30)
    assert len(probes) == 2


def test_slow_calls_open_it():
    """A dependency that answers late is as bad as one that fails."""
    core = make(slow=1.0, slow_rate=0.5, min_calls=4)
    succeed(core, 0.0, 2)
    core.slow(enter(core, 0.0), 2.0)
    assert core.state == "closed"
    assert core.counts(2.0) == (3, 0, 1)
    core.slow(enter(core, 0.0), 2.0)
    assert core.state == "open"
    core.slow(enter(core, 30.0), 32.0)
    assert core.state == "open", "a slow probe is no recovery"
    assert core.successes() == 4


def test_changes_say_why():
    """Each change is told with its reason, in words for people."""
    told = []
    core = make(min_calls=1, slow=1.0, slow_rate=1.0, tell=lambda *change: told.append(change))
    core.slow(enter(core, 0.0), 2.0)
    core.slow(enter(core, 10.0), 12.0)
    fail(core, 30.0)
    core.isolate()
    core.close()
    fail(core, 30.0)
    succeed(core, 40.0)
    assert told == [
        ("closed", "open", "1 of 1 calls took longer than 1 s"),
        ("open", "half_open", "the wait is over"),
        ("half_open", "open", "a probe was slow"),
        ("open", "half_open", "the wait is over"),
        ("half_open", "open", "a probe failed"),
        ("open", "isolated", "isolated by hand"),
        ("isolated", "closed", "closed by hand"),
        ("closed", "open", "1 of 1 calls failed in 10 s"),
        ("open", "half_open", "the wait is over"),
        ("half_open", "closed", "1 of 1 probes succeeded"),
    ]
    assert core.retry_after(40.0) is None


def test_slow_failures_count_as_slow_too():
    """Failures that took long speak twice against it."""
    core = make(slow=1.0, slow_rate=0.2, rate=1.0, min_calls=5)
    succeed(core, 0.0, 4)
    core.failed(enter(core, 0.0), 0.0, slow=True)
    assert core.state == "open"


def test_metrics_only_never_refuses():
    """It tells that it would open, once in each window, and goes on counting."""
    told = []
    core = make(min_calls=5, metrics_only=True, tell=lambda *change: told.append(change))
    fail(core, 0.0, 9)
    assert core.state == "closed"
    assert told == [("closed", "would_open", "5 of 5 calls failed in 10 s")]
    assert core.counts(0.0) == (9, 9, 0)
    fail(core, 9.0)
    assert len(told) == 1
    fail(core, 10.0, 5)
    assert len(told) == 2


def test_by_hand():
    """Isolated, it refuses all until it is closed by hand; results from before count nothing."""
    told = []
    core = make(tell=lambda *change: told.append(change[:2]))
    before = enter(core, 0.0)
    core.isolate()
    core.isolate()
    core.failed(before, 0.0)
    with pytest.raises(CircuitOpen) as caught:
        enter(core, 10_000.0)
    assert caught.value.retry_after is None
    core.close()
    core.close()
    succeed(core, 10_000.0)
    assert told == [("closed", "isolated"), ("isolated", "closed")]


def test_closing_forgets():
    """After closing by hand the window is empty and the wait is short again; the total stays."""
    core = make(wait=5)
    for _ in range(2):
        succeed(core, 0.0, 5)
        fail(core, 0.0, 4)
        core.close()
    assert core.successes() == 10
    assert core.counts(0.0) == (0, 0, 0)
    fail(core, 0.0, 10)
    core.close()
    fail(core, 0.0, 10)
    assert core.retry_after(0.0) == 5
    assert core.counts(0.0) == (0, 0, 0), "an open breaker counts nothing"


def test_refusals_say_when_to_come_back():
    """The error of an open breaker carries the seconds until a probe may be made."""
    core = make(min_calls=1, wait=5)
    fail(core, 0.0)
    with pytest.raises(CircuitOpen) as caught:
        enter(core, 2.0)
    assert caught.value.retry_after == 3
    assert core.rejected == 1


def test_successes_are_counted_across_generations():
    """The total of successes survives changes of state."""
    core = make(min_calls=2, metrics_only=True)
    succeed(core, 0.0, 3)
    fail(core, 0.0, 3)
    succeed(core, 0.0, 2)
    core.close()
    succeed(core, 0.0)
    assert core.successes() == core.successes() == 6
    core = make(min_calls=1)
    succeed(core, 0.0, 3)
    fail(core, 20.0)
    assert core.successes() == 3
    succeed(core, 60.0)
    assert core.successes() == 4
    fail(core, 90.0)
    succeed(core, 120.0)
    assert core.successes() == 5


def test_changes_are_events(clock):
    """Each change of state is one event, told with the numbers that caused it."""
    sink = events.MemorySink()
    unsubscribe = events.subscribe(sink, kinds=(BreakerChanged,))
    try:
        pipeline = Pipeline("orders-db", Breaker(min_calls=1), clock=clock)
        with pytest.raises(ConnectionError), pipeline.breaker.permit():
            raise ConnectionError
        clock.advance(10)
        assert pipeline.call(len, "abc") == 3
    finally:
        unsubscribe()
    assert [(event.old, event.new) for event in sink.events] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]
    assert sink.events[0].reason == "1 of 1 calls failed in 10 s"


def test_a_listener_may_use_the_breaker():
    """A listener is called without the lock, so it may ask and steer."""

    def close(old, new, reason):
        if new == "open":
            core.close()

    core = make(min_calls=1, tell=close)
    fail(core, 0.0)
    assert core.state == "closed"


def test_failures_in_a_row():
    """With ``consecutive``, so many failures with no success between them open it, however few calls there are."""
    told = []
    core = make(consecutive=3, tell=lambda *change: told.append(change))
    fail(core, 0.0, 2)
    succeed(core, 0.0)
    fail(core, 0.0, 2)
    assert core.state == "closed"
    fail(core, 60.0)
    assert core.state == "open", "a row does not end with the window"
    assert told == [("closed", "open", "3 calls failed in a row")]
    succeed(core, 120.0)
    fail(core, 120.0, 2)
    assert core.state == "closed", "a row begins anew after closing"


def test_without_a_row_the_rate_judges():
    """Without ``consecutive``, failures in a row are only failures; with it, the rate still judges."""
    core = make(min_calls=20)
    fail(core, 0.0, 19)
    assert core.state == "closed"
    core = make(min_calls=4, consecutive=3)
    for _ in range(2):
        succeed(core, 0.0)
        fail(core, 0.0)
    assert core.state == "open"


def test_a_refusal_says_what_it_is(clock):
    """The error of a breaker that refuses names the pipeline and the state, and says what to do."""
    pipeline = Pipeline("x", Breaker(min_calls=1), clock=clock)
    pipeline.breaker.permit().failure(ConnectionError())
    clock.advance(60)
    probe = pipeline.breaker.permit()
    for _ in range(2):
        with pytest.raises(CircuitOpen) as caught:
            pipeline.breaker.permit()
        assert str(caught.value) == (
            "x: the call was not made: the breaker is half-open; "
            "the dependency failed lately; serve a substitute or come back later"
        )
        assert caught.value.retry_after is None
    assert pipeline._slow.state.breaker.rejected == 2
    probe.success()


def test_permits_settle_once(clock):
    """A permit is judged by the pipeline's classifier, and only its first word counts."""
    pipeline = Pipeline("x", Breaker(min_calls=2), clock=clock)
    permit = pipeline.breaker.permit()
    permit.failure(ValueError("wrong request"))
    permit.failure(ConnectionError())
    permit.release()
    permit.success()
    assert pipeline.breaker.counts() == (0, 0, 0)
    for _ in range(2):
        pipeline.breaker.permit().failure(TimeoutError())
    assert pipeline.breaker.state == "open"
    assert pipeline.breaker.retry_after > 0
    with pytest.raises(CircuitOpen, match="x: the call was not made"):
        pipeline.breaker.permit()
    clock.advance(20)
    permit = pipeline.breaker.permit()
    permit.failure(KeyboardInterrupt())
    assert pipeline.breaker.state == "half_open"
    pipeline.breaker.permit().success()
    assert pipeline.breaker.state == "closed"
    pipeline.breaker.permit().release()


def test_permits_measure_slow_calls(clock):
    """A permit of a breaker that looks at durations measures from the permit on."""
    pipeline = Pipeline("x", Breaker(min_calls=1, slow=1.0), clock=clock)
    with pipeline.breaker.permit():
        clock.advance(2)
    assert pipeline.breaker.state == "open"


def test_what_was_answered_counts_as_success(clock):
    """A conflict or a missing thing is an answer: the dependency lives. A wrong request says nothing."""
    from resilient.errors import Conflict, NotFound

    pipeline = Pipeline("x", Breaker(), clock=clock)
    for error in (Conflict("x"), NotFound("x"), ValueError("x"), RuntimeError("nobody knows it")):
        with pytest.raises(type(error)), pipeline.breaker.permit():
            raise error
    assert pipeline.breaker.counts() == (3, 1, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 0},
        {"rate": 1.5},
        {"rate": "half"},
        {"slow_rate": -0.5},
        {"min_calls": 0},
        {"min_calls": 2.0},
        {"probes": 0},
        {"successes": 0},
        {"window": 0},
        {"window": math.inf},
        {"wait": -1},
        {"wait": 10, "max_wait": 5},
        {"slow": 0},
        {"counts": [OSError]},
        {"consecutive": 0},
    ],
)
def test_nonsense_is_refused(options):
    """Bad numbers are refused where they are written."""
    with pytest.raises(ConfigurationError, match=r"Breaker\("):
        Breaker(**options)


class BreakerMachine(RuleBasedStateMachine):
    """The core against a model that keeps every single result with its slice."""

    calls = Bundle("calls")

    @initialize(
        rate=st.sampled_from([0.1, 0.5, 0.75, 1.0]),
        min_calls=st.integers(1, 6),
        probes=st.integers(1, 3),
        successes=st.integers(1, 3),
    )
    def start(self, rate, min_calls, probes, successes):
        self.policy = Breaker(
            rate=rate, min_calls=min_calls, probes=probes, successes=successes, window=10, wait=4, max_wait=16
        )
        self.at = 0.0
        self.core = BreakerCore(self.policy, None, lambda: 0.5)
        self.state = "closed"
        self.epoch = 0
        self.results = []  # (slice, failed) of the closed state
        self.trips = 0
        self.reopen = 0.0
        self.out = 0
        self.streak = 0

    def change(self, state):
        self.state = state
        self.epoch += 1
        self.results = []
        self.out = self.streak = 0

    def trip(self):
        self.reopen = self.at + min(16, 4 * 2**self.trips)
        self.trips += 1
        self.change("open")

    def window(self):
        now = math.floor(self.at)
        return [failed for slice_, failed in self.results if slice_ > now - SLICES]

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0, 3.0, 9.0, 10.0, 20.0]))
    def pass_time(self, seconds):
        self.at += seconds

    @rule(target=calls)
    def begin(self):
        if self.state == "open" and self.at >= self.reopen:
            self.change("half_open")
        allowed = self.state == "closed" or (self.state == "half_open" and self.out < self.policy.probes)
        if not allowed:
            with pytest.raises(CircuitOpen):
                enter(self.core, self.at)
            return None
        self.out += self.state == "half_open"
        return [enter(self.core, self.at), self.state, self.epoch]

    def ended(self, call):
        """Whether a result of this call counts in the model."""
        return call[2] == self.epoch

    @rule(call=calls)
    def succeed(self, call):
        if call is None or call[0] is None:
            return
        call[0].ok()
        if self.ended(call):
            if self.state == "closed":
                # a success is counted in the slice that the breaker has seen last, which is the present one here
                self.results.append((math.floor(self.at), False))
            else:
                self.out -= 1
                self.streak += 1
                if self.streak >= self.policy.successes:
                    self.change("closed")
                    self.trips = 0
        call[0] = None

    @rule(call=calls)
    def fail(self, call):
        if call is None or call[0] is None:
            return
        self.core.failed(call[0], self.at)
        if self.ended(call):
            if self.state == "closed":
                self.results.append((math.floor(self.at), True))
                results = self.window()
                if len(results) >= self.policy.min_calls and sum(results) >= self.policy.rate * len(results):
                    self.trip()
            else:
                self.trip()
        call[0] = None

    @rule(call=calls)
    def cancel(self, call):
        if call is None or call[0] is None:
            return
        self.core.released(call[0])
        if self.ended(call) and self.state == "half_open":
            self.out -= 1
        call[0] = None

    @rule()
    def isolate(self):
        self.core.isolate()
        if self.state != "isolated":
            self.change("isolated")

    @rule()
    def close(self):
        self.core.close()
        self.trips = 0
        self.change("closed")  # closed again or still: what began before counts no more

    @invariant()
    def same_state(self):
        if hasattr(self, "core"):
            assert self.core.state == self.state

    @invariant()
    def same_window(self):
        if hasattr(self, "core") and self.state == "closed":
            results = self.window()
            assert self.core.counts(self.at) == (len(results), sum(results), 0)


# Results that come before the breaker has seen the present slice are counted in an older one: the machine looks at the
# window after each step, which shows it each slice.
TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
