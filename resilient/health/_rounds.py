"""Asking without being asked: all checks, and the peers, again and again on one thread."""

from __future__ import annotations

from resilient.arguments import is_number
from resilient.clock import Clock
from resilient.errors import ConfigurationError
from resilient.health._party import Party
from resilient.health._registry import Registry
from resilient.runtime import Periodic

__all__ = ["Rounds"]


class Rounds:
    """The background of a `Health`.

    Args:
        registry: The checks.
        party: This instance among its peers.
        every: Seconds between the end of one round and the start of the next.
        deadline: Seconds that a round waits for the runs it has begun.
        clock: Where the time comes from.
    """

    def __init__(self, registry: Registry, party: Party | None, every: float, deadline: float, clock: Clock) -> None:
        if not is_number(every) or not 0 < every < float("inf"):
            raise ConfigurationError(f"every={every!r} is no time", advice="use seconds > 0")
        self._registry = registry
        self._party = party
        self._deadline = deadline
        self._clock = clock
        self._periodic = Periodic(self._round, float(every), "health")
        self.tell_lanes(float(every))

    def tell_lanes(self, every: float | None) -> None:
        """Tell the lanes how often they are run."""
        for entry in self._registry.entries.values():
            entry.lane.refreshed_every = every

    def ensure(self) -> None:
        """See that the thread runs, in a forked child too."""
        self._periodic.ensure()

    def added(self) -> None:
        """A check was added."""
        self.tell_lanes(self._periodic.interval)

    def close(self) -> None:
        """End the thread. Checks run when they are asked for again."""
        self._periodic.close()
        self.tell_lanes(None)

    def _round(self) -> None:
        until = self._clock.monotonic() + self._deadline
        lanes = [entry.lane for entry in self._registry.entries.values()]
        for lane, run in [(lane, lane.begin(anew=True)) for lane in lanes]:
            lane.wait(run, until)
        judged = self._registry.judged()
        if self._party is None or not judged:
            return
        words = self._party.lane
        words.wait(words.begin(anew=True), self._clock.monotonic() + words.timeout)
        for name, lane in judged.items():
            self._party.fault(name, lane.streak)
