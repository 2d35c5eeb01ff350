"""Weighted choice: a share of the keys goes a new way, always the same ones, until that way fails too often."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from resilient import events
from resilient.clock import SYSTEM, Clock
from resilient.errors import CircuitOpen, ConfigurationError, Conflict, InvalidInput, NotFound, Refused
from resilient.policy._breaker import BreakerCore, Counts, Generation
from resilient.policy._checks import MOST, positive
from resilient.policy.events import ArmChanged
from resilient.policy.policies import Breaker
from resilient.runtime import after_fork

__all__ = ["Turn", "WeightedChoice"]

Key = str | int | bytes

_ANSWERS = (InvalidInput, NotFound, Refused, Conflict)


def _tell(choice: str, arm: str, old: str, new: str, reason: str) -> None:
    """Tell of an arm that was withdrawn or restored."""
    if "closed" in {old, new}:
        events.emit(ArmChanged(choice=choice, arm=arm, withdrawn=new != "closed", reason=reason))


class Turn:
    """One call that was given an arm; a ``with`` block that says how it went.

    Attributes:
        arm: The name of the arm, which the block is given too.
    """

    __slots__ = ("_choice", "_core", "_generation", "arm")

    def __init__(self, choice: WeightedChoice, arm: str, core: BreakerCore, generation: Generation) -> None:
        self.arm = arm
        self._choice = choice
        self._core = core
        self._generation = generation

    def __enter__(self) -> str:
        return self.arm

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, self._choice.expected):
            self._generation.ok()
        elif isinstance(error, Exception):  # an interrupt, or a caller that was cancelled, counts nothing
            self._core.failed(self._generation, self._choice.clock.monotonic())


class WeightedChoice:
    """Give each key one of several arms by their weights, as for a canary release, and take back an arm that fails.

    A key keeps its arm: in all processes, after a restart, and when weights change, but for the keys that a change has
    to move. An arm that fails too often is withdrawn: its keys go to the first arm, until somebody restores it. That is
    up to people: an arm that came back by itself would fail its users again and again.

    Args:
        name: What is chosen. Other names give the keys other arms.
        weights: The weight of each arm; a weight of zero gives an arm no keys. The first arm is the one to go back to,
            and is never withdrawn.
        rate: The part of an arm's calls that must fail for it to be withdrawn, above 0 up to 1.
        min_calls: How many calls of the arm there must be in the window before its rate means anything.
        window: Seconds that are looked back.
        expected: Errors that are answers (no such order) and no failures of the arm.
        clock: Where time is read.

    Raises:
        ConfigurationError: A weight or a number makes no sense; the message says what to write instead.

    Examples:
        >>> checkout = WeightedChoice("checkout", {"old": 100, "new": 10})
        >>> with checkout.turn("alice") as arm:
        ...     arm
        'old'
        >>> checkout.choose("alice"), checkout.choose("user 13")
        ('old', 'new')
    """

    def __init__(
        self,
        name: str,
        weights: Mapping[str, float],
        *,
        rate: float = 0.05,
        min_calls: int = 50,
        window: float = 300.0,
        expected: tuple[type[Exception], ...] = _ANSWERS,
        clock: Clock = SYSTEM,
    ) -> None:
        self.name = name
        self.weights = _checked(name, weights)
        if not isinstance(clock, Clock):
            raise ConfigurationError(f"{clock!r} is no clock", advice="leave clock out, or give a FakeClock()")
        self.expected = _kinds(expected)
        self.clock = clock
        # A breaker that is open probes when it is asked, after its wait. These are asked while they are closed alone.
        policy = Breaker(rate=rate, min_calls=min_calls, window=window)
        self._first = next(iter(self.weights))
        self._cores = {arm: BreakerCore(policy, functools.partial(_tell, name, arm)) for arm in self.weights}
        self._cores[self._first] = BreakerCore(dataclasses.replace(policy, metrics_only=True))
        self._hashes = {
            arm: (weight, hashlib.blake2b(f"{name}\0{arm}\0".encode(), digest_size=8))
            for arm, weight in self.weights.items()
            if weight
        }
        after_fork(self._forked)

    def __repr__(self) -> str:
        away = f", withdrawn: {', '.join(sorted(self.withdrawn))}" if self.withdrawn else ""
        return f"<weighted choice {self.name}: {', '.join(f'{a} {w:g}' for a, w in self.weights.items())}{away}>"

    def choose(self, key: Key) -> str:
        """The arm of a key, for calls whose outcome is not told.

        Args:
            key: Whom it is for, such as a user's id; numbers and their text are one key.

        Raises:
            InvalidInput: The key is of another type.
        """
        arm = self._assigned(key)
        return arm if self._cores[arm].state == "closed" else self._first

    def turn(self, key: Key) -> Turn:
        """The arm of a key as a ``with`` block, which counts for the arm how it ends.

        Args:
            key: As for `choose`.

        Raises:
            InvalidInput: The key is of another type.
        """
        now = self.clock.monotonic()  # first, so that a breaker which opens meanwhile does not take it for a later time
        arm = self.choose(key)
        try:
            return self._begin(arm, now)
        except CircuitOpen:  # it was withdrawn just now
            return self._begin(self._first, now)

    def _begin(self, arm: str, now: float) -> Turn:
        core = self._cores[arm]
        return Turn(self, arm, core, core.enter(now))

    def _assigned(self, key: Key) -> str:
        """Weighted rendezvous hashing: each arm draws for the key, and the highest score has it.

        An arm's score depends on its own weight alone, so that more weight only draws keys to it, and from all others.
        """
        text = _text(key)
        best, found = -math.inf, self._first
        for arm, (weight, begun) in self._hashes.items():
            draw = begun.copy()
            draw.update(text)
            number = int.from_bytes(draw.digest()) >> 12  # as many bits as stay below 1 with a half added
            score = -weight / math.log((number + 0.5) / 2.0**52)
            if score > best:
                best, found = score, arm
        return found

    @property
    def withdrawn(self) -> frozenset[str]:
        """The arms that get no calls, because they failed or by hand."""
        return frozenset(arm for arm, core in self._cores.items() if core.state != "closed")

    def withdraw(self, arm: str) -> None:
        """Send the keys of an arm to the first one, until `restore`.

        Raises:
            InvalidInput: There is no such arm, or it is the first, to which the others go back.
        """
        if arm == self._first:
            raise InvalidInput(
                f"{self.name}: {arm!r} is the arm to go back to", advice="give it the weight 0 to send it no keys"
            )
        self._core(arm).isolate()

    def restore(self, arm: str) -> None:
        """Give an arm its keys again, and forget how it failed.

        Raises:
            InvalidInput: There is no such arm.
        """
        self._core(arm).close()

    def counts(self) -> dict[str, Counts]:
        """Calls and failures of each arm in the window; zeros for one that is withdrawn."""
        now = self.clock.monotonic()
        return {arm: core.counts(now) for arm, core in self._cores.items()}

    def _core(self, arm: str) -> BreakerCore:
        if arm not in self._cores:
            raise InvalidInput(f"{self.name} has no arm {arm!r}", advice=f"it has {', '.join(self._cores)}")
        return self._cores[arm]

    def _forked(self) -> None:
        for core in self._cores.values():
            core.forked()


def _text(key: Any) -> bytes:
    if isinstance(key, bytes):
        return key
    if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
        return str(key).encode(errors="surrogatepass")
    raise InvalidInput(
        f"a key is text, a whole number or bytes, not {type(key).__name__}",
        advice="choose by what stays the same for one user: an id, or a cookie where nobody is logged in",
    )


def _checked(name: Any, weights: Any) -> dict[str, float]:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"a choice's first argument is its name, got {name!r}")
    if not isinstance(weights, Mapping) or len(weights) < 2 or not all(isinstance(arm, str) for arm in weights):
        raise ConfigurationError(
            f"{name} takes two or more arms with their weights, got {weights!r}",
            advice='write WeightedChoice("checkout", {"old": 100, "new": 10})',
        )
    found = {
        arm: positive("WeightedChoice", f"weights[{arm!r}]", w, zero=True, most=MOST) for arm, w in weights.items()
    }
    if not any(found.values()):
        raise ConfigurationError(f"{name}: all weights are zero", advice="give one arm a weight")
    return found


def _kinds(expected: Any) -> tuple[type[Exception], ...]:
    kinds = expected if isinstance(expected, tuple) else (expected,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ConfigurationError(
                f"WeightedChoice(expected=...) takes classes of errors, got {kind!r}",
                advice="write expected=(NotFound,)",
            )
    return kinds
