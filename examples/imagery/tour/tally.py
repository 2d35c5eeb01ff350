"""What users saw, counted phase by phase."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Phase", "Tally"]


@dataclass
class Phase:
    """What users saw during one phase.

    Args:
        name: What it is called in the table.
        requests: How often a user wanted something, however many attempts it took.
        errors: What users were refused or denied in the end, by kind.
        retried: Answers with 5xx, and answers that never came, after which the user asked again.
        slowest: Seconds of the slowest request, all its attempts included.
        images: Where single images came from.
        lists: Where lists came from.
        recovered: What recovered, and in how long.
    """

    name: str
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    slowest: float = 0.0
    images: Counter[str] = field(default_factory=Counter)
    lists: Counter[str] = field(default_factory=Counter)
    recovered: str = ""


class Tally:
    """Counts for many users at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.phases: list[Phase] = []
        self.stale: list[str] = []
        """Reads that were older than the reader's own write."""
        self.checked = 0
        """Reads that were compared with the reader's own writes."""
        self.broken: list[str] = []
        """Answers with a 5xx that does not say "try again"."""
        self.late: list[str] = []
        """What had not recovered in time after it was mended."""
        self.wrong: list[str] = []
        """Pictures that were not the sepia of what was uploaded, and answers that nobody should get."""

    @property
    def now(self) -> Phase:
        """The phase that goes on."""
        return self.phases[-1]

    def begin(self, name: str) -> Phase:
        """Begin the next phase."""
        with self._lock:
            self.phases.append(Phase(name))
            return self.phases[-1]

    def answered(self, kind: str, seconds: float, source: str) -> None:
        """A user got an answer."""
        with self._lock:
            phase = self.now
            phase.requests += 1
            phase.slowest = max(phase.slowest, seconds)
            if kind == "image":
                phase.images[source] += 1
            elif kind == "list":
                phase.lists[source] += 1

    def failed(self, error: str, seconds: float) -> None:
        """A user gave up."""
        with self._lock:
            phase = self.now
            phase.requests += 1
            phase.slowest = max(phase.slowest, seconds)
            phase.errors[error] += 1

    def retry(self) -> None:
        """A user is about to ask again."""
        with self._lock:
            self.now.retried += 1

    def compare(self, *, good: bool, what: str) -> None:
        """A user compared an answer with what was written before."""
        with self._lock:
            self.checked += 1
            if not good:
                self.stale.append(f"{self.now.name}: {what}")

    def note(self, where: list[str], what: str) -> None:
        """Write down something that must not happen."""
        with self._lock:
            where.append(f"{self.now.name}: {what}")
