"""What is known of each server, and which of them may answer a read. Plain values and state machines, no I/O.

The rule behind all of it: a copy is judged by what was *proven* about it. Before the primary is asked for its
position the clock is read; once a copy is seen to hold that position, it is proven to hold everything committed up to
that reading.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from resilient.causality import Instant, Position

__all__ = ["Copy", "Health", "History", "State", "choose", "judge_lag"]

State: TypeAlias = Literal["unknown", "up", "lagging", "down", "read_only"]

_BAD_TO_LEAVE = 3
_DEAD_TO_LEAVE = 2
_GOOD_TO_RETURN = 3


@dataclass(slots=True)
class Health:
    """The state of one server, with the hysteresis of its changes.

    A server leaves the rotation after three bad probes in a row, or two without an answer, and returns after
    ``returns_after`` good ones. A caller's own connection failure takes it out at once.

    Args:
        returns_after: Good probes in a row that bring it back.
    """

    returns_after: int = _GOOD_TO_RETURN
    state: State = "unknown"
    _good: int = 0
    _bad: int = 0

    def probed(self, target: State) -> None:
        """Take the outcome of one probe: the state the server would be in, judged by this probe alone."""
        if target == "up":
            self._good, self._bad = self._good + 1, 0
        else:
            self._good, self._bad = 0, self._bad + 1
        if self.state == "unknown":
            self.state = target
        elif self.state == "up":
            if self._bad >= (_DEAD_TO_LEAVE if target == "down" else _BAD_TO_LEAVE):
                self.state = target
        elif target != "up":
            self.state = target  # it is out either way; tell the newer reason
        elif self._good >= self.returns_after:
            self.state = "up"

    def failed(self, state: State = "down") -> None:
        """Take it out at once: a caller met a refused or broken connection, or a refusal to write."""
        self.state, self._good, self._bad = state, 0, 0


@dataclass(slots=True)
class History:
    """Positions of the primary, each with a moment by which everything committed is covered by it.

    Args:
        size: How many distinct positions are kept; a copy further behind than all of them proves nothing new.
    """

    size: int = 1024
    _entries: deque[tuple[float, Position]] = field(default_factory=deque)

    def record(self, at: float, position: Position) -> None:
        """Remember that the primary, asked after ``at``, was at that position."""
        if self._entries and self._entries[-1][1] == position:
            at = max(at, self._entries[-1][0])
            self._entries[-1] = (at, position)
            return
        self._entries.append((at, position))
        if len(self._entries) > self.size:
            self._entries.popleft()

    def proven(self, position: Position) -> float | None:
        """The latest moment up to which a copy at that position holds everything; ``None`` where nothing is proven."""
        for at, known in reversed(self._entries):
            if position.covers(known):
                return at
        return None


def judge_lag(proven: float | None, reference: float | None, max_lag: float) -> State:
    """What one answered probe says of a copy.

    Args:
        proven: The moment up to which it is proven to hold everything.
        reference: The moment it is compared with: now, or where the primary is silent the most advanced copy's.
        max_lag: The lag in seconds that is still good.
    """
    if proven is None or reference is None:
        return "lagging"
    return "up" if reference - proven <= max_lag else "lagging"


@dataclass(frozen=True, slots=True)
class Copy:
    """One replica at the moment of a choice.

    Args:
        index: Which one it is.
        state: Its state.
        proven: The moment up to which it is proven to hold everything.
        outstanding: How many of its connections are in use.
    """

    index: int
    state: State
    proven: float | None
    outstanding: int


def choose(copies: Iterable[Copy], *, pin: Position | None, oldest: float | None, turn: int) -> int | None:
    """Which replica answers a read.

    Args:
        copies: The replicas that may be asked.
        pin: The position the reader has seen; only a copy proven to hold it will do.
        oldest: The oldest proof that will do, as a moment; ``None`` where the primary is silent.
        turn: A number that grows with each choice, to take turns among equals.

    Returns:
        The index of the least busy one that will do; ``None`` where none will.

    Examples:
        >>> copies = [Copy(0, "up", 10.0, 2), Copy(1, "up", 9.0, 1)]
        >>> choose(copies, pin=None, oldest=5.0, turn=0), choose(copies, pin=Instant(9.5), oldest=5.0, turn=0)
        (1, 0)
    """
    fit = [each for each in copies if _fits(each, pin, oldest)]
    if not fit:
        return None
    least = min(each.outstanding for each in fit)
    equals = [each.index for each in fit if each.outstanding == least]
    return equals[turn % len(equals)]


def _fits(copy: Copy, pin: Position | None, oldest: float | None) -> bool:
    if copy.state != "up" or copy.proven is None:
        return False
    if oldest is not None and copy.proven < oldest:
        return False
    return pin is None or Instant(copy.proven).covers(pin)
