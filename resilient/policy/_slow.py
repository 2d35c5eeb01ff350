"""The slow side of a pipeline: everything that happens once something did not simply succeed."""

from __future__ import annotations

import itertools
from types import CoroutineType
from typing import Any

from resilient import events
from resilient.errors import CircuitOpen, DeadlineExceeded, InvalidInput, Overloaded
from resilient.policy import _waits
from resilient.policy._breaker import Generation
from resilient.policy._deadline import current, deadline, expired, left_of, nearest
from resilient.policy._retry import Run, mark, retried_below, wait_before
from resilient.policy._state import State, find
from resilient.policy.classify import NOT_TRIED, UNCLASSIFIED, Classifier, Failure, Verdict
from resilient.policy.events import AttemptFailed, CallRejected, FellBack, Retried, RetrySuppressed
from resilient.policy.policies import Breaker, Bulkhead, Deadline, Degraded, Fallback, Policy, RateLimit, Retry

__all__ = ["Slow"]

_owners = itertools.count(1)

_SOON = 0.001
"""Seconds by which an event loop's timer may be early."""

# The dependency answered, so it lives, though the answer was no. Neither a wrong request (which may never have
# reached it) nor a throttled one says anything about its health.
_ANSWERED = frozenset({Failure.CONFLICT, Failure.AUTH, Failure.READ_ONLY, Failure.PERMANENT})


def _is_cancelled(error: BaseException) -> bool:
    from asyncio import CancelledError  # who never awaits does without it

    return isinstance(error, CancelledError)


class Slow:
    """What the compiled callables of one pipeline share for the uncommon cases.

    Args:
        state: The pipeline's memory.
        policies: What it is made of.
        classify: What judges errors.
        idempotent: Whether calls may take effect twice without harm.
        counts: Whether what it calls are the user's calls, and not the racers of a hedge.
    """

    __slots__ = (
        "attempt_limit",
        "breaker",
        "bulkhead",
        "classify",
        "counts",
        "fallback",
        "idempotent",
        "owner",
        "retry",
        "state",
    )

    def __init__(
        self,
        state: State,
        policies: tuple[Policy, ...],
        classify: Classifier,
        *,
        idempotent: bool,
        counts: bool = True,
    ) -> None:
        self.counts = counts
        self.state = state
        self.classify = classify
        self.idempotent = idempotent
        self.retry: Retry | None = find(policies, Retry)
        self.breaker: Breaker | None = find(policies, Breaker)
        self.bulkhead: Bulkhead | None = find(policies, Bulkhead)
        self.fallback: Fallback[Any] | None = find(policies, Fallback)
        self.owner = next(_owners)
        place = len(policies) if self.retry is None else policies.index(self.retry)
        self.attempt_limit = any(isinstance(policy, Deadline) for policy in policies[place:])

    # ------------------------------------------------------------------------------------------------ before a call

    def check(self) -> None:
        """Refuse a call where the deadline of its caller has passed."""
        outer = current.get()
        if outer is not None and left_of(outer) <= 0:
            self.rejected("deadline")
            raise expired()

    def within(self, expires: float) -> float:
        """The nearer of the pipeline's own deadline and the caller's."""
        self.check()
        return nearest(current.get(), expires)

    def timed(self, seconds: float, expires: float) -> float:
        """After how many seconds a task is cancelled: when its pipeline's time is up, or its caller's."""
        # A moment on another clock says nothing about the event loop's time.
        return min(seconds, left_of(expires)) if type(expires) is float else seconds

    def rejected(self, reason: str) -> None:
        """Count and tell a refusal."""
        self.state.add("rejected")
        if events.wanted(CallRejected):
            events.emit(CallRejected(pipeline=self.state.name, reason=reason))

    def named(self, error: Exception, reason: str) -> None:
        """Count and tell a refusal by a core, which does not know whose it is."""
        error.args = (f"{self.state.name}: {error.args[0]}",)
        self.rejected(reason)

    def enter(self, now: float) -> Generation:
        """Ask the breaker, which is not simply closed. Raises CircuitOpen where it refuses."""
        breaker = self.state.breaker
        assert breaker is not None  # noqa: S101 - compiled in only with a breaker
        try:
            return breaker.enter(now)
        except CircuitOpen as error:
            self.named(error, "breaker")
            raise

    def crowd(self) -> None:
        """Wait for a place in the bulkhead. Raises Overloaded where there is none."""
        core, policy = self.state.bulkhead, self.bulkhead
        assert core is not None and policy is not None  # noqa: S101, PT018 - compiled in only with a bulkhead
        try:
            core.wait(deadline.bound(policy.wait), self.state.clock.monotonic)
        except Overloaded as error:
            self.named(error, "bulkhead")
            raise

    async def acrowd(self) -> None:
        """The same for a task."""
        core, policy = self.state.bulkhead, self.bulkhead
        assert core is not None and policy is not None  # noqa: S101, PT018 - compiled in only with a bulkhead
        try:
            await core.await_(deadline.bound(policy.wait), self.state.clock.monotonic)
        except Overloaded as error:
            self.named(error, "bulkhead")
            raise

    def limited(self, policy: RateLimit, pause: float, allowed: float) -> float:
        """How long to sleep before the turn. Raises Overloaded where it comes too late."""
        if pause > allowed:
            self.rejected("rate_limit")
            raise Overloaded(
                f"{self.state.name}: the call was not made: {policy.rate:g} per {policy.per:g} s is the limit",
                advice="come back later",
                retry_after=pause,
            )
        return _waits.length(pause)

    def limit(self, policy: RateLimit) -> None:
        """Take a turn of the rate limit, and wait for it."""
        pause = self._turn(policy, allowed := deadline.bound(policy.wait))
        if pause:
            self.state.clock.sleep(self.limited(policy, pause, allowed))

    async def alimit(self, policy: RateLimit) -> None:
        """The same for a task."""
        pause = await self._aturn(policy, allowed := deadline.bound(policy.wait))
        if pause:
            await self.state.clock.asleep(self.limited(policy, pause, allowed))

    def _turn(self, policy: RateLimit, allowed: float) -> float:
        assert self.state.limits is not None  # noqa: S101 - compiled in only with a limit
        if policy.shared is not None:
            try:
                return policy.shared.take(self.state.name, policy.per / policy.rate, policy.burst, allowed)
            except Exception:  # noqa: BLE001 - documented: while shared state fails, this process limits alone
                self.state.add("limited_alone")
        return self.state.limits[id(policy)].take(self.state.clock.monotonic(), allowed)

    async def _aturn(self, policy: RateLimit, allowed: float) -> float:
        assert self.state.limits is not None  # noqa: S101 - compiled in only with a limit
        if policy.shared is not None:
            try:
                return await policy.shared.atake(self.state.name, policy.per / policy.rate, policy.burst, allowed)
            except Exception:  # noqa: BLE001 - as above
                self.state.add("limited_alone")
        return self.state.limits[id(policy)].take(self.state.clock.monotonic(), allowed)

    # ------------------------------------------------------------------------------------------------- after a call

    def misused(self, result: Any, generation: Generation | None) -> None:
        """Refuse a coroutine that came out of the sync path."""
        result.close()
        if self.state.breaker is not None and generation is not None:
            self.state.breaker.released(generation)
        raise InvalidInput(
            f"{self.state.name}: an async function was handed to the sync path; it did not run",
            advice="write: await pipeline.acall(function, ...)",
        )

    def not_async(self, result: Any) -> InvalidInput:
        """The error for a sync function handed to the async path."""
        return InvalidInput(
            f"{self.state.name}: acall got a function that returned {type(result).__name__}, not an awaitable",
            advice="write: pipeline.call(function, ...), or hand in an async function",
        )

    def measured(self, generation: Generation, started: float) -> None:
        """Count a success whose duration matters."""
        breaker, policy = self.state.breaker, self.breaker
        assert breaker is not None and policy is not None and policy.slow is not None  # noqa: S101, PT018 - as above
        now = self.state.clock.monotonic()
        if now - started > policy.slow:
            breaker.slow(generation, now)
        else:
            generation.ok()

    def recovered(self) -> None:
        """Count a call that succeeded after a failure."""
        self.state.add("recovered")

    def failed(
        self, run: Run | None, error: BaseException, generation: Generation | None, started: float
    ) -> Run | None:
        """Judge a failed attempt.

        Args:
            run: What is known of the earlier attempts of this call.
            error: What it raised.
            generation: What the breaker counts it for.
            started: When it began; zero where nobody read the clock.

        Returns:
            The run, with the wait before the next attempt; ``None`` if the error goes to the caller.

        Raises:
            DeadlineExceeded: In place of an error that says only that time ran out.
        """
        expires = current.get()
        left = None if expires is None else left_of(expires)
        if isinstance(error, Exception):
            verdict = self.classify(error) or UNCLASSIFIED
        elif left is not None and left <= _SOON and _is_cancelled(error):
            verdict = Verdict(Failure.TIMEOUT)  # cancelled by the deadline: the dependency was too slow
        else:
            self._neutral(generation)  # an interrupt or the caller's own wish
            return None
        self._count(error, verdict, generation, started)
        if isinstance(error, NOT_TRIED):
            return None
        if events.wanted(AttemptFailed):
            attempt = run.attempt if run else 1
            name = type(error).__name__
            events.emit(
                AttemptFailed(pipeline=self.state.name, failure=verdict.failure.value, error=name, attempt=attempt)
            )
        if isinstance(error, Exception) and self.retry is not None:
            run = self._again(self.retry, run or Run(started), error, verdict, left)
            if run is not None:
                return run
        if self.counts:
            self.state.add("failed")
        late = left is not None and left <= 0 and verdict.failure is Failure.TIMEOUT
        if late and isinstance(error, Exception) and not isinstance(error, DeadlineExceeded):
            raise DeadlineExceeded(
                f"{self.state.name}: no answer came before the deadline",
                advice="what had been sent may have taken effect",
            ) from error
        return None

    def judged(self, error: BaseException, generation: Generation, started: float) -> None:
        """Tell the breaker of an error outside a compiled call."""
        if isinstance(error, Exception):
            self._count(error, self.classify(error) or UNCLASSIFIED, generation, started)
        else:
            self._neutral(generation)

    def _neutral(self, generation: Generation | None) -> None:
        if generation is not None and self.state.breaker is not None:
            self.state.breaker.released(generation)

    def _count(self, error: BaseException, verdict: Verdict, generation: Generation | None, started: float) -> None:
        """Tell the breaker what the error says about the dependency."""
        breaker, policy = self.state.breaker, self.breaker
        if generation is None or breaker is None or policy is None:
            return
        if isinstance(error, NOT_TRIED):
            breaker.released(generation)
        elif verdict is UNCLASSIFIED or verdict.failure in policy.counts:
            now = self.state.clock.monotonic()
            breaker.failed(generation, now, slow=policy.slow is not None and now - started > policy.slow)
        elif verdict.failure in _ANSWERED:
            generation.ok()
        else:
            breaker.released(generation)

    def _again(self, retry: Retry, run: Run, error: Exception, verdict: Verdict, left: float | None) -> Run | None:
        """Decide whether the call is made again, and set the wait."""
        if verdict.failure not in retry.on or verdict is UNCLASSIFIED:
            return None
        if isinstance(error, DeadlineExceeded) and not (self.attempt_limit and (left is None or left > 0)):
            return None
        if not (self.idempotent or verdict.no_effect):
            self._suppressed("not_idempotent")
            return None
        if retried_below(error, self.owner):
            self._suppressed("retried_below")
            return None
        reason = self._wait(retry, run, error, verdict, left)
        if reason is not None:
            mark(error, self.owner)
            self._suppressed(reason)
            return None
        self.state.add("retried")
        if events.wanted(Retried):
            events.emit(Retried(pipeline=self.state.name, attempt=run.attempt, wait=run.wait))
        run.attempt += 1
        run.slept += run.wait
        run.wait = _waits.length(run.wait)
        return run

    def _wait(self, retry: Retry, run: Run, error: Exception, verdict: Verdict, left: float | None) -> str | None:
        """Set the wait before the next attempt. Returns why there will be none, or ``None``."""
        if run.attempt >= retry.attempts:
            return "attempts"
        hint = verdict.retry_after
        if hint is not None and hint > retry.max_retry_after:
            return "retry_after"
        now = self.state.clock.monotonic()
        stop, run.wait = wait_before(retry, run, error, now)
        if stop:
            return "stop"
        if hint is not None:
            run.wait = max(run.wait, hint)
        if left is not None and run.wait >= left:
            return "deadline"
        if not self._breaker_lets_through(now + run.wait):
            return "breaker"
        budget = self.state.budget
        if budget is not None and not budget.ask(self.state):
            return "budget"
        return None

    def _breaker_lets_through(self, moment: float) -> bool:
        """Whether the breaker, which this very failure may have opened, would let an attempt through at a moment."""
        breaker = self.state.breaker
        if breaker is None or breaker.state in {"closed", "half_open"}:
            return True
        wait = breaker.retry_after(moment)
        return wait is not None and wait <= 0

    def _suppressed(self, reason: str) -> None:
        if reason != "attempts":
            self.state.add("suppressed")
        if events.wanted(RetrySuppressed):
            events.emit(RetrySuppressed(pipeline=self.state.name, reason=reason))

    # ------------------------------------------------------------------------------------------------------ instead

    def answers(self, error: Exception) -> bool:
        """Whether the fallback answers for this error."""
        assert self.fallback is not None  # noqa: S101 - compiled in only with a fallback
        verdict = self.classify(error) or UNCLASSIFIED
        return verdict.failure in self.fallback.on

    def substitute(self, error: Exception, value: Any) -> Any:
        """Count, tell and mark a substitute."""
        assert self.fallback is not None  # noqa: S101 - as above
        self.state.add("fell_back")
        if events.wanted(FellBack):
            events.emit(FellBack(pipeline=self.state.name, error=type(error).__name__))
        return Degraded(value, error) if self.fallback.mark else value

    def fall_back(self, error: Exception) -> Any:
        """The substitute for a sync call."""
        assert self.fallback is not None  # noqa: S101 - as above
        value = self.fallback.answer(error)
        if isinstance(value, CoroutineType):
            value.close()
            raise InvalidInput(
                f"{self.state.name}: an async fallback was handed to the sync path; it did not run",
                advice="write: await pipeline.acall(function, ...), or a fallback that is not async",
            ) from error
        return self.substitute(error, value)

    async def afall_back(self, error: Exception) -> Any:
        """The substitute for an async call; the function may be async too."""
        assert self.fallback is not None  # noqa: S101 - as above
        value = self.fallback.answer(error)
        return self.substitute(error, await value if hasattr(value, "__await__") else value)
