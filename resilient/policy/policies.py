"""The policies as immutable values: what to do, without any state. A `Pipeline` brings them to life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from resilient.errors import ConfigurationError
from resilient.policy._checks import MOST, at_least_one, kinds, positive, share, shown, yes_or_no
from resilient.policy.classify import Failure
from resilient.policy.fallback import Degraded, Fallback
from resilient.policy.limiter import SharedRate

__all__ = [
    "Breaker",
    "Budget",
    "Bulkhead",
    "Deadline",
    "Degraded",
    "Fallback",
    "Hedge",
    "Layer",
    "Policy",
    "RateLimit",
    "Retry",
]

_SHORTEST_WINDOW = 0.001

_RETRIED = frozenset({Failure.TRANSIENT, Failure.THROTTLED, Failure.TIMEOUT, Failure.UNAVAILABLE})
_COUNTED = frozenset({Failure.TRANSIENT, Failure.TIMEOUT, Failure.UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Deadline:
    """Bound a call, or each attempt of it.

    Before `Retry` it bounds all attempts and waits together; after it, each attempt. Async calls are cancelled when
    it passes; sync calls see it through `deadline.remaining` and obey it on the wire.

    Args:
        seconds: How long.

    Examples:
        >>> Deadline(1.5)
        Deadline(1.5)
    """

    seconds: float

    def __post_init__(self) -> None:
        positive("Deadline", "seconds", self.seconds)

    def __repr__(self) -> str:
        return f"Deadline({self.seconds:g})"


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after a failure that is worth it.

    A failure is retried only if its kind is in ``on``, and the call was declared idempotent or is known to have had
    no effect. Interrupts, cancellation, `DeadlineExceeded`, `CircuitOpen` and `Overloaded` never are.

    Args:
        attempts: How many tries in all.
        base: The first wait is a random time between zero and this many seconds; the range doubles each time.
        cap: The longest wait, in seconds.
        wait: A wait strategy of tenacity's instead of ``base`` and ``cap``.
        stop: A stop strategy of tenacity's that may end the tries before ``attempts`` does.
        on: The kinds of failure that are retried.
        max_retry_after: The longest wait a dependency may ask for, in seconds. It is never called before the time it
            asked for: where it asks for more, the error goes to the caller at once.

    Examples:
        >>> Retry(attempts=3)
        Retry(attempts=3)
    """

    attempts: int = 3
    base: float = 0.05
    cap: float = 5.0
    wait: Callable[[Any], float] | None = None
    stop: Callable[[Any], bool] | None = None
    on: frozenset[Failure] = _RETRIED
    max_retry_after: float = 30.0

    def __post_init__(self) -> None:
        at_least_one("Retry", "attempts", self.attempts, "attempts counts the first try too: attempts=1 is no retry")
        positive("Retry", "base", self.base, zero=True)
        positive("Retry", "cap", self.cap, zero=True)
        positive("Retry", "max_retry_after", self.max_retry_after, zero=True)
        for name in ("wait", "stop"):
            strategy = getattr(self, name)
            if strategy is not None and not callable(strategy):
                raise ConfigurationError(
                    f"Retry({name}=...) takes a strategy of tenacity's, got {strategy!r}",
                    advice="write base=0.1 for seconds, or wait=tenacity.wait_fixed(0.1)",
                )
        object.__setattr__(self, "on", kinds("Retry", "on", self.on))

    @classmethod
    def step_functions(
        cls,
        *,
        IntervalSeconds: float = 1,  # noqa: N803 - the names of the States Language
        MaxAttempts: int = 3,  # noqa: N803
        BackoffRate: float = 2.0,  # noqa: N803
        MaxDelaySeconds: float = 30.0,  # noqa: N803
        JitterStrategy: Literal["FULL", "NONE"] = "NONE",  # noqa: N803
    ) -> Retry:
        """Make a retry from the names Step Functions uses.

        Args:
            IntervalSeconds: The wait before the first retry.
            MaxAttempts: How many retries, not counting the first try. Zero never retries.
            BackoffRate: By what each wait is longer than the one before.
            MaxDelaySeconds: The longest wait.
            JitterStrategy: ``FULL`` draws each wait between zero and its length.

        Examples:
            >>> Retry.step_functions(IntervalSeconds=2, MaxAttempts=4, BackoffRate=1.5).attempts
            5
        """
        positive("Retry.step_functions", "IntervalSeconds", IntervalSeconds)
        positive("Retry.step_functions", "MaxDelaySeconds", MaxDelaySeconds)
        given: Any = (MaxAttempts, BackoffRate)
        if not isinstance(given[0], int) or given[0] < 0:
            raise ConfigurationError(f"MaxAttempts takes a whole number from 0 up, got {MaxAttempts!r}")
        if not isinstance(given[1], int | float) or not given[1] >= 1:
            raise ConfigurationError(f"BackoffRate takes a number from 1 up, got {BackoffRate!r}")
        if JitterStrategy not in {"FULL", "NONE"}:
            raise ConfigurationError(f"JitterStrategy is FULL or NONE, got {JitterStrategy!r}")
        from resilient.policy.strategies import GrowingWait

        wait = GrowingWait(IntervalSeconds, BackoffRate, MaxDelaySeconds, jitter=JitterStrategy == "FULL")
        return cls(attempts=MaxAttempts + 1, wait=wait, cap=MaxDelaySeconds)

    def __repr__(self) -> str:
        return shown(self, always=("attempts",))


@dataclass(frozen=True, slots=True)
class Budget:
    """How many extra calls (retries and hedges together) a dependency may get; name it to change the default.

    In each process, pipelines of one name share one budget: what one of them spends, the others do not have. A pipeline
    that names other numbers than its namesakes has a budget of its own.

    Args:
        ratio: Extra calls for each call, over time.
        reserve: Extra calls per second that are free, so that a quiet process may retry too.
        burst: How many unused ones may be saved up.

    Examples:
        >>> Budget(ratio=0.1)
        Budget(ratio=0.1)
    """

    ratio: float = 0.2
    reserve: float = 1.0
    burst: float = 10.0

    def __post_init__(self) -> None:
        positive("Budget", "ratio", self.ratio, zero=True, most=MOST)
        positive("Budget", "reserve", self.reserve, zero=True, most=MOST)
        positive("Budget", "burst", self.burst, most=MOST)
        if self.burst < 1:
            raise ConfigurationError(
                f"Budget(burst={self.burst!r}) can never pay for one retry", advice="use 1 or more"
            )

    def __repr__(self) -> str:
        return shown(self)


@dataclass(frozen=True, slots=True)
class Breaker:
    """Stop calling a dependency that fails, and find out carefully when it is back.

    It opens when, of at least ``min_calls`` calls in the last ``window`` seconds, the part ``rate`` failed (or the
    part ``slow_rate`` took longer than ``slow`` seconds). Then calls fail at once with `CircuitOpen`. After ``wait``
    seconds ``probes`` calls at a time may try; ``successes`` of them in a row close it, one failure opens it for
    longer.

    Args:
        rate: The part of the calls that must fail, above 0 up to 1.
        min_calls: How many calls there must be before the rate means anything.
        window: Seconds that are looked back.
        wait: Seconds before the first probe, varied by a fifth so that processes do not probe in step.
        max_wait: The longest wait, in seconds. Each failed probe doubles the wait up to it.
        probes: How many probes may run at once while half-open.
        successes: How many probes must succeed before it closes.
        slow: A call that takes longer than this many seconds is slow; ``None`` measures no durations.
        slow_rate: The part of the calls that must be slow.
        counts: The kinds of failure that speak against the dependency. An error no classifier knows counts too.
        metrics_only: Count and tell, and never refuse a call.
        consecutive: Also open after so many failures with no success between them, however few calls there are;
            ``None`` judges by the rate alone.

    Examples:
        >>> Breaker(rate=0.5, min_calls=20)
        Breaker(min_calls=20)
    """

    rate: float = 0.5
    min_calls: int = 10
    window: float = 10.0
    wait: float = 5.0
    max_wait: float = 120.0
    probes: int = 1
    successes: int = 1
    slow: float | None = None
    slow_rate: float = 0.5
    counts: frozenset[Failure] = _COUNTED
    metrics_only: bool = False
    consecutive: int | None = None

    def __post_init__(self) -> None:
        share("Breaker", "rate", self.rate)
        share("Breaker", "slow_rate", self.slow_rate)
        for name in ("min_calls", "probes", "successes"):
            at_least_one("Breaker", name, getattr(self, name))
        for name in ("window", "wait", "max_wait"):
            positive("Breaker", name, getattr(self, name))
        if self.window < _SHORTEST_WINDOW:
            raise ConfigurationError(
                f"Breaker(window={self.window!r}) is too short to hold a call", advice="window is in seconds: window=10"
            )
        if self.consecutive is not None:
            at_least_one("Breaker", "consecutive", self.consecutive)
        if self.slow is not None:
            positive("Breaker", "slow", self.slow)
        if self.max_wait < self.wait:
            raise ConfigurationError(
                f"Breaker(max_wait={self.max_wait:g}) is shorter than wait={self.wait:g}",
                advice="make max_wait the longer of the two",
            )
        yes_or_no("Breaker", "metrics_only", self.metrics_only)
        object.__setattr__(self, "counts", kinds("Breaker", "counts", self.counts))

    def __repr__(self) -> str:
        return shown(self)


@dataclass(frozen=True, slots=True)
class Bulkhead:
    """Let so many calls run at once, so that one slow dependency cannot take every thread.

    Args:
        limit: How many calls may run at once.
        wait: Seconds a call may wait for its turn; by default it is refused at once with `Overloaded`.
        queue: How many calls may wait; by default as many as may run.

    Examples:
        >>> Bulkhead(20)
        Bulkhead(20)
    """

    limit: int
    wait: float = 0.0
    queue: int | None = None

    def __post_init__(self) -> None:
        at_least_one("Bulkhead", "limit", self.limit, most=10**6)  # each place is a byte
        positive("Bulkhead", "wait", self.wait, zero=True)
        if self.queue is not None:
            at_least_one("Bulkhead", "queue", self.queue, "leave queue out, or wait=0 for no waiting")

    def __repr__(self) -> str:
        return shown(self, first="limit")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Let so many calls start per second, evenly spaced with small bursts (GCRA).

    Args:
        rate: How many calls per ``per`` seconds.
        per: The seconds that ``rate`` is about.
        burst: How many calls may start at once after a pause.
        wait: Seconds a call may wait for its turn; by default it is refused with `Overloaded`, which says when to
            come back.
        shared: State that other processes see, such as one in Redis. While it fails, this process limits alone.

    Examples:
        >>> RateLimit(100, burst=10)
        RateLimit(100, burst=10)
    """

    rate: float
    per: float = 1.0
    burst: int = 1
    wait: float = 0.0
    shared: SharedRate | None = None

    def __post_init__(self) -> None:
        positive("RateLimit", "rate", self.rate, most=MOST)
        positive("RateLimit", "per", self.per)
        positive("RateLimit", "wait", self.wait, zero=True)
        at_least_one("RateLimit", "burst", self.burst, "burst=1 spaces all calls evenly")

    def __repr__(self) -> str:
        return shown(self, first="rate")


@dataclass(frozen=True, slots=True)
class Hedge:
    """Make a second call when the first is late, and take whichever answers first.

    Only calls declared idempotent are hedged, at most once, and inside the retry budget. An async loser is cancelled;
    a sync one runs to its end on its thread and its result is dropped.

    Args:
        delay: Seconds to wait for the first; by default the running 95th percentile, once it is known.
        min_samples: How many durations must be known before the percentile means anything.
        threads: How many threads serve the sync calls of a pipeline that hedges.

    Examples:
        >>> Hedge(delay=0.05)
        Hedge(delay=0.05)
    """

    delay: float | None = None
    min_samples: int = 100
    threads: int = 32

    def __post_init__(self) -> None:
        if self.delay is not None:
            positive("Hedge", "delay", self.delay)
        at_least_one("Hedge", "min_samples", self.min_samples)
        at_least_one("Hedge", "threads", self.threads)

    def __repr__(self) -> str:
        return shown(self)


Layer: TypeAlias = Deadline | Retry | Budget | Breaker | Bulkhead | RateLimit | Hedge
"""A policy that leaves the answer as it is."""

Policy: TypeAlias = Layer | Fallback[Any]
"""Whatever a pipeline is made of."""
