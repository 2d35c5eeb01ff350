"""Which values read from a server may be kept in this process, and until when what is kept may be served.

Two rules make what is kept as good as what the server holds, one push later.

*The lease.* What is kept is served only while the channel that tells of changes is known to live: for one second after
the moment at which the last question was sent that it has answered. The answer comes behind all that changed before
that moment. A push alone says nothing of how late it is.

*The tickets.* Whoever asks the server notes before it how many changes were told so far. What comes back is kept only
if no change of that key was told since. Only the last few thousand changed keys are remembered: a reader that was
slower than that keeps nothing.

The pure part: no clock, no I/O, no lock; whoever uses it holds one.
"""

from __future__ import annotations

import math
from collections import OrderedDict

__all__ = ["LEASE", "NO_TICKET", "Coherence"]

LEASE = 1.0
"""Seconds for which the channel is trusted after a question that it has answered was sent."""
NO_TICKET = -1
"""What is read now cannot be kept."""
_REMEMBERED = 4096


class Coherence:
    """The lease and the tickets of one channel.

    Args:
        remembered: How many changed keys are remembered at most.

    Examples:
        >>> coherence = Coherence()
        >>> coherence.heard(coherence.begun(), since=10.0)
        >>> ticket = coherence.ticket(now=10.5)
        >>> coherence.changed("a")
        >>> coherence.keeps("a", ticket), coherence.keeps("b", ticket)
        (False, True)
        >>> coherence.ticket(now=11.0) == NO_TICKET     # nothing was heard for a second
        True
    """

    __slots__ = ("_floor", "_most", "_recent", "_session", "_turn", "until")

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self.until = -math.inf
        """The clock's seconds from which on nothing is served."""
        self._most = remembered
        self._session = 0
        self._turn = 0
        self._floor = 0  # tickets below it are worth nothing
        self._recent: OrderedDict[str, int] = OrderedDict()

    # -------------------------------------------------------------------------------------------------------- the lease

    def begun(self) -> int:
        """A channel tells of every change from now on: its number. What was kept until now must be forgotten."""
        self._session += 1
        self.flushed()
        self.until = -math.inf
        return self._session

    def always(self) -> None:
        """Changes are told at once and cannot be missed: the server is this process."""
        self._session += 1
        self.until = math.inf

    def heard(self, session: int, since: float) -> None:
        """The channel has told of all that changed before this moment of the clock."""
        if session == self._session:
            self.until = max(self.until, since + LEASE)

    def cut(self, session: int) -> bool:
        """A channel tells of nothing any more. Whether what is kept must be forgotten."""
        if session != self._session:
            return False  # another one tells already
        self._session += 1
        self.until = -math.inf
        self.flushed()
        return True

    def current(self, session: int) -> bool:
        """Whether what this channel tells counts."""
        return session == self._session

    # ------------------------------------------------------------------------------------------------------ the tickets

    def ticket(self, now: float) -> int:
        """Taken before the server is asked."""
        return self._turn if now < self.until else NO_TICKET

    def changed(self, key: str) -> None:
        """A key has changed, or may have."""
        self._turn += 1
        self._recent[key] = self._turn
        self._recent.move_to_end(key)
        if len(self._recent) > self._most:
            _, self._floor = self._recent.popitem(last=False)

    def flushed(self) -> None:
        """All keys may have changed."""
        self._turn += 1
        self._floor = self._turn
        self._recent.clear()

    def keeps(self, key: str, ticket: int) -> bool:
        """Whether what was read of a key with this ticket may be kept."""
        return ticket >= self._floor and self._recent.get(key, 0) <= ticket
