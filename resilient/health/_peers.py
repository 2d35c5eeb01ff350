"""Whose fault it is: what instances tell each other of the dependencies they share, and what follows from it.

An instance that cannot reach a database does not know whether the database is down or its own path to it. Its peers
do. Each instance publishes what its last run found, with a limit of life; one that fails counts as failing alone only
after a peer's run has passed *between* two of its own failed runs: then the dependency was there while this instance
did not reach it. A pass from before the first failure, or after the last, proves nothing; so an outage that begins or
ends takes nobody out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from resilient.arguments import check_name, is_number
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.runtime import fork_safe_lock

__all__ = ["Case", "MemoryBoard", "PeerBoard", "Peers", "Word", "judge", "pack", "unpack"]


# ------------------------------------------------------------------------------------------------------ the pure core


@dataclass(frozen=True, slots=True)
class Word:
    """What one instance says of one check.

    Args:
        good: Whether its last run passed.
        began: When that run began, on the clock of whoever listens (monotonic).
    """

    good: bool
    began: float


@dataclass(frozen=True, slots=True)
class Case:
    """What has been shown of a check that fails here.

    Args:
        since: Only what began after this moment proves anything.
        witness: When the first run of a peer began that passed after it; ``None`` where there was none.
        local: Whether the fault is this instance's own.
    """

    since: float
    witness: float | None = None
    local: bool = False


def judge(case: Case | None, words: Iterable[Word], *, first_bad: float, last_bad: float) -> Case:
    """What is known of a fault after listening once more.

    Args:
        case: What was known of it before; ``None`` for a new one.
        words: The last word of each peer that has one.
        first_bad: When the first failed run in a row began here.
        last_bad: When the last one began.

    Examples:
        >>> case = judge(None, [Word(True, began=9.0)], first_bad=10.0, last_bad=10.0)     # from before: proves nothing
        >>> case = judge(case, [Word(True, began=10.4)], first_bad=10.0, last_bad=10.0)    # or all is well again
        >>> case.local, judge(case, [Word(True, began=10.9)], first_bad=10.0, last_bad=10.5).local
        (False, True)
    """
    passes = [word.began for word in words if word.good]
    if case is None:
        case = Case(since=first_bad)
    if not passes:  # it fails everywhere, or nobody says anything: what comes later has to be shown anew
        return Case(since=max(case.since, last_bad))
    witness = case.witness
    if witness is None:
        witness = min((began for began in passes if began > case.since), default=None)
    return replace(case, witness=witness, local=case.local or (witness is not None and witness <= last_bad))


def pack(words: Mapping[str, Word], now: float) -> bytes:
    """Words as they are published: whether each is good, and the age of its run in seconds."""
    return json.dumps(
        {name: [word.good, round(max(0.0, now - word.began), 4)] for name, word in words.items()},
        separators=(",", ":"),
    ).encode()


def unpack(raw: bytes, heard: float, names: Iterable[str]) -> dict[str, Word]:
    """The words that a peer published; what cannot be understood is left out.

    Args:
        raw: What it published.
        heard: The moment it was published, on our clock.
        names: The checks that are of interest.
    """
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    words: dict[str, Word] = {}
    for name in names:
        each: Any = told.get(name) if isinstance(told, dict) else None
        match each:
            case [bool() as good, int() | float() as age] if 0 <= age <= sys.float_info.max:
                words[name] = Word(good, heard - age)
            case _:
                continue
    return words


# ----------------------------------------------------------------------------------------------------------- the board


class PeerBoard(Protocol):
    """Where instances leave their words. `MemoryBoard` keeps them in this process, a Redis between machines."""

    def exchange(self, service: str, instance: str, words: bytes, ttl: float) -> Mapping[str, tuple[bytes, float]]:
        """Leave the words of one instance, and return those of the others that still live, with their age.

        The age is that of the saying: words that were held up on their way are as old as that, and not new when they
        arrive.

        Args:
            service: Which instances belong together.
            instance: Whose words they are.
            words: The words.
            ttl: Seconds after which they are forgotten.
        """
        ...

    def leave(self, service: str, instance: str) -> None:
        """Forget the words of one instance."""
        ...


class MemoryBoard:
    """A board in this process, for tests.

    Args:
        clock: Where the age of words is measured.

    Examples:
        >>> board = MemoryBoard()
        >>> _ = board.exchange("shop", "a", b"{}", ttl=15)
        >>> list(board.exchange("shop", "b", b"{}", ttl=15))
        ['a']
    """

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._lock = fork_safe_lock()
        self._words: dict[tuple[str, str], tuple[bytes, float, float]] = {}

    def exchange(self, service: str, instance: str, words: bytes, ttl: float) -> Mapping[str, tuple[bytes, float]]:
        """See `PeerBoard`."""
        now = self._clock.monotonic()
        with self._lock:
            self._words[service, instance] = (words, now, now + ttl)
            self._words = {key: each for key, each in self._words.items() if each[2] > now}
            return {
                name: (raw, now - at)
                for (where, name), (raw, at, _) in self._words.items()
                if where == service and name != instance
            }

    def leave(self, service: str, instance: str) -> None:
        """See `PeerBoard`."""
        with self._lock:
            self._words.pop((service, instance), None)


_TTL: Final = 15.0


class Peers:
    """The other instances of this service, which tell each other what they reach, through Redis.

    Give it to a `Health` with ``shared="peers"``. It needs no thread: words are exchanged as part of a report, in one
    round trip that is bounded, shared by concurrent probes, and waited for only while something fails here. Without
    Redis nobody hears anything, and a failure of something shared only warns.

    Args:
        target: The address of a Redis, or a client of redis-py, or another `PeerBoard`.
        service: What the instances that belong together are called; other services of the same Redis use other names.
        ttl: Seconds for which a word is good. At least twice the interval at which an instance is asked.
        timeout: Seconds for one exchange.
        every: Seconds for which what was heard is not asked for again, unless something has changed here.

    Raises:
        ConfigurationError: The target is none of those, the name is malformed, or a number is wrong.

    Examples:
        >>> from resilient.health import Health, MemoryBoard, Peers
        >>> health = Health(shared="peers", peers=Peers(MemoryBoard(), service="shop"))
        >>> health.add("db", lambda: False, scope="shared")
        >>> health.ready().word                       # nobody else has a word to say
        'warn'
    """

    def __init__(
        self, target: Any, *, service: str, ttl: float = _TTL, timeout: float = 0.2, every: float = 0.25
    ) -> None:
        self.service = check_name("a service", service)
        for name, seconds in (("ttl", ttl), ("timeout", timeout), ("every", every)):
            if not is_number(seconds) or not 0 < seconds < float("inf"):
                raise ConfigurationError(f"{name}={seconds!r} is no time", advice="use seconds > 0")
        self.ttl, self.timeout, self.every = float(ttl), float(timeout), float(every)
        self.board: PeerBoard
        if callable(getattr(target, "exchange", None)):
            self.board = target
        else:
            from resilient.health._board import RedisBoard

            self.board = RedisBoard(target, timeout=self.timeout)

    def close(self) -> None:
        """Close the connections that were made here."""
        close = getattr(self.board, "close", None)
        if close is not None:
            close()
