"""The entries of what was loaded or stored: of a value, of its absence, and of an error that is remembered.

They bear no stamps yet, without which nobody reads them: those are put on where it is known which ones stood.
"""

from __future__ import annotations

import random

from resilient.cache._entry import FAILED, NEGATIVE, Entry, new_token
from resilient.cache._seen import Plan
from resilient.cache._tags import pack_tags
from resilient.cache._versions import numbered

__all__ = ["absent", "failed", "made", "made_now"]


def made(value: object, plan: Plan, created: float, *, cost: float = 0.0, version: int | None = None) -> Entry:
    """The entry of a value.

    Args:
        value: The value. Where the plan remembers that there is no such thing, ``None`` says so, and lives as long.
        plan: How it is kept.
        created: What the wall clock showed before it was loaded.
        cost: Seconds its load took.
        version: The version of its row; by default what the plan's policy finds in the value.

    Raises:
        InvalidInput: The value cannot be brought back from bytes, or its version is none.
    """
    policy, codec = plan.policy, plan.codec
    row = policy.version(value) if version is None else numbered(version)
    number, body = codec.encode(value)
    negative = value is None and policy.negative_ttl is not None
    fresh, keep = policy.lives(_chance(), negative=negative)
    return Entry(body, number, codec.schema, 0, new_token(), created, fresh, keep, cost, version=row)


def made_now(value: object, plan: Plan, now: float, version: int | None = None) -> Entry:
    """The entry of a value that is new now, with its tags; see `made`.

    Raises:
        InvalidInput: As for `made`, or it has too many tags.
    """
    entry = made(value, plan, now, version=version)
    return entry._replace(tags=pack_tags((tag, 0) for tag in dict.fromkeys(plan.tags))) if plan.tags else entry


def absent(message: str, plan: Plan, created: float) -> Entry:
    """The entry that says that there is no such thing.

    Args:
        message: What the loader said of it.
        plan: How long it is remembered.
        created: What the wall clock showed before the loader was asked.
    """
    number, body = plan.codec.absence(message)
    fresh, keep = plan.policy.lives(_chance(), negative=True)
    return Entry(body, number, 0, NEGATIVE, new_token(), created, fresh, keep, 0.0)


def failed(name: str, plan: Plan, created: float) -> Entry:
    """The entry of an error that is remembered; see `absent`.

    Args:
        name: The error, as `resilient.cache._failures.name_of` tells it.
        plan: How long it is remembered.
        created: What the wall clock showed before the loader was asked.
    """
    number, body = plan.codec.absence(name)
    fresh, keep = plan.policy.lives(_chance(), error=True)
    return Entry(body, number, 0, FAILED, new_token(), created, fresh, keep, 0.0)


def _chance() -> float:
    return random.random()  # noqa: S311 - spreads ends, hides nothing
