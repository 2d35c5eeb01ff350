"""What was added to a `Health`, and what is demanded of it: names, views, times. Wrong ones are found here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, TypedDict

from resilient.arguments import one_of
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
from resilient.health._lane import Finding, Lane
from resilient.health._report import CheckReport
from resilient.health._streak import Rule

__all__ = ["Entry", "Group", "Options", "Registry"]

_TIMEOUT: Final = 0.5
_RESERVED: Final = (*VIEWS, "all", "page", "metrics")


class Options(TypedDict, total=False):
    """How a check takes part: the keywords of `Health.add`."""

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
    """A view: which checks have a say in it, and how."""

    name: View
    members: frozenset[str] = frozenset()
    shared: Shared | None = None
    drains: bool = False

    def asks(self, entry: Entry) -> bool:
        """Whether a check has a say."""
        return self.name == "all" or self.name in entry.views or entry.name in self.members

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
    entries: dict[str, Entry] = field(default_factory=dict)
    groups: dict[View, Group] = field(
        default_factory=lambda: {
            "live": Group("live"),
            "ready": Group("ready", drains=True),
            "startup": Group("startup"),
            "all": Group("all"),
        }
    )

    def add(self, name: str, check: Check | CheckFunction, options: Options) -> Entry:
        """Add a check. Raises ConfigurationError."""
        if not isinstance(check, Check) and not callable(check):
            raise ConfigurationError(f"the check {name!r} is {check!r}", advice="give a function, or one of checks")
        made = check if isinstance(check, Check) else Check(check)
        scope: Scope = options.get("scope") or made.scope
        one_of("scope", scope, ("local", "shared"))
        views = self._views(name, made, scope, options.get("views", ("ready", "startup")))
        entry = Entry(
            self._lane(name, made, options),
            bool(options.get("critical", True)),
            scope,
            self.rule(options.get("shared")) or self.shared,
            views,
        )
        if check_name(name) in self.entries:
            raise ConfigurationError(f"there is a check {name!r} already", advice="give each check its own name")
        self.entries = {**self.entries, name: entry}  # replaced, so that a report under way keeps its own
        return entry

    def _lane(self, name: str, check: Check, options: Options) -> Lane:
        timeout = options.get("timeout")
        limit = min(_TIMEOUT, self.deadline) if timeout is None else timeout
        if not 0 < limit <= self.deadline:
            raise ConfigurationError(
                f"the check {name!r} has timeout={limit!r}",
                advice=f"use more than 0 and at most the deadline of the report, {self.deadline:g} s",
            )
        ttl = options.get("ttl", 1.0)
        failed = options.get("failed_ttl")
        for each, seconds in (("ttl", ttl), ("failed_ttl", ttl if failed is None else failed)):
            if not seconds >= 0:
                raise ConfigurationError(f"the check {name!r} has {each}={seconds!r}", advice="use seconds >= 0")
        rule = Rule(options.get("fall", 1), options.get("rise", 1), float(options.get("grace", 0.0)))
        at_worst = options.get("at_worst")
        return Lane(
            name,
            check,
            timeout=float(limit),
            ttl=ttl,
            failed_ttl=failed,
            rule=rule,
            at_worst=None if at_worst is None else check_worst(at_worst),
            clock=self.clock,
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
        if shared is None:
            return None
        if one_of("shared", shared, SHARED) == "peers" and not self.has_peers:
            raise ConfigurationError(
                'shared="peers" needs peers', advice="write Health(..., peers=Peers(url, service=...))"
            )
        return shared

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
        if check_name(name) in self.groups or name in _RESERVED:
            raise ConfigurationError(f"there is a view {name!r} already", advice="give the group its own name")
        for each in (include or (), exclude):
            unknown = [each] if isinstance(each, str) else [other for other in each if other not in self.entries]
            if unknown:
                raise ConfigurationError(
                    f"the group {name!r} names {unknown!r}, which are no checks",
                    advice=f"add them before the group; there are {tuple(self.entries)}",
                )
        members = frozenset(self.entries if include is None and exclude else include or ()) - frozenset(exclude)
        group = Group(name, members, self.rule(shared), drains=drains)
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
        """The lanes of the checks that peers have a say in."""
        by_group = any(group.shared == "peers" for group in self.groups.values())
        return {
            each.name: each.lane
            for each in self.entries.values()
            if each.scope == "shared" and (by_group or each.shared == "peers")
        }
