"""The prober: asks each server again and again, and keeps what follows from the answers."""

from __future__ import annotations

from contextvars import Context

from resilient import events
from resilient.causality import Instant
from resilient.clock import Clock
from resilient.errors import Unavailable
from resilient.runtime import Periodic, fork_safe_lock
from resilient.storage.replicas._events import NodeChanged
from resilient.storage.replicas._health import History, State, judge_lag
from resilient.storage.replicas._node import Answer, Node

__all__ = ["Watch"]


class Watch:
    """Watches the servers of one set, each on a thread of its own: a frozen one delays no other one's probes.

    Args:
        set_name: The set's name.
        primary: Its primary.
        replicas: Its replicas.
        max_lag: Seconds a replica may be behind and still be good.
        interval: Seconds between two probes of one server; ``None`` for probes by hand only.
        clock: Where time is read.
    """

    def __init__(
        self,
        set_name: str,
        primary: Node,
        replicas: tuple[Node, ...],
        *,
        max_lag: float,
        interval: float | None,
        clock: Clock,
    ) -> None:
        self._set_name = set_name
        self._primary = primary
        self._replicas = replicas
        self._max_lag = max_lag
        self._clock = clock
        self._history = History()
        self._lock = fork_safe_lock()
        self._closed = False
        self._tickers = tuple(_Ticker(self, node) for node in (primary, *replicas))
        self._probers: tuple[Periodic, ...] = ()
        if interval is not None:
            self._probers = tuple(
                Periodic(ticker.tick, interval, f"probe-{set_name}-{ticker.node.name}") for ticker in self._tickers
            )

    def ensure(self) -> None:
        """Start the probes where they do not run yet.

        Raises:
            Unavailable: The set is closed.
        """
        if self._closed:
            raise Unavailable(f"the replica set {self._set_name!r} is closed")
        for prober in self._probers:
            prober.ensure()

    def ask_all(self) -> None:
        """Ask every server now, one after the other, the primary first."""
        for ticker in self._tickers:
            ticker.tick()

    def close(self) -> None:
        """End the probes, for good."""
        self._closed = True
        for prober in self._probers:
            prober.close()

    def failed(self, node: Node, state: State) -> None:
        """A caller met a server that does not serve: it is out at once."""
        self._change(node, state, at_once=True)

    def reference(self) -> float | None:
        """The moment a lag is counted from: now, or while the primary is silent what the best replica holds."""
        if self._primary.answered:
            return self._clock.wall()
        return max((node.proven for node in self._replicas if node.proven is not None), default=None)

    def ask(self, node: Node) -> None:
        """Probe one server and take what it says into account."""
        before = self._clock.wall()
        try:
            answer = Context().run(node.ask)  # a caller's deadline says nothing about the server
        except Exception:  # noqa: BLE001 - whatever it was, the server did not answer
            node.answered = False
            if not node.may_be_new:
                self._change(node, "down")
            return
        with self._lock:  # the probes of the primary and of a replica both prove
            self._learn(node, answer, before)
        if node.role == "primary":
            self._change(node, "read_only" if answer.read_only else "up")
        else:
            self._change(node, judge_lag(node.proven, self.reference(), self._max_lag))

    def _learn(self, node: Node, answer: Answer, before: float) -> None:
        node.answered = True
        if answer.position is None or (node.position is not None and not answer.position.covers(node.position)):
            node.proven = None  # it was rebuilt from an older copy: what was proven holds no more
        node.position = answer.position
        if node.role == "replica":
            self._prove(node)
            return
        if answer.position is not None:
            self._history.record(before, answer.position)
        for each in self._replicas:
            self._prove(each)

    def _prove(self, node: Node) -> None:
        position = node.position
        if isinstance(position, Instant):
            node.proven = position.at
        elif position is not None:
            proven = self._history.proven(position)
            # Further back than the history reaches: what was proven before still holds while positions grow.
            node.proven = node.proven if proven is None else proven

    def _change(self, node: Node, state: State, *, at_once: bool = False) -> None:
        with self._lock:
            before = node.health.state
            if at_once:
                node.health.failed(state)
            else:
                node.health.probed(state)
            after = node.health.state
        if before == after:
            return
        if after == "down":
            node.drop_connections()
        if before != "unknown" or after != "up":
            events.emit(NodeChanged(set_name=self._set_name, node=node.name, before=before, after=after))


class _Ticker:
    """Probes one server."""

    def __init__(self, watch: Watch, node: Node) -> None:
        self._watch = watch
        self.node = node

    def tick(self) -> None:
        self._watch.ask(self.node)
