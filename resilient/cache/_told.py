"""What a reader is told of a value beside it: for how long it is good, and by what names it is forgotten. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from resilient.cache._seen import Plan
from resilient.cache._stamps import namespace_key, tag_key
from resilient.cache._values import Lookup

__all__ = ["told"]


def told(found: Lookup[Any], namespace: str, key: str, plan: Plan | None = None) -> Lookup[Any]:
    """A value with the times that its reader's policy gives it, as far as its entry lives, and its names.

    Args:
        found: What was found, its tags as its names.
        namespace: The cache's.
        key: Its key, as the store knows it.
        plan: How the reader's values are kept; who has no loader is served nothing after the ttl.
    """
    tags = dict.fromkeys((*found.names, *(plan.tags if plan is not None else ())))
    return replace(
        found,
        revalidates=0.0 if plan is None else min(found.revalidates, plan.policy.stale_while_revalidate),
        stands_in=0.0 if plan is None else min(found.stands_in, plan.policy.stale_if_error),
        names=(key, *(tag_key(namespace, tag) for tag in tags), namespace_key(namespace)),
    )
