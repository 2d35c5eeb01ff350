"""The way of every local hit: from the arguments of a call to its value, without a step that could wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from resilient.cache._aside import apart
from resilient.cache._events import CacheRead
from resilient.cache._freshness import Policy
from resilient.cache._local_keys import around_one, key_of
from resilient.cache._local_tier import LocalTier
from resilient.cache._quick import NOTHING
from resilient.cache._templates import KeyMaker, TagMaker
from resilient.events._stream import emit, stream

__all__ = ["Quick", "Shortcut"]

Quick: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def _nothing(_: tuple[Any, ...], __: dict[str, Any]) -> Any:
    return NOTHING


class Shortcut:
    """The short way to the values of one function, shared by all methods that are made of it.

    Args:
        make_key: Makes its keys.
        namespace: The cache's.
    """

    __slots__ = ("_make_key", "_namespace", "owner", "quick", "tier")

    def __init__(self, make_key: KeyMaker, namespace: str) -> None:
        self.owner: object = None
        """Who may be served what was judged for it; nobody until `judge` finds that a key tells all of a call."""
        self._make_key = make_key
        self._namespace = namespace
        self.tier: LocalTier | None = None
        """Where `quick` looks."""
        self.quick: Quick = _nothing
        """The value of a call where it is kept in this process and right, and `NOTHING` anywhere else."""

    def judge(self, policy: Policy, tags: TagMaker | None) -> None:
        """Whether values may be served by their key alone.

        Where a load may begin early each reader is to throw its dice. Where the tags of a call are not told by its key,
        a value may bear those of another call.
        """
        if not policy.early and (tags is None or tags.follows(self._make_key)):
            self.owner = self

    def on(self, tier: LocalTier, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same from another tier than before, from now on."""
        if self.owner is None:
            return NOTHING
        self.quick, self.tier = _quick(tier, self._make_key, self._namespace, self), tier
        return self.quick(args, kwargs)


UNASKED = (emit,)
"""Stands for the sinks of a kind that was not asked for yet: `emit` asks."""


def _quick(tier: LocalTier, maker: KeyMaker, namespace: str, owner: object) -> Quick:
    """Everything that a hit needs is at hand in one function: on its way a call of another is a cost that is seen."""
    look, monotonic = tier.table.get, tier.clock.monotonic
    aside, make_key = apart.get, key_of(maker, namespace)
    around = around_one(maker, namespace)
    head, tail = around or ("", "")
    most = 1 if around else -1

    def value(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Before the look: what was found while nobody told of changes is no better for being told of them since.
        now = monotonic()
        if now >= tier.until:
            return NOTHING
        if len(args) == most and not kwargs and (one := args[0]).__class__ is int:
            slot = look(f"{head}{one}{tail}")
        else:
            slot = look(make_key(args, kwargs))
        if slot is None or (ready := slot.ready).owner is not owner:
            return NOTHING
        if now >= ready.until or aside():
            return NOTHING
        for stamp in ready.stamps:
            if not stamp.alive:
                return NOTHING
        slot.hot = True
        tier.hit()
        if stream.routes.get(CacheRead, UNASKED):
            emit(CacheRead(cache=namespace, source="local"))
        read = ready.read
        return ready.value if read is None else read(ready.data[ready.at :])

    return value
