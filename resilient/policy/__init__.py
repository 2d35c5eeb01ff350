"""What stands between your code and everything that can fail: one pipeline of policies per dependency.

    >>> from resilient.policy import Breaker, Bulkhead, Deadline, Pipeline, Retry
    >>> orders = Pipeline("orders-db", Deadline(2.0), Retry(attempts=3), Breaker(), Bulkhead(20))
    >>> orders.call(len, "abc")
    3

Policies are immutable values; a `Pipeline` brings them to life and compiles them into one function. `deadline` bounds
everything called below it. `classify` says what an error means.
"""

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
