"""The face of the room: a registry of checks, and the three questions that are asked of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, TypeVar

from resilient import events
from resilient.arguments import one_of
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.health._core import (
    DETAILS,
    VIEWS,
    Check,
    CheckFunction,
    Details,
    Outcome,
    Scope,
    Shared,
    Status,
    View,
    check_name,
    effect,
    http_status,
    worst,
)
from resilient.health._events import Draining
from resilient.health._lane import Lane
from resilient.health._report import CheckReport, Report

__all__ = ["Health"]

F = TypeVar("F", bound=CheckFunction)

_TIMEOUT: Final = 0.5
_SHARED: Final[tuple[Shared, ...]] = ("warn", "fail")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A check as it was added."""

    lane: Lane
    critical: bool
    scope: Scope
    shared: Shared
    views: frozenset[View]

    def report(self, outcome: Outcome) -> CheckReport:
        told = effect(outcome.result.status, critical=self.critical, scope=self.scope, shared=self.shared)
        return CheckReport(self.lane.name, self.lane.check.kind, outcome, told)


class Health:
    """Whether this process is alive, may get traffic, and has come up.

    Every report ends within its deadline, whatever hangs: each check runs on a thread of its own, one run at a time,
    and a run that has not ended in its time is reported as ``timeout`` and not started again until it ends. Probes
    that come together share one run, and an outcome is good for a second, so a hundred probes cost one.

    Args:
        deadline: Seconds within which a report ends. Kubernetes waits one second by default, Route 53 two.
        shared: What the failure of a critical shared dependency does to readiness: ``"warn"`` answers 200 with a
            warning, so that no balancer empties its pool because of a fault that all instances have; ``"fail"`` answers
            503.
        details: Who sees more than one word: ``"never"`` anybody, ``"authorized"`` whom the mount's ``authorize``
            accepts, ``"always"`` everybody.
        clock: Where the time comes from.

    Raises:
        ConfigurationError: An argument is not one of those.

    Examples:
        >>> from resilient.health import Health, checks
        >>> health = Health()
        >>> health.add("breakfast", lambda: True)
        >>> health.ready().http_status
        200
        >>> health.drain()
        >>> health.ready().http_status, health.live().http_status
        (503, 200)
    """

    def __init__(
        self, *, deadline: float = 0.8, shared: Shared = "warn", details: Details = "never", clock: Clock = SYSTEM
    ) -> None:
        if not deadline > 0:
            raise ConfigurationError(f"a report needs some time, got deadline={deadline!r}")
        self.deadline = float(deadline)
        self.shared: Shared = one_of("shared", shared, _SHARED)
        self.details: Details = one_of("details", details, DETAILS)
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._draining = False
        self._started = False

    def __repr__(self) -> str:
        return f"Health({', '.join(self._entries)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the checks, in the order they were added."""
        return tuple(self._entries)

    # ---------------------------------------------------------------------------------------------------- building

    def add(
        self,
        name: str,
        check: Check | CheckFunction,
        *,
        critical: bool = True,
        scope: Scope | None = None,
        timeout: float | None = None,
        ttl: float = 1.0,
        shared: Shared | None = None,
        views: Collection[View] = ("ready", "startup"),
    ) -> None:
        """Add a check.

        Args:
            name: What it is called in reports and in the log: letters, digits, ``.``, ``_`` and ``-``.
            check: One of `resilient.health.checks`, or a function that returns nothing or True (pass), False (fail)
                or a `Result`, or raises. It runs on a thread of its own; an async function on an event loop of its own.
            critical: Whether its failure fails the report; if not, it warns.
            scope: ``"local"`` for what only this instance can lose, ``"shared"`` for what all instances use. By
                default what the check says of itself; a plain function is local.
            timeout: Seconds after which a run counts as failed; at most the deadline of the report, by default 0.5.
            ttl: Seconds for which an outcome is good, counted from its end. Keep it below the balancer's interval.
            shared: For this check, instead of what was said for all.
            views: The questions it has a say in. ``"live"`` takes no dependency: a restart does not mend a database.

        Raises:
            ConfigurationError: The name is taken or malformed, liveness was given a dependency, or a number is wrong.
        """
        if not isinstance(check, Check) and not callable(check):
            raise ConfigurationError(f"the check {name!r} is {check!r}", advice="give a function, or one of checks")
        made = check if isinstance(check, Check) else Check(check)
        place = scope or made.scope
        asked = self._checked_views(name, made, place, views)
        limit = min(_TIMEOUT, self.deadline) if timeout is None else timeout
        if not 0 < limit <= self.deadline:
            raise ConfigurationError(
                f"the check {name!r} has timeout={limit!r}",
                advice=f"use more than 0 and at most the deadline of the report, {self.deadline:g} s",
            )
        if not ttl >= 0:
            raise ConfigurationError(f"the check {name!r} has ttl={ttl!r}", advice="use seconds >= 0")
        if check_name(name) in self._entries:
            raise ConfigurationError(f"there is a check {name!r} already", advice="give each check its own name")
        lane = Lane(name, made, timeout=float(limit), ttl=float(ttl), clock=self._clock)
        rule: Shared = self.shared if shared is None else one_of("shared", shared, _SHARED)
        entry = _Entry(lane, critical, one_of("scope", place, ("local", "shared")), rule, asked)
        self._entries = {**self._entries, name: entry}  # replaced, so that a report under way keeps its own

    def _checked_views(self, name: str, check: Check, scope: Scope, views: Collection[View]) -> frozenset[View]:
        if isinstance(views, str) or not views or not set(views) <= set(VIEWS):
            raise ConfigurationError(f"the check {name!r} has views={views!r}", advice=f"use some of {VIEWS}")
        if "live" in views and (check.dependency or scope == "shared"):
            raise ConfigurationError(
                f"the check {name!r} asks a dependency, so it has no say in liveness",
                advice="a restart of this process would not mend it: leave it to readiness",
            )
        return frozenset(views)

    def check(
        self,
        name: str,
        *,
        critical: bool = True,
        scope: Scope | None = None,
        timeout: float | None = None,
        ttl: float = 1.0,
        shared: Shared | None = None,
        views: Collection[View] = ("ready", "startup"),
    ) -> Callable[[F], F]:
        """Add the decorated function as a check; the arguments are those of `add`.

        Examples:
            >>> health = Health()
            >>> @health.check("disk", critical=False)
            ... def disk():
            ...     return True
            >>> health.names
            ('disk',)
        """

        def add(function: F) -> F:
            self.add(
                name, function, critical=critical, scope=scope, timeout=timeout, ttl=ttl, shared=shared, views=views
            )
            return function

        return add

    # ------------------------------------------------------------------------------------------------------ asking

    def live(self) -> Report:
        """Whether the process works. No dependency has a say, and draining does not change it."""
        return self.report("live")

    def ready(self) -> Report:
        """Whether the instance may get traffic."""
        return self.report("ready")

    def startup(self) -> Report:
        """Whether the instance has come up. Once it has, no check is run for this question any more."""
        return self.report("startup")

    def report(self, view: View) -> Report:
        """Answer one of the three questions. Never raises, and returns within the deadline."""
        known = self._known(view)
        if known is not None:
            return known
        until = self._clock.monotonic() + self.deadline
        begun = [(entry, entry.lane.begin()) for entry in self._asked(view)]
        return self._answer(view, [entry.report(entry.lane.wait(run, until)) for entry, run in begun])

    async def aready(self) -> Report:
        """The async face of `ready`; for the other questions see `areport`."""
        return await self.areport("ready")

    async def areport(self, view: View) -> Report:
        """The async face of `report`; the checks still run on threads, and the event loop stays free.

        Examples:
            >>> import asyncio
            >>> asyncio.run(Health().areport("live")).word
            'pass'
        """
        known = self._known(view)
        if known is not None:
            return known
        until = self._clock.monotonic() + self.deadline
        begun = [(entry, entry.lane.begin()) for entry in self._asked(view)]
        return self._answer(view, [entry.report(await entry.lane.await_(run, until)) for entry, run in begun])

    def _asked(self, view: View) -> list[_Entry]:
        return [entry for entry in self._entries.values() if view in entry.views]

    def _known(self, view: View) -> Report | None:
        """The answer where no check need be asked for it."""
        one_of("view", view, VIEWS)
        if view == "ready" and self._draining:
            return Report(view, Status.FAIL, draining=True)
        if view == "startup" and self._started:
            return Report(view, Status.PASS, draining=self._draining)
        return None

    def _answer(self, view: View, told: list[CheckReport]) -> Report:
        status = worst(each.effect for each in told)
        if view == "ready" and self._draining:  # it began while the checks ran
            status = Status.FAIL
        if view == "startup" and http_status(status) == 200:
            self._started = True
        return Report(view, status, {each.name: each for each in told}, draining=self._draining)

    # ------------------------------------------------------------------------------------------------------ ending

    @property
    def draining(self) -> bool:
        """Whether readiness was withdrawn."""
        return self._draining

    def drain(self) -> None:
        """Answer 503 to readiness from now on, so that balancers send no more; liveness stays as it is.

        Call it when the process is told to end, and go on serving until the balancer has noticed.
        """
        if not self._draining:
            self._draining = True
            events.emit(Draining())

    def close(self) -> None:
        """Close the connections that the checks hold. A report after that opens them anew."""
        for entry in self._entries.values():
            if entry.lane.check.close is not None:
                entry.lane.check.close()
