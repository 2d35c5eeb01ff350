"""The tour itself: phase after phase, with a line for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from examples.imagery.databases import SHARDS
from examples.imagery.parts import Parts
from examples.imagery.tour.invariants import Finding, Inspector
from examples.imagery.tour.phases import PHASES, Fault, Site, open_site
from examples.imagery.tour.table import header, line, markdown
from examples.imagery.tour.tally import Phase, Tally
from examples.imagery.tour.users import Crowd
from resilient.clock import SYSTEM
from resilient.errors import Unavailable
from resilient.storage.shards import ShardMap

__all__ = ["Tour"]

_PATIENCE = 10.0
"""Seconds within which a part must have recovered after it was mended."""


class Tour:
    """Send users through the application, break its parts, and look at what is left.

    Args:
        parts: All the parts, running.
        say: Prints one line.
        users: How many users.
        pause: Seconds between two requests of one user, about.
        calm: Seconds before the first fault.
        faults: What to break, in order.
        settle: Seconds within which everything must be done after the last user has gone.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        say: Callable[[str], None] = print,
        users: int = 6,
        pause: float = 0.15,
        calm: float = 4.0,
        faults: tuple[Fault, ...] = PHASES,
        settle: float = 15.0,
    ) -> None:
        self._parts = parts
        self._say = say
        self._calm = calm
        self._faults = faults
        self._settle = settle
        self._map = ShardMap.hashed(sorted(SHARDS))
        self._dead_shard = SHARDS[-1]
        self.tally = Tally()
        self._names = self._choose(users)
        self.crowd = Crowd(self._names, [web.url for web in parts.webs], self.tally, pause=pause)

    def _choose(self, count: int) -> list[str]:
        """Names of users, of whom every other one lives on the shard that will be stopped."""
        names: dict[bool, list[str]] = {True: [], False: []}
        number = 0
        while min(len(found) for found in names.values()) < (count + 1) // 2:
            number += 1
            name = f"user-{number}"
            names[self._map.shard_for(name) == self._dead_shard].append(name)
        return [name for pair in zip(names[True], names[False], strict=False) for name in pair][:count]

    def run(self, table: Path | None = None) -> list[Finding]:
        """Do everything. Returns what was found; the tour succeeded if nothing of it is broken."""
        began = SYSTEM.monotonic()
        with open_site(self._parts, dead_shard=self._dead_shard, its_owner=self._names[0]) as site:
            self._say(header())
            try:
                ending = self._phases(site)
            finally:
                self.crowd.stop(0.0)
            inspector = Inspector(self._parts, self.crowd, self.tally, dead_shard=self._dead_shard, shard_map=self._map)
            findings = self._inspect(inspector, ending)
        broken = sum(bool(each.broken) for each in findings)
        verdict = (
            f"{len(findings) - broken} of {len(findings)} invariants held after {SYSTEM.monotonic() - began:.0f} s"
        )
        self._say(f"\n{verdict}.")
        if table is not None:
            table.write_text(markdown(self.tally.phases, self._parts.what, f"{verdict}."))
        return findings

    def _phases(self, site: Site) -> Phase:
        calm = self.tally.begin("calm")
        self.crowd.start()
        SYSTEM.sleep(self._calm)
        site.image = self._some_image()
        self._say(line(calm))
        for fault in self._faults:
            phase = self.tally.begin(fault.name)
            self._suffer(fault, site, phase)
            self._say(line(phase))
        ending = self.tally.begin("all mended")
        SYSTEM.sleep(self._calm / 2)
        if not self.crowd.stop():
            raise Unavailable("a simulated user did not come to an end")
        return ending

    def _suffer(self, fault: Fault, site: Site, phase: Phase) -> None:
        """Break, wait, mend, and measure the time until all is as before."""
        site.done = ""
        fault.breaks(site)
        SYSTEM.sleep(fault.hold)
        fault.mends(site)
        mended = SYSTEM.monotonic()
        while not fault.recovered(site):
            if SYSTEM.monotonic() > mended + _PATIENCE:
                self.tally.note(self.tally.late, f"{fault.what}: not within {_PATIENCE:g} s")
                phase.recovered = f"NOT within {_PATIENCE:g} s"
                return
            SYSTEM.sleep(0.05)
        told = [f"{fault.what} after {SYSTEM.monotonic() - mended:.1f} s"] if fault.what else []
        phase.recovered = "; ".join([*([site.done] if site.done else []), *told])

    def _some_image(self) -> str:
        until = SYSTEM.monotonic() + _PATIENCE
        while not self.crowd.accepted:
            if SYSTEM.monotonic() > until:
                raise Unavailable(
                    f"no image was accepted within {_PATIENCE:g} s", advice="; ".join(self.crowd.unfinished[:1])
                )
            SYSTEM.sleep(0.05)
        return self.crowd.accepted[0].id

    def _inspect(self, inspector: Inspector, ending: Phase) -> list[Finding]:
        ending.recovered = f"queues empty after {inspector.settle(self._settle):.1f} s"
        self._say(line(ending) + "\n")
        findings = []
        for finding in inspector.findings():
            findings.append(finding)
            self._say(str(finding))
        return findings
