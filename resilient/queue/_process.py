"""What is done with one message, from its body to its fate. It knows no queue: the same runs in a test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from resilient import causality
from resilient.clock import Clock
from resilient.errors import ConfigurationError, DeadlineExceeded, Unavailable
from resilient.ledger import Done, InProgress, MemoryStore, Mismatch, Outcome, Store
from resilient.queue._inject import Plan
from resilient.queue._message import Message, Redeliver, Reject, Release

__all__ = ["Ack", "Failed", "Fate", "GiveBack", "HeldOff", "Processor", "Rejected", "encode_result"]

_MAX_RESULT = 60_000  # bytes of a result that are kept with its record


@dataclass(frozen=True, slots=True)
class Ack:
    """It is done. ``repeated``: it had been done before, and this is what it returned then."""

    result: Any = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """It failed and is to come again, after so many seconds where the handler said so."""

    error: BaseException
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """It can never be done."""

    reason: str
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class HeldOff:
    """Another worker has it in hand, for so many seconds where that is known."""

    retry_after: float | None


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Another worker should do it, at once."""


Fate: TypeAlias = Ack | Failed | Rejected | HeldOff | GiveBack


class Processor:
    """Runs a handler for one message at a time, on any number of threads.

    Args:
        plan: How the handler is called.
        store: Keeps the record of work; ``None`` for at-least-once.
        session: Makes the handler's session where there is no store that does.
        name: What the records are kept under, so that two consumers of one message have a record each.
        key: Names the work of a message.
        lease: Seconds of each claim.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        store: Store | None,
        session: Callable[[], Any] | None,
        name: str,
        key: Callable[[Message], str] | None,
        lease: float,
        clock: Clock,
    ) -> None:
        if plan.session and session is None and (store is None or isinstance(store, MemoryStore)):
            raise ConfigurationError(
                "the handler asks for a session, and nothing makes one",
                advice="pass idempotency=SqlStore(Session), or session=Session",
            )
        self._plan = plan
        self._store = store
        self._session = session
        self._name = name
        self._key = key
        self._lease = lease
        self._clock = clock

    def run(
        self,
        message: Message,
        *,
        owner: str,
        keep: Callable[[Any], None] = lambda _: None,
        waits: Callable[[float], bool] = lambda _: False,
    ) -> Fate:
        """Handle one message.

        Args:
            message: The message.
            owner: Who does it.
            keep: Told of the claim while the handler runs, and of ``None`` at its end.
            waits: Called with a number of seconds when the store is not there: waits them and returns whether to try
                again.

        Returns:
            Its fate. Whatever the handler raises is in it.
        """
        try:
            payload = self._plan.read(message)
            with causality.scope(causality.Token.read(message.token)):
                if self._store is None:
                    return self._plain(payload, message)
                return self._recorded(payload, message, owner=owner, keep=keep, waits=waits)
        except Release:
            return GiveBack()
        except Redeliver as error:
            return Failed(error, error.after)
        except Reject as error:
            return Rejected(error.reason, error)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the message must come again
            return Failed(error)

    def extend(self, claim: Any) -> bool:
        """Extend the claim of work in hand. False if another has taken over."""
        return self._store is None or self._store.extend(claim, self._lease)

    def _plain(self, payload: Any, message: Message) -> Fate:
        if self._session is None:
            return Ack(self._plan.call(payload, message, None))
        with self._session() as session:
            result = self._plan.call(payload, message, session)
            session.commit()
        return Ack(result)

    def _recorded(
        self,
        payload: Any,
        message: Message,
        *,
        owner: str,
        keep: Callable[[Any], None],
        waits: Callable[[float], bool],
    ) -> Fate:
        store, outcome = self._claim(payload, message, owner=owner, waits=waits)
        if isinstance(outcome, Done):
            return Ack(None if outcome.result is None else msgspec.json.decode(outcome.result), repeated=True)
        if isinstance(outcome, InProgress):
            return HeldOff(outcome.retry_after)
        if isinstance(outcome, Mismatch):
            return Rejected("another message with another body has the same key")
        claim = outcome.claim
        keep(claim)
        try:
            result = self._call(payload, message, claim.session)
        except BaseException:
            keep(None)
            store.release(claim)
            raise
        keep(None)
        if not store.complete(claim, encode_result(result)):
            return HeldOff(None)  # another has taken over, and its result counts
        return Ack(result)

    def _call(self, payload: Any, message: Message, session: Any) -> Any:
        if session is None and self._plan.session and self._session is not None:
            with self._session() as own:
                result = self._plan.call(payload, message, own)
                own.commit()
                return result
        return self._plan.call(payload, message, session)

    def _claim(
        self, payload: Any, message: Message, *, owner: str, waits: Callable[[float], bool]
    ) -> tuple[Store, Outcome]:
        """Claim the work. While the store is away the message waits in hand: nothing is processed unrecorded."""
        store = self._store
        assert store is not None  # noqa: S101 - asked by the caller; tells the type checker
        key = f"{self._name}:{message.key if self._key is None else self._key(message)}"
        digest = hashlib.sha256(message.body.encode()).hexdigest()
        pause = 0.1
        while True:
            try:
                return store, store.claim(key, owner=owner, lease=self._lease, payload_hash=digest, about=payload)
            except (Unavailable, DeadlineExceeded):
                if not waits(pause):
                    raise
                pause = min(5.0, pause * 2)


def encode_result(result: Any) -> bytes | None:
    """The result as it is kept with its record; ``None`` where it cannot be: then only the fact is kept."""
    if result is None:
        return None
    try:
        encoded = msgspec.json.encode(result)
    except Exception:  # noqa: BLE001 - a list that holds itself, an attribute that raises: the work is done all the same
        return None
    return encoded if len(encoded) <= _MAX_RESULT else None
