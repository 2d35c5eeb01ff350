"""The course of one report, told once for both faces: which runs to wait for, and what their ends mean."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeAlias

from resilient.clock import Clock
from resilient.health._core import Fault, Status
from resilient.health._flight import Flight
from resilient.health._history import Finding
from resilient.health._lane import Lane
from resilient.health._party import Party
from resilient.health._registry import Entry, Group
from resilient.health._report import CheckReport

__all__ = ["Course", "Wait", "inquire"]

Wait: TypeAlias = tuple[Lane, Finding | Flight]
"""What is waited for: a run, on its lane."""

Course: TypeAlias = Generator[Wait, Finding, list[CheckReport]]
"""A report under way: it yields what it waits for, is sent what was found, and returns what each check adds."""


def inquire(group: Group, entries: Sequence[Entry], party: Party | None, until: float, clock: Clock) -> Course:
    """Ask the checks of a view, and the peers where they have a say.

    Args:
        group: The view.
        entries: The checks that have a say in it.
        party: This instance among its peers.
        until: When the report ends (monotonic).
        clock: Where the time comes from.
    """
    begun = [entry.lane.begin(until=until) for entry in entries]  # all of them, before the first is waited for
    found: list[Finding] = []
    for entry, run in zip(entries, begun, strict=True):
        found.append((yield entry.lane, run))
    named = party.names if party is not None else frozenset[str]()
    judged = [entry.name in named and (group.name == "all" or group.rule(entry) == "peers") for entry in entries]
    if party is None or not any(judged):
        return [entry.report(finding, group.rule(entry), None) for entry, finding in zip(entries, found, strict=True)]

    words = party.lane.begin(anew=party.changed)
    if any(finding.streak.status > Status.WARN for finding, by_peers in zip(found, judged, strict=True) if by_peers):
        yield party.lane, words  # while all is well here, what the peers say can wait
    told: list[CheckReport] = []
    for entry, finding, by_peers in zip(entries, found, judged, strict=True):
        fault: Fault | None = None
        last = finding
        if by_peers:
            fault, look = party.fault(entry.name, last.streak)
            if look and until - clock.monotonic() < entry.lane.timeout:
                entry.lane.expire()  # there is no time for a second look: the next report takes it
            elif look:  # a peer got through since our last run: perhaps we do now
                last = yield entry.lane, entry.lane.begin(anew=True)
                fault, _ = party.fault(entry.name, last.streak)
        told.append(entry.report(last, group.rule(entry), fault))
    return told
