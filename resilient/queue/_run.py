"""One run of a consumer: a thread that receives, a pool that handles, two couriers, and the drain at the end."""

from __future__ import annotations

import contextlib
import logging
import queue as queues
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from resilient import causality, events
from resilient.clock import Clock
from resilient.errors import ResilientError, Unavailable
from resilient.queue import _process as fates
from resilient.queue._couriers import Acknowledger, Keeper
from resilient.queue._events import (
    ConsumerStarted,
    ConsumerStopped,
    HandlerFailed,
    MessageHandled,
    MessageHeldOff,
    MessageRejected,
    ReceiveFailed,
)
from resilient.queue._inhand import Held, InHand, State
from resilient.queue._limits import BATCH
from resilient.queue._message import Backoff, Message, Redeliver
from resilient.queue._queue import Queue
from resilient.runtime import WorkerPool, start_thread

__all__ = ["Options", "Report", "Run"]

_log = logging.getLogger("resilient.queue")

_UNDELETED = 100  # messages that are done and wait for their delete, before no more are received
_LONGEST_HOLD_OFF = 900.0
_WAKE = 1.0  # seconds after which a waiting main thread looks for signals that another thread was given
_STEP = 0.1  # seconds between two looks for a second signal while draining


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a consumer works; see `Consumer`."""

    name: str
    owner: str
    concurrency: int
    prefetch: int
    visibility: int
    wait: float
    linger: float
    stop_timeout: float
    poll_grace: float
    backoff: Backoff
    clock: Clock


@dataclass(frozen=True, slots=True)
class Report:
    """What one run did.

    Args:
        handled: Messages whose handler returned.
        repeated: Messages that had been done before and were only deleted.
        failed: Times a handler raised.
        rejected: Messages that could never be handled.
        held_off: Times another worker had the same work in hand.
        returned: Messages given back unhandled.
        abandoned: Handlers that still ran when the run ended.
    """

    handled: int = 0
    repeated: int = 0
    failed: int = 0
    rejected: int = 0
    held_off: int = 0
    returned: int = 0
    abandoned: int = 0


@dataclass(slots=True)
class _Doors:
    """What the signal handler and other threads may touch: both are safe at any moment, also inside a signal."""

    notes: queues.SimpleQueue[BaseException | None] = field(default_factory=queues.SimpleQueue)
    stops: int = 0

    def stop(self) -> None:
        self.stops += 1
        self.notes.put(None)


def _detail(error: BaseException) -> str:
    """What an error says of itself; nothing where it breaks at that."""
    try:
        return str(error)[:500]
    except BaseException:  # noqa: BLE001 - it is the handler's, and its message must come again
        return ""


class Run:
    """One run of a consumer.

    Args:
        queue: Where messages come from.
        processor: What is done with each.
        options: How.
        dead_letters: Finds the queue for what can never be handled.
        until_empty: End when the queue is empty.
    """

    def __init__(
        self,
        queue: Queue,
        processor: fates.Processor,
        options: Options,
        dead_letters: Callable[[], Queue | None],
        *,
        until_empty: bool,
    ) -> None:
        self._queue = queue
        self._processor = processor
        self._options = options
        self._dead_letters = dead_letters
        self._until_empty = until_empty
        self._clock = options.clock
        self._doors = _Doors()
        self._hand = InHand(options.visibility)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._stopping = False
        self._counts: Counter[str] = Counter()

    # ----------------------------------------------------------------------------------------------- the run's thread

    def stop(self) -> None:
        """Ask for the drain; a second time, for the end without it. Safe from any thread and from a signal handler."""
        self._doors.stop()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopping or self._doors.stops > 0

    def run(self) -> Report:
        """Receive and handle until stopped, or until the queue is empty."""
        options = self._options
        self._pool = WorkerPool(f"handle-{self._queue.name}", options.concurrency, backlog=options.prefetch + BATCH)
        self._acknowledger = Acknowledger(self._queue, self._out_of_hand, linger=options.linger, clock=self._clock)
        self._keeper = Keeper(
            self._queue, self._hand, self._lock, done=self._out_of_hand, extend=self._extend, clock=self._clock
        )
        events.emit(ConsumerStarted(queue=self._queue.name, concurrency=options.concurrency))
        poller = start_thread(self._poll, name=f"poll-{self._queue.name}")
        try:
            broken = self._await_note()
        finally:
            self._drain(poller)
        if broken is not None:
            raise broken
        report = Report(**self._counts)
        events.emit(
            ConsumerStopped(
                queue=self._queue.name, handled=report.handled, failed=report.failed, abandoned=report.abandoned
            )
        )
        return report

    def _await_note(self) -> BaseException | None:
        """What ends the run.

        The system may hand a signal to any thread, while only the main one runs its handler: that one is not left
        asleep for longer than a second.
        """
        while True:
            with contextlib.suppress(queues.Empty):
                return self._doors.notes.get(timeout=_WAKE)

    def _drain(self, poller: threading.Thread) -> None:
        until = self._clock.monotonic() + self._options.stop_timeout
        with self._lock:
            self._stopping = True
            self._return(self._hand.of(State.WAITING), "returned")
            self._changed.notify_all()
            while self._hand.of(State.RUNNING) and self._clock.monotonic() < until and self._doors.stops < 2:
                self._changed.wait(_STEP)
            self._return(self._hand.of(State.RUNNING), "abandoned")
        # An open long poll may still bring something. It is awaited for a moment; what it brings later is given back by
        # its own thread, or, if the process has ended by then, by the visibility timeout.
        poller.join(self._options.poll_grace if self._doors.stops < 2 else 0.0)
        self._acknowledger.close(self._options.stop_timeout)
        self._keeper.close(self._options.stop_timeout)
        self._pool.close()

    def _return(self, helds: Sequence[Held], counted: str) -> None:
        for held in helds:
            if self._hand.finish(held, beating=False):
                self._counts[counted] += 1
                self._keeper.give_back(held, 0)

    # -------------------------------------------------------------------------------------------- the poller's thread

    def _poll(self) -> None:
        try:
            self._receive_all()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that runs the consumer
            self._doors.notes.put(error)

    def _receive_all(self) -> None:
        quiet, failures = False, 0
        while room := self._await_room(empty=self._until_empty and quiet):
            with self._lock:
                idle = not self._hand.held
            asked = self._clock.monotonic()
            wait = self._options.wait if not self._until_empty else min(1.0, self._options.wait) if quiet else 0.0
            try:
                messages = self._queue.receive(room, wait=wait, visibility=self._options.visibility)
            except ResilientError as error:
                failures += 1
                pause = min(10.0, 0.1 * 2 ** min(failures, 10))
                events.emit(ReceiveFailed(queue=self._queue.name, error=type(error).__name__, pause=pause))
                self._pause(pause)
                continue
            failures = 0
            if messages:
                self._take(messages, asked)
            elif self._until_empty and idle and quiet:
                self._doors.notes.put(None)
                return
            quiet = not messages

    def _await_room(self, *, empty: bool) -> int:
        """How many messages may be received now; 0 when none are to be received any more."""
        options = self._options
        with self._lock:
            while not self.stopping:
                room = min(
                    options.prefetch - self._hand.unfinished(),
                    options.prefetch + _UNDELETED - len(self._hand.held),
                    BATCH,
                )
                if room > 0 and not (empty and self._hand.held):
                    return room
                self._changed.wait()
        return 0

    def _take(self, messages: Sequence[Message], asked: float) -> None:
        now = self._clock.monotonic()
        # A long poll is answered when the message is there; a slow answer has used up some of its time.
        received = now - min(now - asked, self._hand.interval / 2)
        if self._stopping:
            self._refuse(messages)
            return
        for message in messages:
            with self._lock:
                held = self._hand.add(message, received)
            try:
                self._pool.submit(self._work, held)
            except Unavailable:  # stopped meanwhile
                with self._lock:
                    self._return([held], "returned")
        self._keeper.wake()

    def _refuse(self, messages: Sequence[Message]) -> None:
        """Give back at once what the last long poll brought; the couriers may have gone."""
        try:
            self._queue.change_visibility_many([(message.receipt, 0) for message in messages])
        except ResilientError:
            return  # it comes back when its time has run out
        with self._lock:
            self._counts["returned"] += len(messages)

    def _pause(self, seconds: float) -> bool:
        """Wait that long, or until stopped. Whether to go on."""
        until = self._clock.monotonic() + seconds
        with self._lock:
            while not self._stopping and (left := until - self._clock.monotonic()) > 0:
                self._changed.wait(left)
            return not self._stopping

    # ------------------------------------------------------------------------------------------- the pool's threads

    def _work(self, held: Held) -> None:
        with self._lock:
            if not self._hand.start(held):
                return
        started = self._clock.monotonic()
        fate = self._processor.run(
            held.message, owner=self._options.owner, keep=partial(setattr, held, "claim"), waits=self._pause
        )
        seconds = self._clock.monotonic() - started
        if isinstance(fate, fates.Rejected):
            fate = self._park(held, fate)
        self._settle(held, fate, seconds)

    def _settle(self, held: Held, fate: fates.Fate, seconds: float) -> None:
        name, message, after = self._queue.name, held.message, 0.0
        if isinstance(fate, fates.Ack):
            counted = "repeated" if fate.repeated else "handled"
            if events.wanted(MessageHandled):
                events.emit(MessageHandled(queue=name, seconds=seconds, repeated=fate.repeated))
        elif isinstance(fate, fates.Failed):
            counted = "failed"
            after = fate.after if fate.after is not None else self._options.backoff.delay(message.receive_count)
            self._tell(message, fate.error, after)
        elif isinstance(fate, fates.HeldOff):
            counted, after = "held_off", self._hold_off(message, fate)
            events.emit(MessageHeldOff(queue=name, after=after))
        else:
            counted = "rejected" if isinstance(fate, fates.Rejected) else "returned"
        done = isinstance(fate, fates.Ack | fates.Rejected)
        with self._lock:
            decided = self._hand.finish(held, beating=done)
            if decided:  # else the drain has given it back already
                self._counts[counted] += 1
                self._changed.notify_all()
        if decided and done:
            self._acknowledger.put(held)
        elif decided:
            self._keeper.give_back(held, after)

    def _hold_off(self, message: Message, fate: fates.HeldOff) -> float:
        """Long enough that waiting for a long piece of work does not use up the receive count."""
        if fate.retry_after is not None:
            return min(_LONGEST_HOLD_OFF, fate.retry_after + 1.0)
        return min(_LONGEST_HOLD_OFF, float(self._options.visibility * 2 ** min(10, message.receive_count - 1)))

    def _tell(self, message: Message, error: BaseException, after: float) -> None:
        kind = type(error)
        events.emit(
            HandlerFailed(
                queue=self._queue.name,
                error=f"{kind.__module__}.{kind.__qualname__}",
                detail=_detail(error),
                receive_count=message.receive_count,
                after=after,
            )
        )
        if not isinstance(error, Redeliver):  # asked for by the handler, not a mishap
            _log.warning(
                "a handler of %s failed at delivery %d of message %s; it comes again in %.1f s",
                self._queue.name,
                message.receive_count,
                message.id,
                after,
                exc_info=error,
            )

    def _park(self, held: Held, fate: fates.Rejected) -> fates.Fate:
        """Move what can never be handled to the dead-letter queue. It is deleted here only once it is there."""
        message = held.message
        try:
            target = self._dead_letters()
            if target is not None:
                note = {"reject-reason": fate.reason[:500] or "rejected", "reject-queue": self._queue.name}
                attributes = {**message.attributes, **note} if len(message.attributes) <= 6 else message.attributes
                with causality.scope(causality.Token.read(message.token)):
                    target.send(
                        message.body,
                        attributes=attributes,
                        id=message.key or None,
                        group=message.group or (message.id if target.fifo else None),
                        deduplication=message.id if target.fifo else None,  # the key may have any form
                    )
        except ResilientError as error:
            return fates.Failed(error)
        events.emit(MessageRejected(queue=self._queue.name, reason=fate.reason, parked=target is not None))
        if target is None:
            return fates.Failed(fate.error or ResilientError(fate.reason))
        return fate

    # --------------------------------------------------------------------------------------------- told by the couriers

    def _out_of_hand(self, held: Held) -> None:
        with self._lock:
            self._hand.remove(held)
            self._changed.notify_all()

    def _extend(self, held: Held) -> bool:
        return held.claim is None or self._processor.extend(held.claim)
