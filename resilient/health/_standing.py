"""How an instance stands besides its checks: coming up, serving, or on its way out; and what that makes of an answer.

No I/O, no threads, no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from resilient.events import Event
from resilient.health._core import Status, View, http_status, worst
from resilient.health._events import Draining
from resilient.health._registry import Entry, Group
from resilient.health._report import CheckReport, Report

__all__ = ["Standing"]


class Standing:
    """The stages of a process. Each is entered once and never left.

    Args:
        grace_ends: Until when a failure of liveness only warns (monotonic).
    """

    def __init__(self, grace_ends: float) -> None:
        self._grace_ends = grace_ends
        self.started = False
        """Whether the checks of the start have passed once."""
        self.draining = False
        """Whether readiness was withdrawn."""

    def drain(self, tell: Callable[[Event], object]) -> None:
        """Withdraw readiness, and tell so unless it was withdrawn before."""
        if not self.draining:
            self.draining = True
            tell(Draining())

    def known(self, group: Group) -> Report | None:
        """The answer where no check need be asked for it."""
        if group.drains and self.draining:
            return Report(group.name, Status.FAIL, draining=True)
        if group.name == "startup" and self.started:
            return Report(group.name, Status.PASS, draining=self.draining)
        return None

    def answer(self, group: Group, told: Sequence[CheckReport], entries: Mapping[str, Entry], now: float) -> Report:
        """The answer that follows from what the checks add to it.

        Args:
            group: The question.
            told: What each check adds.
            entries: All checks, by name.
            now: The moment (monotonic).
        """
        status = self._said(group, worst(each.effect for each in told), now)
        if group.name in {"startup", "ready"}:
            of_start = [each.effect for each in told if "startup" in entries[each.name].views]
            # Only ever set: of two reports that end together one may have begun before the start was over.
            if http_status(worst(of_start)) == 200:
                self.started = True
        return Report(group.name, status, {each.name: each for each in told}, draining=self.draining)

    def statuses(
        self, asked: Iterable[tuple[Group, Sequence[Entry]]], checks: Mapping[str, CheckReport], now: float
    ) -> dict[View, Status]:
        """The answers to some questions that follow from what is known of the checks.

        Args:
            asked: Each question, with the checks that have a say in it.
            checks: What is known of the checks, by name.
            now: The moment (monotonic).
        """
        said: dict[View, Status] = {}
        for group, entries in asked:
            known = self.known(group)
            found = (each.effect(group, checks[each.name]) for each in entries if each.name in checks)
            said[group.name] = known.status if known is not None else self._said(group, worst(found), now)
        return said

    def _said(self, group: Group, found: Status, now: float) -> Status:
        """What is answered, where the checks found that."""
        if group.drains and self.draining:  # perhaps it began while the checks ran
            return Status.FAIL
        if group.name == "live" and found > Status.WARN and now < self._grace_ends:
            return Status.WARN
        return found
