"""One instance among its peers: publishes what it found, listens, and says whose fault a failure is."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from typing import Final

from resilient.clock import Clock
from resilient.errors import ConfigurationError
from resilient.health._core import Check, Fault, Status
from resilient.health._events import FaultHere, FaultOver
from resilient.health._history import Terms
from resilient.health._lane import Lane
from resilient.health._peers import Case, Peers, Word, judge, pack, unpack
from resilient.health._streak import Streak
from resilient.health._teller import Teller
from resilient.runtime import after_fork, fork_safe_lock

__all__ = ["Party"]

_PAUSE: Final = 2.0  # seconds for which a board that failed is not asked again


class Party:
    """An instance among its peers.

    Args:
        peers: How they are reached.
        lanes: Returns the lanes that peers judge, by name.
        clock: Where the time comes from.
        teller: Tells whose fault a failure is.
    """

    def __init__(self, peers: Peers, lanes: Callable[[], Mapping[str, Lane]], clock: Clock, teller: Teller) -> None:
        given: object = peers
        if not isinstance(given, Peers):
            raise ConfigurationError(
                f"peers= is a {type(given).__name__}, not Peers", advice="write peers=Peers(url, service=...)"
            )
        self._peers = peers
        self._lanes = lanes
        self._clock = clock
        self._teller = teller
        self._lock = fork_safe_lock()
        self._silent = False
        self._reset()
        after_fork(self._reset)
        check = Check(
            self._exchange, "component", "shared", dependency=True, classify=getattr(peers.board, "classify", None)
        )
        terms = Terms(timeout=peers.timeout, ttl=peers.every, failed_ttl=max(_PAUSE, peers.every))
        self.lane = Lane("peers", check, terms, clock, teller)

    def _reset(self) -> None:
        """Be an instance of its own: a forked child is not its parent."""
        self.instance = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._cases: dict[str, Case] = {}
        self._said: Mapping[str, bool] = {}
        self._heard: dict[str, tuple[float, dict[str, Word]]] = {}  # by instance: when it lapses, its words

    @property
    def names(self) -> frozenset[str]:
        """The checks that peers judge."""
        return frozenset(self._lanes())

    # ---------------------------------------------------------------------------------------------------- exchanging

    @property
    def changed(self) -> bool:
        """Whether there is something to say that nobody has tried to say yet."""
        return self.lane.streak.bad == 0 and self._said != {name: word.good for name, word in self._own().items()}

    def observe(self) -> None:
        """Listen and say nothing from now on, and take back what was said."""
        self._silent = True
        if self._said:
            self.leave()

    def _own(self) -> dict[str, Word]:
        """What there is to say. An observer has nothing: it may stand where the paths are others."""
        if self._silent:
            return {}
        streaks = ((name, lane.streak) for name, lane in self._lanes().items())
        return {name: Word(streak.bad == 0, streak.began) for name, streak in streaks if streak.told is not None}

    def _exchange(self) -> None:
        """Publish and listen; where a peer has just begun to fail, look again, and say what was seen."""
        doubted = self._once()
        if doubted:
            runs = [(lane, lane.begin(anew=True)) for lane in doubted]
            until = self._clock.monotonic() + max(lane.timeout for lane in doubted)
            for lane, begun in runs:
                lane.wait(begun, until)
            self._once()

    def _once(self) -> list[Lane]:
        own, asked = self._own(), self._clock.monotonic()
        self._said = {name: word.good for name, word in own.items()}
        told = self._peers.board.exchange(self._peers.service, self.instance, pack(own, asked), self._peers.ttl)
        lanes = self._lanes()
        heard = {
            instance: (asked - age + self._peers.ttl, unpack(raw, asked - age, lanes))
            for instance, (raw, age) in told.items()
        }
        if self._silent and own:  # it was on its way when this became an observer
            self.leave()
        with self._lock:
            before, self._heard = self._heard, heard
        return [
            lanes[name]
            for name, word in own.items()
            if word.good
            and any(
                _news(before.get(each, _NOTHING)[1].get(name), words.get(name), word)
                for each, (_, words) in heard.items()
            )
        ]

    def leave(self) -> None:
        """Take back what was said."""
        with contextlib.suppress(Exception):  # it lapses by itself
            self._peers.board.leave(self._peers.service, self.instance)

    # ------------------------------------------------------------------------------------------------------- judging

    def fault(self, name: str, streak: Streak) -> tuple[Fault | None, bool]:
        """Whose fault a failure is, and whether one more run here would tell."""
        if streak.told is None or streak.told <= Status.WARN:
            with self._lock:
                case = self._cases.pop(name, None)
            self._announce(name, case, None)
            return None, False
        now = self._clock.monotonic()
        with self._lock:
            words = [words[name] for lapses, words in self._heard.values() if lapses > now and name in words]
            before = self._cases.get(name)
            case = judge(before, words, first_bad=streak.first_bad, last_bad=streak.last_bad)
            self._cases[name] = case
        self._announce(name, before, case)
        everywhere = bool(words) and not any(word.good for word in words)
        fault: Fault | None = "local" if case.local else "shared" if everywhere else None
        return fault, case.witness is not None and not case.local

    def _announce(self, name: str, before: Case | None, case: Case | None) -> None:
        was, local = before is not None and before.local, case is not None and case.local
        if local and not was:
            self._teller.tell(FaultHere(check=name))
        elif was and not local:
            self._teller.tell(FaultOver(check=name))


_NOTHING: Final[tuple[float, dict[str, Word]]] = (0.0, {})


def _news(before: Word | None, now: Word | None, own: Word) -> bool:
    """Whether a peer has begun to fail after our own last run began."""
    return now is not None and not now.good and (before is None or before.good) and now.began > own.began
