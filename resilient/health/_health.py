"""The face of the room: a registry of checks, and the questions that are asked of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial
from typing import TypeVar, Unpack

from resilient import events
from resilient.arguments import is_number, one_of
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.health._core import DETAILS, Check, CheckFunction, Details, Scope, Shared, Status, View, check_name
from resilient.health._history import History
from resilient.health._inquiry import Course, inquire
from resilient.health._lane import Lane
from resilient.health._party import Party
from resilient.health._peers import Peers
from resilient.health._registry import Group, Options, Part, Registry, kept
from resilient.health._report import CheckReport, Report
from resilient.health._rounds import Rounds
from resilient.health._standing import Standing
from resilient.health._teller import Teller
from resilient.health._term import TermHook

__all__ = ["Health"]

F = TypeVar("F", bound=CheckFunction)


class Health:
    """Whether this process is alive, may get traffic, and has come up.

    Every report ends within its deadline, whatever hangs: each check runs on a thread of its own, one run at a time,
    and a run that has not ended in its time is reported as ``timeout`` and not started again until it ends. Probes
    that come together share one run, and an outcome is good for a second, so a hundred probes cost one.

    Args:
        deadline: Seconds within which a report ends. Kubernetes waits one second by default, Route 53 two.
        shared: What the failure of a critical shared dependency does to readiness: ``"warn"`` answers 200 with a
            warning, so that no balancer empties its pool because of a fault that all instances have; ``"fail"`` answers
            503; ``"peers"`` answers 503 only where a peer has shown that the fault is this instance's own.
        peers: The other instances, for ``"peers"``.
        details: Who sees more than one word: ``"never"`` anybody, ``"authorized"`` whom the mount's ``authorize``
            accepts, ``"always"`` everybody.
        startup_grace: Seconds from now on in which a failure of liveness only warns, so that no supervisor kills a
            process that is still coming up.
        page: Whether mounts serve ``/health/page`` to those who may see details.
        metrics: Whether mounts serve ``/health/metrics`` to those who may see details.
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
        self,
        *,
        deadline: float = 0.8,
        shared: Shared = "warn",
        peers: Peers | None = None,
        details: Details = "never",
        startup_grace: float = 0.0,
        page: bool = False,
        metrics: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        if not is_number(deadline) or not 0 < deadline < float("inf"):
            raise ConfigurationError(f"a report needs some time, got deadline={deadline!r}", advice="use seconds > 0")
        if not is_number(startup_grace) or not startup_grace >= 0:
            raise ConfigurationError(f"startup_grace={startup_grace!r} is no time", advice="use seconds >= 0")
        self.deadline = float(deadline)
        self.details: Details = one_of("details", details, DETAILS)
        self.page, self.metrics = page, metrics
        self.clock = clock
        self.shared: Shared = kept(shared, has_peers=peers is not None)
        self._teller = Teller()
        self._registry = Registry(self.deadline, self.shared, peers is not None, clock, self._teller)
        self._peers = peers
        self._party = None if peers is None else Party(peers, self._registry.judged, clock, self._teller)
        self._standing = Standing(clock.monotonic() + startup_grace)
        self._rounds: Rounds | None = None

    def __repr__(self) -> str:
        return f"Health({', '.join(self.names)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the checks, in the order they were added."""
        return tuple(self._registry.entries)

    @property
    def views(self) -> tuple[View, ...]:
        """The questions that can be asked: ``live``, ``ready``, ``startup``, ``all`` and the groups."""
        return tuple(self._registry.groups)

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
        failed_ttl: float | None = None,
        shared: Shared | None = None,
        views: Collection[View] = ("ready", "startup"),
        fall: int = 1,
        rise: int = 1,
        grace: float = 0.0,
        at_worst: Status | None = None,
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
                Of many who ask at once four wait for a run; the others may be told what lapsed less than a timeout ago.
            failed_ttl: The same for a failure; by default the same.
            shared: For this check, instead of what was said for all.
            views: The questions it has a say in, groups too. ``"live"`` takes no dependency: a restart does not mend a
                database. ``"startup"`` alone holds readiness back until it has passed once.
            fall: Failed runs in a row before it counts as failed; it warns until then.
            rise: Good runs in a row before it counts as working again.
            grace: Seconds that it must have failed besides before it counts as failed.
            at_worst: The worst that it is told as, whatever it does; by default what the check says of itself.

        Raises:
            ConfigurationError: The name is taken or malformed, liveness was given a dependency, or a number is wrong.
        """
        part = Part(
            critical=critical,
            scope=scope,
            timeout=timeout,
            ttl=ttl,
            failed_ttl=failed_ttl,
            shared=shared,
            views=views,
            fall=fall,
            rise=rise,
            grace=grace,
            at_worst=at_worst,
        )
        self._registry.add(name, check, part)
        if self._rounds is not None:
            self._rounds.added()

    def check(self, name: str, **options: Unpack[Options]) -> Callable[[F], F]:
        """Add the decorated function as a check; the arguments are those of `add`.

        Examples:
            >>> health = Health()
            >>> @health.check("disk", critical=False)
            ... def disk():
            ...     return True
            >>> health.names
            ('disk',)
        """
        check_name(name)  # a function here is a decorator without its name, which would add nothing

        def add(function: F) -> F:
            self.add(name, function, **options)
            return function

        return add

    def group(
        self,
        name: str,
        include: Collection[str] | None = None,
        *,
        exclude: Collection[str] = (),
        shared: Shared | None = None,
        drains: bool = True,
    ) -> None:
        """Add a question of your own, for a balancer that serves only a part of the application.

        Args:
            name: What it is called; mounts answer it at ``/health/<name>``.
            include: The checks that have a say in it. Without it and ``exclude``: none but those that name the group
                in their ``views``.
            exclude: All checks but these, also those that are added later.
            shared: What a shared fault does here, instead of what was said for all or for the check.
            drains: Whether it answers 503 while the instance drains, as readiness does.

        Raises:
            ConfigurationError: The name is taken or malformed, or a check is unknown.

        Examples:
            >>> health = Health()
            >>> health.add("db", lambda: True)
            >>> health.add("mail", lambda: False)
            >>> health.group("reading", ["db"])
            >>> health.report("reading").word, health.ready().word
            ('pass', 'fail')
        """
        self._registry.group(name, include, exclude, shared=shared, drains=drains)

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
        """Answer a question, one of `views`, within the deadline. Raises ConfigurationError only, for no such view."""
        group = self._group(view)
        known = self._standing.known(group)
        if known is not None:
            return known
        course, until = self._begin(group)
        try:
            lane, run = next(course)
            while True:
                lane, run = course.send(lane.wait(run, until))
        except StopIteration as end:
            return self._answer(group, end.value)

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
        group = self._group(view)
        known = self._standing.known(group)
        if known is not None:
            return known
        course, until = self._begin(group)
        try:
            lane, run = next(course)
            while True:
                lane, run = course.send(await lane.await_(run, until))
        except StopIteration as end:
            return self._answer(group, end.value)

    def _group(self, view: View) -> Group:
        return self._registry.groups[one_of("view", view, self._registry.groups)]

    def _begin(self, group: Group) -> tuple[Course, float]:
        if self._rounds is not None:
            self._rounds.ensure()  # in a forked child it has to be started anew
        until = self.clock.monotonic() + self.deadline
        asked = self._registry.asked(group, starting=not self._standing.started)
        return inquire(group, asked, self._party, until, self.clock), until

    def _answer(self, group: Group, told: list[CheckReport]) -> Report:
        return self._standing.answer(group, told, self._registry.entries, self.clock.monotonic())

    def statuses(self, report: Report) -> dict[View, Status]:
        """The answers to all questions that follow from a report of the view ``all``, with no check run for them.

        Examples:
            >>> health = Health()
            >>> health.add("db", lambda: False, views=["ready"])
            >>> {view: status.value for view, status in health.statuses(health.report("all")).items()}
            {'live': 'pass', 'ready': 'fail', 'startup': 'pass'}
        """
        groups = [group for group in self._registry.groups.values() if group.name != "all"]
        asked = [(group, self._registry.asked(group, starting=not self._standing.started)) for group in groups]
        return self._standing.statuses(asked, report.checks, self.clock.monotonic())

    def history(self, name: str) -> History:
        """What the runs of a check add up to: what the page and the metrics show besides a report.

        Raises ConfigurationError for no such check.
        """
        return self._registry.entries[one_of("check", name, self.names)].lane.history

    def _lanes(self) -> dict[str, Lane]:
        return {name: entry.lane for name, entry in self._registry.entries.items()}

    def observe(self) -> None:
        """Have no say among the peers from now on: listen to them, and publish nothing.

        For a process that asks and does not serve, such as a worker or a job with the same registry: what it reaches
        from where it runs says nothing of what the instances reach. The commands ``resilient health module:attr`` and
        ``flask resilient health`` do this of themselves.

        Examples:
            >>> from resilient.health import MemoryBoard, Peers
            >>> health = Health(shared="peers", peers=Peers(MemoryBoard(), service="shop"))
            >>> health.add("db", lambda: True, scope="shared")
            >>> health.observe()
            >>> health.ready().word
            'pass'
        """
        if self._party is not None:
            self._party.observe()

    # -------------------------------------------------------------------------------------------------- background

    def background(self, every: float = 1.0) -> None:
        """Run the checks, and listen to the peers, every so many seconds on a thread, whether or not anybody asks.

        Reports then tell what is known and wait for nothing. Choose it for checks that are slow or that a page of
        people should have a history of, and with ``shared="peers"`` where balancers ask seldom. It ends with `close`.

        Args:
            every: Seconds between the end of one round and the start of the next.

        Raises:
            ConfigurationError: That is no time.
        """
        if self._rounds is not None:
            self._rounds.close()
        self._rounds = Rounds(self._registry, self._party, every, self.deadline, self.clock)
        self._rounds.ensure()

    # ------------------------------------------------------------------------------------------------------ ending

    @property
    def draining(self) -> bool:
        """Whether readiness was withdrawn."""
        return self._standing.draining

    def drain(self) -> None:
        """Answer 503 to readiness from now on, so that balancers send no more; liveness stays as it is.

        Call it when the process is told to end, and go on serving until the balancer has noticed.
        """
        self._standing.drain(events.emit)

    def drain_on_sigterm(self, delay: float = 5.0) -> Callable[[], None]:
        """Drain when the process is told to end, and let it be told only after a while.

        The first SIGTERM makes readiness 503 and nothing else. After the delay, or at a second SIGTERM, the handler
        that was there before does what it does. Call it in the main thread of the process that serves, after the server
        has set its own handlers: for gunicorn in ``post_worker_init``, for servers of asyncio (uvicorn, hypercorn) in
        the application's start-up, inside the running loop.

        Args:
            delay: Seconds to go on serving: the balancer's interval times its threshold of failures, and a little more.

        Returns:
            A function that puts the former handler back.

        Raises:
            ConfigurationError: It is not the main thread, that is no time, or an event loop handles the signal and
                does not say how (uvloop's ``add_signal_handler``).
        """
        # Told by the teller: a log that hangs must not keep the process from ending.
        return TermHook(partial(self._standing.drain, self._teller.tell), delay, self.clock).install()

    def close(self) -> None:
        """End the background's thread, take our words back from the peers, and close what the checks hold.

        A report after that opens the connections anew. What a check's own ``close`` raises is raised here, after all
        are closed.
        """
        with ExitStack() as closing:  # last come, first closed; one that cannot be closed does not keep others open
            for lane in reversed(self._lanes().values()):
                if lane.check.close is not None:
                    closing.callback(lane.check.close)
            if self._party is not None and self._peers is not None:
                closing.callback(self._peers.close)
                closing.callback(self._party.leave)
            if self._rounds is not None:
                closing.callback(self._rounds.close)
                self._rounds = None
