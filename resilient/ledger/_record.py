"""What the ledger decides, as plain functions over a plain record: no store, no clock, no threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

__all__ = [
    "Claim",
    "Done",
    "InProgress",
    "Mismatch",
    "New",
    "Outcome",
    "Record",
    "claim",
    "complete",
    "extend",
    "release",
]

ClaimT = TypeVar("ClaimT", bound="Claim")


@dataclass(frozen=True, slots=True)
class Record:
    """One piece of work, by its key.

    Args:
        owner: Who works on it, or did it.
        fence: Grows with each claim that is granted; a worker that lost its lease is told by its older number.
        until: The lease's end, in seconds of the store's clock; a lapsed one may be taken over.
        payload_hash: Of what the work was asked with, so that one key cannot mean two things.
        done: Whether the work is done.
        result: What it returned, encoded, once it is done.
    """

    owner: str
    fence: int
    until: float
    payload_hash: str
    done: bool = False
    result: bytes | None = None


@dataclass(slots=True)
class Claim:
    """The right to do one piece of work.

    Args:
        key: What the work is called.
        owner: Who does it.
        fence: Shown to the store with every later step; refused there once another has taken over.
        session: The database session whose transaction holds the record; ``None`` where the store has no transaction.
    """

    key: str
    owner: str
    fence: int
    session: Any = None


@dataclass(frozen=True, slots=True)
class New(Generic[ClaimT]):
    """The work is yours."""

    claim: ClaimT


@dataclass(frozen=True, slots=True)
class InProgress:
    """Another works on it.

    Args:
        retry_after: Seconds until its lease lapses; ``None`` where that cannot be told.
    """

    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """It was done before.

    Args:
        result: What it returned then, encoded.
    """

    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The same key was used before with another payload."""


Outcome: TypeAlias = New[Any] | InProgress | Done | Mismatch
"""What a claim ends in."""


def claim(
    record: Record | None, *, owner: str, lease: float, payload_hash: str, now: float
) -> tuple[Record | None, InProgress | Done | Mismatch | None]:
    """Ask for the work.

    Returns:
        The record to store, if the work is granted; else why it is not.

    Examples:
        >>> granted, _ = claim(None, owner="a", lease=30, payload_hash="", now=0)
        >>> granted.fence
        1
        >>> claim(granted, owner="b", lease=30, payload_hash="", now=10)[1]
        InProgress(retry_after=20)
    """
    if record is None:
        return Record(owner, 1, now + lease, payload_hash), None
    if record.payload_hash != payload_hash:
        return None, Mismatch()
    if record.done:
        return None, Done(record.result)
    if now < record.until:
        return None, InProgress(record.until - now)
    return Record(owner, record.fence + 1, now + lease, payload_hash), None


def _holds(record: Record | None, fence: int) -> bool:
    return record is not None and record.fence == fence and not record.done


def extend(record: Record | None, fence: int, *, lease: float, now: float) -> Record | None:
    """Keep the work for longer. Returns the record to store, or ``None`` if another has taken over."""
    return replace(record, until=now + lease) if record is not None and _holds(record, fence) else None


def complete(record: Record | None, fence: int, result: bytes | None) -> Record | None:
    """Say that the work is done. Returns the record to store, or ``None`` if another has taken over."""
    return replace(record, done=True, result=result) if record is not None and _holds(record, fence) else None


def release(record: Record | None, fence: int, *, now: float) -> Record | None:
    """Give the work back undone. Returns the record to store, or ``None`` if another has taken over.

    The record stays, so that the next claim gets a higher fence.
    """
    return replace(record, until=now) if record is not None and _holds(record, fence) else None
