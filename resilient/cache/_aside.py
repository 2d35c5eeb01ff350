"""What holds for one task or thread: that it does without a cache, or collects what it changes for a commit."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = ["apart", "bypassed", "deferring_engines"]

_NONE: frozenset[int] = frozenset()
bypassed: contextvars.ContextVar[frozenset[int]] = contextvars.ContextVar("resilient_cache_bypass", default=_NONE)
"""The caches that are done without, by identity."""

deferring_engines: contextvars.ContextVar[Mapping[int, Any]] = contextvars.ContextVar(
    "resilient_cache_deferring", default=MappingProxyType({})
)
"""What collects the changes of a cache inside a block of `on_commit`, by the cache's identity."""

apart: contextvars.ContextVar[bool] = contextvars.ContextVar("resilient_cache_apart", default=False)
"""Whether one of the two may hold for some cache: asked on the way of every local hit."""
