"""What stands between your code and everything that can fail: one pipeline of policies per dependency.

    >>> from resilient.policy import Breaker, Bulkhead, Deadline, Pipeline, Retry
    >>> orders = Pipeline("orders-db", Deadline(2.0), Retry(attempts=3), Breaker(), Bulkhead(20))
    >>> orders.call(len, "abc")
    3

Policies are immutable values; a `Pipeline` brings them to life and compiles them into one function. `deadline` bounds
everything called below it. `classify` says what an error means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient.exports import loaded_when_used

if TYPE_CHECKING:
    from resilient.policy import classify
    from resilient.policy._breaker import Counts
    from resilient.policy._deadline import deadline
    from resilient.policy.attempts import Attempt, Attempts
    from resilient.policy.classify import Classifier, Failure, Verdict
    from resilient.policy.control import BreakerControl, Permit
    from resilient.policy.limiter import SharedRate
    from resilient.policy.pipeline import Calls, Pipeline, Stats
    from resilient.policy.policies import (
        Breaker,
        Budget,
        Bulkhead,
        Deadline,
        Degraded,
        Fallback,
        Hedge,
        Policy,
        RateLimit,
        Retry,
    )
    from resilient.policy.weighted import Turn, WeightedChoice

_HOMES = {
    "Attempt": "resilient.policy.attempts",
    "Attempts": "resilient.policy.attempts",
    "Breaker": "resilient.policy.policies",
    "BreakerControl": "resilient.policy.control",
    "Budget": "resilient.policy.policies",
    "Bulkhead": "resilient.policy.policies",
    "Calls": "resilient.policy.pipeline",
    "Classifier": "resilient.policy.classify",
    "Counts": "resilient.policy._breaker",
    "Deadline": "resilient.policy.policies",
    "Degraded": "resilient.policy.policies",
    "Failure": "resilient.policy.classify",
    "Fallback": "resilient.policy.policies",
    "Hedge": "resilient.policy.policies",
    "Permit": "resilient.policy.control",
    "Pipeline": "resilient.policy.pipeline",
    "Policy": "resilient.policy.policies",
    "RateLimit": "resilient.policy.policies",
    "Retry": "resilient.policy.policies",
    "SharedRate": "resilient.policy.limiter",
    "Stats": "resilient.policy.pipeline",
    "Turn": "resilient.policy.weighted",
    "Verdict": "resilient.policy.classify",
    "WeightedChoice": "resilient.policy.weighted",
    "deadline": "resilient.policy._deadline",
}
"""Where each name stands. It is loaded when it is first used: who needs a deadline alone does without the policies."""

__all__ = [
    "Attempt",
    "Attempts",
    "Breaker",
    "BreakerControl",
    "Budget",
    "Bulkhead",
    "Calls",
    "Classifier",
    "Counts",
    "Deadline",
    "Degraded",
    "Failure",
    "Fallback",
    "Hedge",
    "Permit",
    "Pipeline",
    "Policy",
    "RateLimit",
    "Retry",
    "SharedRate",
    "Stats",
    "Turn",
    "Verdict",
    "WeightedChoice",
    "classify",
    "deadline",
]

if not TYPE_CHECKING:  # which knows the names
    __getattr__, __dir__ = loaded_when_used(globals(), _HOMES, modules=["classify"])
