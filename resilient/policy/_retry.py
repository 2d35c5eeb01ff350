"""Retrying: what is remembered between attempts, the mark on errors that were retried, and tenacity's strategies."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from resilient.policy._checks import LONGEST
from resilient.policy.policies import Retry

__all__ = ["Run", "mark", "retried_below", "wait_before"]

_MARK = "__resilient_retried__"
_DEPTH = 10
"""How many errors an error may stand for before we stop looking for the mark."""


class Run:
    """One call between its first failure and its end. It holds no error, so that none lives longer than it must."""

    __slots__ = ("attempt", "slept", "started", "wait")

    def __init__(self, started: float) -> None:
        self.started = started
        self.attempt = 1
        self.slept = 0.0
        self.wait = 0.0


def mark(error: BaseException, owner: int) -> None:
    """Note on an error that retrying it was considered here and is done with."""
    error.__dict__[_MARK] = owner  # past a __setattr__ that may refuse it


def retried_below(error: BaseException, owner: int) -> bool:
    """Whether another retry has dealt with this error, or with the one it stands for.

    The mark bears its owner, so that one error object raised again and again is not taken for retried by others.
    """
    seen: BaseException | None = error
    for _ in range(_DEPTH):
        if seen is None:
            return False
        # Past a __getattr__ that may have an answer to everything.
        if any(each.__dict__.get(_MARK, owner) != owner for each in (seen, *_members(seen))):
            return True
        hidden = seen.__suppress_context__ or seen.__cause__ is not None
        seen = seen.__cause__ if hidden else seen.__context__
    return False


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


@lru_cache(maxsize=64)
def _full_jitter(base: float, cap: float) -> Any:
    import tenacity

    return tenacity.wait_random_exponential(multiplier=base, max=cap)


@lru_cache(maxsize=1)
def _retrying() -> Any:
    import tenacity

    return tenacity.Retrying()  # retries nothing: a state has to name one


def wait_before(retry: Retry, run: Run, error: BaseException, now: float) -> tuple[bool, float]:
    """Ask tenacity's strategies: whether to stop, and how long to wait before the next attempt.

    tenacity is first imported here, after a first failure.
    """
    import tenacity

    state = tenacity.RetryCallState(retry_object=_retrying(), fn=None, args=(), kwargs={})
    state.attempt_number = run.attempt
    state.start_time = run.started or now
    state.idle_for = run.slept
    state.set_exception((type(error), error, None))
    state.outcome_timestamp = now
    wait = retry.wait or _full_jitter(retry.base, retry.cap)
    seconds = min(LONGEST, max(0.0, float(wait(state))))
    state.upcoming_sleep = seconds
    return retry.stop is not None and bool(retry.stop(state)), seconds
