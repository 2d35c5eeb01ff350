"""What was added to a `Health`, and what is demanded of it: names, views, times. Wrong ones are found here."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, TypedDict

from resilient.arguments import is_number, one_of
from resilient.clock import Clock
from resilient.errors import ConfigurationError
from resilient.health._core import (
    SHARED,
    VIEWS,
    Check,
    CheckFunction,
    Fault,
    Scope,
    Shared,
    Status,
    View,
    check_name,
    check_worst,
    effect,
)
from resilient.health._history import Finding, Terms
from resilient.health._lane import Lane
from resilient.health._report import CheckReport
from resilient.health._streak import Rule
from resilient.health._teller import Teller

__all__ = ["Entry", "Group", "Options", "Part", "Registry", "kept"]

_TIMEOUT: Final = 0.5
_RESERVED: Final = (*VIEWS, "all", "page", "metrics")


class Options(TypedDict, total=False):
    """The keywords of `Health.add`, which has their defaults."""

    critical: bool
    scope: Scope | None
    timeout: float | None
    ttl: float
    failed_ttl: float | None
    shared: Shared | None
    views: Collection[View]
    fall: int
    rise: int
    grace: float
    at_worst: Status | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How a check takes part: what `Health.add` was given."""

    critical: bool
    scope: Scope | None
    timeout: float | None
    ttl: float
    failed_ttl: float | None
    shared: Shared | None
    views: Collection[View]
    fall: int
    rise: int
    grace: float
    at_worst: Status | None


def kept(shared: Shared, *, has_peers: bool) -> Shared:
    """A rule for shared faults as it is, if it can be kept. Raises ConfigurationError."""
    if one_of("shared", shared, SHARED) == "peers" and not has_peers:
        raise ConfigurationError(
            'shared="peers" needs peers', advice="write Health(..., peers=Peers(url, service=...))"
        )
    return shared


@dataclass(frozen=True, slots=True)
class Entry:
    """A check as it was added."""

    lane: Lane
    critical: bool
    scope: Scope
    shared: Shared
    views: frozenset[View]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.lane.name

    def report(self, finding: Finding, rule: Shared, fault: Fault | None) -> CheckReport:
        """What it adds to a report."""
        status, rising = finding.streak.status, finding.streak.rising
        told = self._effect(status, rule, fault)
        return CheckReport(self.name, self.lane.check.kind, finding.outcome, told, status, fault, rising=rising)

    def effect(self, group: Group, report: CheckReport) -> Status:
        """What it would do to the report of another view."""
        return self._effect(report.status, group.rule(self), report.fault)

    def _effect(self, status: Status, rule: Shared, fault: Fault | None) -> Status:
        return effect(status, critical=self.critical, scope=self.scope, shared=rule, fault=fault)


@dataclass(frozen=True, slots=True)
class Group:
    """A view: which checks have a say in it, and how.

    Those that name it in their views, its members, and all but the excluded ones where there are such.
    """

    name: View
    members: frozenset[str] = frozenset()
    excluded: frozenset[str] | None = None
    shared: Shared | None = None
    drains: bool = False

    def asks(self, entry: Entry) -> bool:
        """Whether a check has a say, also one that was added after the view."""
        if self.name == "all" or self.name in entry.views or entry.name in self.members:
            return True
        return self.excluded is not None and entry.name not in self.excluded

    def rule(self, entry: Entry) -> Shared:
        """What a shared fault of a check does here."""
        return self.shared or entry.shared


@dataclass(slots=True)
class Registry:
    """The checks and the views of a `Health`."""

    deadline: float
    shared: Shared
    has_peers: bool
    clock: Clock
    teller: Teller
    entries: dict[str, Entry] = field(default_factory=dict)
    groups: dict[View, Group] = field(
        default_factory=lambda: {
            "live": Group("live"),
            "ready": Group("ready", drains=True),
            "startup": Group("startup"),
            "all": Group("all"),
        }
    )

    def add(self, name: str, check: Check | CheckFunction, part: Part) -> Entry:
        """Add a check. Raises ConfigurationError."""
        check_name(name)
        if not isinstance(check, Check) and not callable(check):
            raise ConfigurationError(f"the check {name!r} is {check!r}", advice="give a function, or one of checks")
        made = check if isinstance(check, Check) else Check(check)
        scope: Scope = part.scope or made.scope
        one_of("scope", scope, ("local", "shared"))
        views = self._views(name, made, scope, part.views)
        lane = Lane(name, made, self._terms(name, made, part), self.clock, self.teller)
        entry = Entry(lane, bool(part.critical), scope, self.rule(part.shared) or self.shared, views)
        if name in self.entries:
            raise ConfigurationError(f"there is a check {name!r} already", advice="give each check its own name")
        self.entries = {**self.entries, name: entry}  # replaced, so that a report under way keeps its own
        return entry

    def _terms(self, name: str, check: Check, part: Part) -> Terms:
        given, failed, at_worst = part.timeout, part.failed_ttl, part.at_worst
        timeout = min(_TIMEOUT, self.deadline) if given is None else given
        if not is_number(timeout) or not 0 < timeout <= self.deadline:
            raise ConfigurationError(
                f"the check {name!r} has timeout={timeout!r}",
                advice=f"use more than 0 and at most the deadline of the report, {self.deadline:g} s",
            )
        times = {"ttl": part.ttl, "failed_ttl": part.ttl if failed is None else failed}
        for each, seconds in times.items():
            if not is_number(seconds) or not 0 <= seconds < math.inf:
                raise ConfigurationError(
                    f"the check {name!r} has {each}={seconds!r}", advice="use seconds >= 0, as many as you like"
                )
        rule = Rule(part.fall, part.rise, part.grace)
        return Terms(
            float(timeout), **times, rule=rule, at_worst=check.at_worst if at_worst is None else check_worst(at_worst)
        )

    def _views(self, name: str, check: Check, scope: Scope, views: Collection[View]) -> frozenset[View]:
        known = [each for each in self.groups if each != "all"]
        if isinstance(views, str) or not views or not set(views) <= set(known):
            raise ConfigurationError(f"the check {name!r} has views={views!r}", advice=f"use some of {tuple(known)}")
        if "live" in views and (check.dependency or scope == "shared"):
            raise ConfigurationError(
                f"the check {name!r} asks a dependency, so it has no say in liveness",
                advice="a restart of this process would not mend it: leave it to readiness",
            )
        return frozenset(views)

    def rule(self, shared: Shared | None) -> Shared | None:
        """A rule for shared faults as it is, if it can be kept. Raises ConfigurationError."""
        return None if shared is None else kept(shared, has_peers=self.has_peers)

    def group(
        self,
        name: str,
        include: Collection[str] | None,
        exclude: Collection[str],
        *,
        shared: Shared | None,
        drains: bool,
    ) -> Group:
        """Add a group. Raises ConfigurationError."""
        if check_name(name, "group") in self.groups or name in _RESERVED:
            raise ConfigurationError(f"there is a view {name!r} already", advice="give the group its own name")
        for each in (include or (), exclude):
            unknown = [each] if isinstance(each, str) else [other for other in each if other not in self.entries]
            if unknown:
                raise ConfigurationError(
                    f"the group {name!r} names {unknown!r}, which are no checks",
                    advice=f"add them before the group; there are {tuple(self.entries)}",
                )
        members = frozenset(include or ()) - frozenset(exclude)
        excluded = frozenset(exclude) if include is None and exclude else None
        group = Group(name, members, excluded, self.rule(shared), drains=drains)
        self.groups = {**self.groups, name: group}
        return group

    def asked(self, group: Group, *, starting: bool) -> list[Entry]:
        """The checks that have a say in a view; in readiness, those of the start too until it is over."""
        return [
            each
            for each in self.entries.values()
            if group.asks(each) or (starting and group.name == "ready" and "startup" in each.views)
        ]

    def judged(self) -> dict[str, Lane]:
        """The lanes of the checks that peers have a say in. What only warns takes nobody out, and is no witness."""
        by_group = any(group.shared == "peers" for group in self.groups.values())
        return {
            each.name: each.lane
            for each in self.entries.values()
            if each.scope == "shared"
            and (by_group or each.shared == "peers")
            and each.lane.history.terms.at_worst > Status.WARN
        }
