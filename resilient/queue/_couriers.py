"""The two threads that talk to SQS for a consumer: one keeps or returns messages, the other deletes what is done.

All changes of visibility go through one thread, so that a sign of life can never overtake the return of the same
message. Deletes go through the other, so that a slow one delays no sign of life.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from resilient import events
from resilient.clock import Clock
from resilient.errors import ResilientError
from resilient.queue._events import AcknowledgeFailed, HeartbeatLost
from resilient.queue._inhand import Held, InHand
from resilient.queue._limits import BATCH, batches
from resilient.queue._message import Message
from resilient.runtime import start_thread

__all__ = ["Acknowledger", "Keeper", "Transport"]

_TRIES = 3
_PAUSE = 0.2


class Transport(Protocol):
    """The calls of a queue that are made here."""

    name: str

    def delete_many(self, receipts: Sequence[str]) -> list[str]:
        """Delete by receipt; a code for each."""
        ...

    def change_visibility_many(self, changes: Sequence[tuple[str, int]]) -> list[str]:
        """Change visibility by receipt; a code for each."""
        ...


class Acknowledger:
    """Deletes messages that are done, ten in a call.

    Args:
        transport: The queue.
        done: Called with each message when SQS was told, or could not be.
        linger: Seconds to wait for more messages before a call with fewer than ten.
        clock: Where the time comes from.
    """

    def __init__(self, transport: Transport, done: Callable[[Held], None], *, linger: float, clock: Clock) -> None:
        self._transport = transport
        self._done = done
        self._linger = linger
        self._clock = clock
        self._waiting: queue.SimpleQueue[Held | None] = queue.SimpleQueue()
        self._thread = start_thread(self._run, name=f"acknowledge-{transport.name}")

    def put(self, held: Held) -> None:
        """Delete this message."""
        self._waiting.put(held)

    def close(self, timeout: float) -> None:
        """Delete what was put, then end."""
        self._waiting.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        more = True
        while more:
            batch, more = self._collect()
            if batch:
                self._delete(batch)

    def _collect(self) -> tuple[list[Held], bool]:
        first = self._waiting.get()
        if first is None:
            return [], False
        batch, until = [first], self._clock.monotonic() + self._linger
        while len(batch) < BATCH:
            try:
                left = until - self._clock.monotonic()
                held = self._waiting.get(timeout=left) if left > 0 else self._waiting.get_nowait()
            except queue.Empty:
                break
            if held is None:
                return batch, False
            batch.append(held)
        return batch, True

    def _delete(self, batch: list[Held]) -> None:
        reasons = dict.fromkeys(batch, "")
        left = batch
        for attempt in range(_TRIES):
            if attempt:
                self._clock.sleep(_PAUSE * attempt)
            try:
                codes = self._transport.delete_many([held.message.receipt for held in left])
            except ResilientError as error:
                codes = [type(error).__name__] * len(left)
            reasons.update(zip(left, codes, strict=True))
            for held, code in zip(left, codes, strict=True):
                if not code:
                    self._done(held)
            left = [held for held, code in zip(left, codes, strict=True) if code and not _gone(code)]
            if not left:
                break
        for held, reason in reasons.items():
            if reason:
                events.emit(AcknowledgeFailed(queue=self._transport.name, reason=reason))
                self._done(held)


class Keeper:
    """Gives signs of life for messages in hand, and returns messages to the queue.

    Args:
        transport: The queue.
        hand: The messages in hand.
        lock: Guards ``hand``.
        done: Called with each message that was returned, when SQS was told, or could not be.
        extend: Extends the claim of a message on the ledger; returns whether it still holds.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        transport: Transport,
        hand: InHand,
        lock: threading.Lock,
        *,
        done: Callable[[Held], None],
        extend: Callable[[Held], bool],
        clock: Clock,
    ) -> None:
        self._transport = transport
        self._hand = hand
        self._lock = lock
        self._done = done
        self._extend = extend
        self._clock = clock
        self._waiting: queue.SimpleQueue[tuple[Held, int] | None] = queue.SimpleQueue()
        self._thread = start_thread(self._run, name=f"keep-{transport.name}")

    def give_back(self, held: Held, seconds: float) -> None:
        """Return a message to the queue: others see it after so many seconds."""
        self._waiting.put((held, max(0, round(seconds))))

    def wake(self) -> None:
        """Look anew at when the next sign of life is due: a message was taken in hand."""
        self._waiting.put((_NOBODY, 0))

    def close(self, timeout: float) -> None:
        """Return what was put, then end. No more signs of life are given."""
        self._waiting.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        more = True
        while more:
            returned, more = self._collect()
            for batch in batches(returned):
                self._return(batch)
            if more:
                self._beat()

    def _collect(self) -> tuple[list[tuple[Held, int]], bool]:
        """What is to be returned, once there is any or a sign of life is due."""
        with self._lock:
            due = self._hand.next_due()
        timeout = None if due is None else max(0.0, due - self._clock.monotonic())
        returned: list[tuple[Held, int]] = []
        try:
            item = self._waiting.get(timeout=timeout)
            while item is not None:
                if item[0] is not _NOBODY:
                    returned.append(item)
                item = self._waiting.get_nowait()
        except queue.Empty:
            return returned, True
        return returned, False

    def _return(self, batch: Sequence[tuple[Held, int]]) -> None:
        left = batch
        for attempt in range(_TRIES):
            if attempt:
                self._clock.sleep(_PAUSE)
            try:
                codes = self._transport.change_visibility_many([(held.message.receipt, s) for held, s in left])
            except ResilientError:
                continue  # in the end it comes back by itself, when its time has run out
            left = [each for each, code in zip(left, codes, strict=True) if code and not _gone(code)]
            if not left:
                break
        for held, _ in batch:
            self._done(held)

    def _beat(self) -> None:
        with self._lock:
            due = self._hand.due(self._clock.monotonic())
        for batch in batches(due):
            self._beat_batch(batch)

    def _beat_batch(self, batch: Sequence[Held]) -> None:
        now = self._clock.monotonic()
        with self._lock:
            wanted = [(held, self._hand.seconds(held, now)) for held in batch if held.beat_at is not None]
            for held, seconds in wanted:
                if seconds == 0:
                    self._lost(held, "twelve hours since its receipt", now)
        wanted = [each for each in wanted if each[1] > 0]
        if not wanted:
            return
        try:
            codes = self._transport.change_visibility_many([(held.message.receipt, s) for held, s in wanted])
        except ResilientError:
            with self._lock:
                for held, _ in wanted:
                    self._hand.missed(held, now)
            return
        holds = [bool(code) or self._extend(held) for (held, _), code in zip(wanted, codes, strict=True)]
        with self._lock:
            for (held, _), code, claimed in zip(wanted, codes, holds, strict=True):
                if _gone(code):
                    self._lost(held, code, now)
                elif code:
                    self._hand.missed(held, now)
                elif not claimed:
                    self._lost(held, "another worker has taken over", now)
                else:
                    self._hand.beaten(held, now)

    def _lost(self, held: Held, reason: str, now: float) -> None:
        if held.beat_at is None or held.message.receipt not in self._hand.held:
            return  # it was finished meanwhile: that SQS does not know it any more is as it should be
        self._hand.lost(held)
        events.emit(HeartbeatLost(queue=self._transport.name, reason=reason, seconds_in_hand=now - held.received))


def _gone(code: str) -> bool:
    """Whether a code says that the receipt is good for nothing any more; others are worth another try."""
    return code.endswith(("ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"))


def _nobody() -> Held:
    return Held(Message(id="", body=""), 0.0, None)


_NOBODY = _nobody()
"""Put in front of a courier's wait to end it."""
