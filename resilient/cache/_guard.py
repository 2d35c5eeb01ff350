"""The policies around each call to the shared tier."""

from __future__ import annotations

from resilient.clock import Clock
from resilient.policy import Breaker, Pipeline, deadline
from resilient.policy.classify import Classifier, Failure, Verdict, chain, default

__all__ = ["guard"]

_LEAST = 0.002  # seconds: what a socket's limit leaves of the deadline that it was cut to


def guard(namespace: str, judge: Classifier | None, clock: Clock) -> Pipeline:
    """A breaker that opens after a few calls without an answer and looks every half second whether the server is back.

    There is no retry: the loader is the better second try.
    """
    breaker = Breaker(consecutive=3, rate=0.5, min_calls=20, window=2.0, wait=0.5, max_wait=0.8)
    asked = default if judge is None else chain((judge, default))
    return Pipeline(f"cache:{namespace}", breaker, classify=_unhurried(asked), clock=clock)


def _unhurried(judge: Classifier) -> Classifier:
    """A time-out that the caller's deadline brought about says nothing of the tier: the breaker does not count it.

    One of the full limit still counts, so that a server that swallows everything is found.
    """

    def judged(error: BaseException) -> Verdict | None:
        verdict = judge(error)
        if verdict is None or verdict.failure is not Failure.TIMEOUT:
            return verdict
        left = deadline.remaining()
        return verdict if left is None or left > _LEAST else Verdict(Failure.THROTTLED, no_effect=verdict.no_effect)

    return judged
