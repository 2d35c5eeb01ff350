"""The protocol of a store, and the one in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from resilient.clock import SYSTEM, Clock
from resilient.errors import Overloaded
from resilient.ledger import _record as core
from resilient.ledger._record import Claim, New, Outcome
from resilient.runtime import fork_safe_lock

__all__ = ["MemoryStore", "Store"]


class Store(Protocol):
    """Keeps the record of work done.

    Work is claimed by its key, extended while it lasts, and completed or released. A store says what it guarantees in
    ``guarantee``.
    """

    guarantee: str

    def claim(self, key: str, *, owner: str, lease: float, payload_hash: str = "", about: Any = None) -> Outcome:
        """Ask for the work.

        Args:
            key: What the work is called.
            owner: Who asks.
            lease: Seconds after which another may take over, unless extended.
            payload_hash: Of what the work is asked with.
            about: The decoded payload, for stores that choose a database by it.
        """
        ...

    def extend(self, claim: Any, lease: float) -> bool:
        """Keep the work for that many seconds from now. False if another has taken over."""
        ...

    def complete(self, claim: Any, result: bytes | None = None) -> bool:
        """Say that the work is done. False if another has taken over: then nothing was recorded."""
        ...

    def release(self, claim: Any) -> None:
        """Give the work back undone; where there is a transaction, roll it back."""
        ...


class MemoryStore:
    """Keeps the records in this process, for tests and for work whose repetition after a restart does no harm.

    Args:
        clock: Where the time comes from.
        capacity: How many records to keep. The oldest that are done are dropped for new ones.

    Examples:
        >>> store = MemoryStore()
        >>> granted = store.claim("order-1", owner="me", lease=30)
        >>> store.claim("order-1", owner="you", lease=30).retry_after > 29
        True
        >>> store.complete(granted.claim, b'"ok"')
        True
        >>> store.claim("order-1", owner="you", lease=30)
        Done(result=b'"ok"')
    """

    guarantee = "at most one worker at a time in this process; records end with the process"

    def __init__(self, *, clock: Clock = SYSTEM, capacity: int = 100_000) -> None:
        self._clock = clock
        self._capacity = capacity
        self._records: dict[str, core.Record] = {}
        self._lock = fork_safe_lock()

    def claim(self, key: str, *, owner: str, lease: float, payload_hash: str = "", about: Any = None) -> Outcome:  # noqa: ARG002 - there is one database here
        """Ask for the work. Raises Overloaded when every record kept is of work in progress."""
        with self._lock:
            known = self._records.get(key)
            granted, refusal = core.claim(
                known, owner=owner, lease=lease, payload_hash=payload_hash, now=self._clock.monotonic()
            )
            if granted is None:
                return refusal or core.InProgress()
            if known is None and len(self._records) >= self._capacity:
                self._make_room()
            self._records[key] = granted
            return New(Claim(key, owner, granted.fence))

    def _make_room(self) -> None:
        oldest = next((key for key, record in self._records.items() if record.done), None)
        if oldest is None:
            raise Overloaded("the ledger in memory is full of work in progress")
        del self._records[oldest]

    def extend(self, claim: Claim, lease: float) -> bool:
        """Keep the work for longer."""
        now = self._clock.monotonic()
        return self._change(claim, lambda record: core.extend(record, claim.fence, lease=lease, now=now))

    def complete(self, claim: Claim, result: bytes | None = None) -> bool:
        """Say that the work is done."""
        return self._change(claim, lambda record: core.complete(record, claim.fence, result))

    def release(self, claim: Claim) -> None:
        """Give the work back undone."""
        now = self._clock.monotonic()
        self._change(claim, lambda record: core.release(record, claim.fence, now=now))

    def _change(self, claim: Claim, step: Callable[[core.Record | None], core.Record | None]) -> bool:
        with self._lock:
            changed = step(self._records.get(claim.key))
            if changed is not None:
                self._records[claim.key] = changed
            return changed is not None

    def __len__(self) -> int:
        return len(self._records)
