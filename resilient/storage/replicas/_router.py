"""The routing decision: which server of a set serves a transaction, by what is known of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Literal, TypeAlias

from resilient import causality, events
from resilient.arguments import one_of
from resilient.causality import Instant, Position
from resilient.clock import Clock
from resilient.errors import CircuitOpen, InvalidInput, Unavailable
from resilient.storage.replicas._events import ReadRouted
from resilient.storage.replicas._health import Copy, choose
from resilient.storage.replicas._node import Node
from resilient.storage.replicas._watch import Watch

__all__ = ["LEVELS", "Consistency", "Router"]

Consistency: TypeAlias = Literal["eventual", "session", "strong"]

LEVELS = ("eventual", "session", "strong")
_chosen: ContextVar[Mapping[str, Consistency]] = ContextVar("resilient_consistency", default=MappingProxyType({}))


class Router:
    """What the sessions of one set ask, before they send anything.

    Args:
        set_name: The set's name.
        primary: Its primary.
        replicas: Its replicas.
        watch: Keeps what is known of them.
        max_lag: Seconds a replica may be behind and still serve reads.
        consistency: What a read promises where `consistency` says nothing.
        interval: Seconds between two probes of one server; ``None`` for probes by hand only.
        clock: Where time is read.
    """

    def __init__(
        self,
        set_name: str,
        primary: Node,
        replicas: tuple[Node, ...],
        watch: Watch,
        *,
        max_lag: float,
        consistency: Consistency,
        interval: float | None,
        clock: Clock,
    ) -> None:
        self.set_name = set_name
        self.primary = primary
        self.replicas = replicas
        self._watch = watch
        self._max_lag = max_lag
        self._default = consistency
        self._interval = interval
        self._clock = clock
        self._turn = itertools.count()

    # ---------------------------------------------------------------------------------------------------- questions

    def pick(self, given_up: Sequence[Node] = ()) -> Node:
        """The server for a transaction that begins with a pure read.

        Args:
            given_up: Servers that failed this transaction already.

        Raises:
            Unavailable: No server may serve it.
        """
        self._watch.ensure()
        level = _chosen.get().get(self.set_name, self._default)
        pin = causality.current().token.get(self.set_name) if level == "session" else None
        reason = "strong"
        if level != "strong":
            found = self._pick_replica(given_up, pin)
            if found is not None:
                return self._routed(found, "replica")
            reason = "pinned" if pin is not None else "no-replica"
        if self.primary not in given_up and self.primary.health.state != "down":
            return self._routed(self.primary, reason)
        if level != "strong" and pin is None:
            found = self._most_advanced(given_up)
            if found is not None:
                return self._routed(found, "no-primary")
        needs = {"strong": "a strong read needs it", "pinned": "no replica holds what this reader has seen yet"}
        raise Unavailable(
            f"the primary of {self.set_name!r} is down and {needs.get(reason, 'no replica can serve')}",
            retry_after=self._interval,
        )

    def has_other(self, node: Node, given_up: Sequence[Node]) -> bool:
        """Whether another server might serve a read that this one fails."""
        others = (each for each in (self.primary, *self.replicas) if each is not node and each not in given_up)
        return any(each.health.state != "down" for each in others)

    def require_writable(self) -> None:
        """Raise where the primary is known to take no writes; nothing is sent.

        Raises:
            CircuitOpen: The primary is down, or read-only.
        """
        self._watch.ensure()
        state = self.primary.health.state
        if state in {"down", "read_only"}:
            raise CircuitOpen(
                f"the primary of {self.set_name!r} is {state.replace('_', '-')}: nothing was sent",
                advice="reads go on at the replicas; write again when it is back",
                retry_after=self._interval,
            )

    def observe(self) -> None:
        """Remember, for the current scope, that something was committed just now."""
        causality.current().observe(self.set_name, Instant(self._clock.wall()))

    @contextmanager
    def consistency(self, level: Consistency) -> Iterator[None]:
        """Choose what reads promise within the block. Raises InvalidInput where there is no such level."""
        reset = _chosen.set({**_chosen.get(), self.set_name: one_of("level", level, LEVELS, InvalidInput)})
        try:
            yield
        finally:
            _chosen.reset(reset)

    # ------------------------------------------------------------------------------------------------------ choices

    def _routed(self, node: Node, reason: str) -> Node:
        if events.wanted(ReadRouted):
            events.emit(ReadRouted(set_name=self.set_name, node=node.name, reason=reason))
        return node

    def _pick_replica(self, given_up: Sequence[Node], pin: Position | None) -> Node | None:
        if not self.replicas:
            return None
        copies = [
            Copy(index, node.health.state, node.proven, node.outstanding)
            for index, node in enumerate(self.replicas)
            if node not in given_up
        ]
        # Should the probes themselves stand still, a proof still grows old.
        slack = 3 * (self._interval or 0.0) + 1.0
        oldest = self._clock.wall() - self._max_lag - slack if self.primary.answered else None
        index = choose(copies, pin=pin, oldest=oldest, turn=next(self._turn))
        return None if index is None else self.replicas[index]

    def _most_advanced(self, given_up: Sequence[Node]) -> Node | None:
        """With the primary gone before anything was proven: a replica that holds whatever any other holds."""
        told = [node for node in self.replicas if node.position is not None and node.health.state != "down"]
        for node in told:
            mine = node.position
            if node not in given_up and mine is not None:
                others = (other.position for other in told)
                if all(theirs is None or mine.covers(theirs) for theirs in others):
                    return node
        return None
