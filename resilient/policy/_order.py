"""The order of a pipeline's layers: which are nonsense, and what to write instead."""

from __future__ import annotations

from typing import Any

from resilient.errors import ConfigurationError
from resilient.policy._deadline import deadline
from resilient.policy.policies import Breaker, Budget, Bulkhead, Deadline, Fallback, Hedge, Policy, RateLimit, Retry

__all__ = ["checked"]

_KINDS = (Deadline, Retry, Budget, Breaker, Bulkhead, RateLimit, Hedge, Fallback)

# What stands first must not be inside (after) what stands second.
_NONSENSE: tuple[tuple[type[Any], type[Any], str], ...] = (
    (Fallback, Deadline, "the deadline could pass before the fallback answers"),
    (Fallback, Retry, "its substitute would look like a success, so nothing would be retried"),
    (Fallback, Hedge, "its substitute would win the race"),
    (Fallback, Breaker, "its substitute would look like a success, so the breaker would never open"),
    (Fallback, Bulkhead, "a refusal of the bulkhead would not be answered for"),
    (Fallback, RateLimit, "a refusal of the rate limit would not be answered for"),
    (Retry, Breaker, "the breaker would see one failure where there were several, and retries would pass it when open"),
    (Retry, Bulkhead, "a place would be held during the waits between attempts"),
    (Retry, Hedge, "each racer would retry by itself"),
    (Hedge, Breaker, "the breaker would not see the second call"),
    (Hedge, Bulkhead, "the second call would not take a place"),
    (Hedge, RateLimit, "the second call would not take a turn"),
)


def checked(name: Any, policies: tuple[Any, ...]) -> tuple[Policy, ...]:
    """The policies, if they make sense together.

    Raises:
        ConfigurationError: They do not; says what to write instead.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError(
            f"a pipeline's first argument is its name, got {name!r}", advice='write Pipeline("orders-db", Retry())'
        )
    for policy in policies:
        _check_kind(policy)
    for kind in (Retry, Budget, Breaker, Bulkhead, Hedge, Fallback):
        if sum(isinstance(policy, kind) for policy in policies) > 1:
            raise ConfigurationError(
                f"pipeline {name!r} has two {kind.__name__} policies", advice="keep one, or nest two pipelines"
            )
    kinds = [type(policy) for policy in policies]
    if Budget in kinds and Retry not in kinds and Hedge not in kinds:
        raise ConfigurationError(
            f"pipeline {name!r} has a Budget and nothing that spends it", advice="add Retry() or Hedge()"
        )
    for inner, outer, reason in _NONSENSE:
        if inner in kinds and outer in kinds and kinds.index(inner) > kinds.index(outer):
            raise ConfigurationError(
                f"pipeline {name!r} has {inner.__name__} inside {outer.__name__}: {reason}",
                advice=f"write {inner.__name__} before {outer.__name__}; the order is outermost first",
            )
    _check_deadlines(name, kinds)
    return policies


def _check_kind(policy: Any) -> None:
    if isinstance(policy, _KINDS):
        return
    if isinstance(policy, deadline):
        advice = f"write Deadline({policy.seconds:g}); deadline(...) is for with blocks"
    elif isinstance(policy, type) and issubclass(policy, _KINDS):
        advice = f"write {policy.__name__}(...), with brackets"
    elif isinstance(policy, int | float):
        advice = f"write Deadline({policy}) for a time"
    else:
        advice = "write one of " + ", ".join(kind.__name__ for kind in _KINDS)
    raise ConfigurationError(f"{policy!r} is no policy", advice=advice)


def _check_deadlines(name: str, kinds: list[type[Any]]) -> None:
    """One deadline round everything, one round each attempt: the second only inside a retry and next to the call."""
    places = [index for index, kind in enumerate(kinds) if kind is Deadline]
    layers = [kind for kind in kinds if kind is not Budget]
    if not places:
        return
    if Retry not in kinds and len(places) > 1:
        raise ConfigurationError(f"pipeline {name!r} has two deadlines", advice="keep the shorter one")
    outside = [index for index in places if Retry not in kinds or index < kinds.index(Retry)]
    inside = [index for index in places if index not in outside]
    if len(outside) > 1 or len(inside) > 1:
        raise ConfigurationError(
            f"pipeline {name!r} has several deadlines in one place",
            advice="write one before Retry for the whole call and one after everything for each attempt",
        )
    first = next(kind for kind in layers if kind is not Fallback)
    if outside and first is not Deadline:
        raise ConfigurationError(
            f"pipeline {name!r} has Deadline inside {first.__name__}, which could wait without bound",
            advice="write Deadline first (after Fallback)",
        )
    if inside and layers[-1] is not Deadline:
        raise ConfigurationError(
            f"pipeline {name!r} has a Deadline between Retry and {layers[-1].__name__}",
            advice="write it last: there it bounds each attempt",
        )
