"""Which messages are in hand, and when each needs a sign of life. A plain state machine over given times."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from resilient.queue._limits import LONGEST_VISIBILITY
from resilient.queue._message import Message

__all__ = ["Held", "InHand", "State"]

_MARGIN = 1.0
"""Seconds kept clear of the twelve-hour limit, for the time a request takes."""


class State(enum.Enum):
    """Where a message in hand stands."""

    WAITING = "waiting"
    """It was received; no handler has started."""
    RUNNING = "running"
    """Its handler runs."""
    FINISHING = "finishing"
    """Its fate is decided; SQS has yet to be told."""


@dataclass(slots=True, eq=False)
class Held:
    """One message in hand.

    Args:
        message: The message.
        received: When it was received, on the monotonic clock.
        beat_at: When its next sign of life is due; ``None`` when none is to come.
        state: Where it stands.
        claim: Its claim on the ledger, while its handler runs.
    """

    message: Message
    received: float
    beat_at: float | None
    state: State = State.WAITING
    claim: Any = None


@dataclass(slots=True)
class InHand:
    """The messages a consumer has in hand.

    Args:
        visibility: Seconds for which each sign of life keeps a message from others.
    """

    visibility: int
    held: dict[str, Held] = field(default_factory=dict)

    @property
    def interval(self) -> float:
        """Seconds between two signs of life: two may fail before a message is lost."""
        return self.visibility / 3

    def add(self, message: Message, asked: float) -> Held:
        """Take a message in hand that was asked for at that time; SQS counts from a moment after it."""
        held = Held(message, asked, asked + self.interval)
        self.held[message.receipt] = held
        return held

    def start(self, held: Held) -> bool:
        """Begin with its handler. False if the message is not there to be handled any more."""
        if held.state is not State.WAITING or held.message.receipt not in self.held:
            return False
        held.state = State.RUNNING
        return True

    def finish(self, held: Held, *, beating: bool) -> bool:
        """Decide its fate, once. ``beating``: keep it from others until SQS was told, as before a delete."""
        if held.state is State.FINISHING:
            return False
        held.state = State.FINISHING
        if not beating:
            held.beat_at = None
        return True

    def remove(self, held: Held) -> None:
        """SQS was told, or could not be: it is out of hand."""
        held.beat_at = None
        self.held.pop(held.message.receipt, None)

    def due(self, now: float) -> list[Held]:
        """Those whose sign of life is due, the most urgent first."""
        found = [each for each in self.held.values() if each.beat_at is not None and each.beat_at <= now]
        return sorted(found, key=lambda each: each.beat_at or 0.0)

    def next_due(self) -> float | None:
        """When the next sign of life is due; ``None`` if none is."""
        return min((each.beat_at for each in list(self.held.values()) if each.beat_at is not None), default=None)

    def seconds(self, held: Held, now: float) -> int:
        """For how long its next sign of life can keep it: less than ``visibility`` near twelve hours, 0 at the end."""
        left = LONGEST_VISIBILITY - _MARGIN - (now - held.received)
        return max(0, min(self.visibility, int(left)))

    def beaten(self, held: Held, now: float) -> None:
        """A sign of life was given at that time."""
        if held.beat_at is not None:
            held.beat_at = now + self.interval

    def missed(self, held: Held, now: float) -> None:
        """A sign of life failed to reach SQS: try again soon."""
        if held.beat_at is not None:
            held.beat_at = now + self.interval / 4

    def lost(self, held: Held) -> None:
        """No sign of life helps any more."""
        held.beat_at = None

    def of(self, state: State) -> list[Held]:
        """Those in one state."""
        return [each for each in self.held.values() if each.state is state]

    def unfinished(self) -> int:
        """How many wait for their handler or run."""
        return sum(each.state is not State.FINISHING for each in self.held.values())
