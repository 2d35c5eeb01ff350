"""The policies around each call to the shared tier."""

from __future__ import annotations

from resilient.clock import Clock
from resilient.policy import Breaker, Pipeline
from resilient.policy.classify import Classifier

__all__ = ["guard"]


def guard(namespace: str, judge: Classifier | None, clock: Clock) -> Pipeline:
    """A breaker that opens after a few slow calls and looks every half second whether the server is back.

    There is no retry: the loader is the better second try.
    """
    breaker = Breaker(consecutive=3, rate=0.5, min_calls=20, window=2.0, wait=0.5, max_wait=0.8)
    return Pipeline(f"cache:{namespace}", breaker, classify=judge, clock=clock)
