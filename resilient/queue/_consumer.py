"""The face of the consumer."""

from __future__ import annotations

import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from resilient import causality
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError, Conflict
from resilient.ledger import Store
from resilient.queue import _process as fates
from resilient.queue._inject import Handler, plan
from resilient.queue._limits import LONGEST_VISIBILITY, encode
from resilient.queue._message import Backoff, Message, Reject, Release
from resilient.queue._queue import Queue
from resilient.queue._run import Options, Report, Run
from resilient.runtime import after_fork, fork_safe_lock

__all__ = ["Consumer"]


class Consumer:
    """Receives messages of a queue and hands each to a handler, on a pool of threads.

    A handler that returns has acknowledged its message. One that raises has not: the message comes again, later each
    time. `Redeliver`, `Reject` and `Release` say it more exactly. While a message is in hand, signs of life keep it
    from others, for up to twelve hours.

    Args:
        queue: Where messages come from.
        handle: Takes what its parameters' annotations ask for: the payload, the `Message`, a database session.
        idempotency: Keeps the record of work. With `SqlStore` a message has exactly one effect on the database whose
            session the handler gets, however often it is delivered. Without one: at least one.
        concurrency: Handlers that run at once.
        visibility: Seconds a message is kept from others by each sign of life; also about how long it stays away when
            this process dies. Whole seconds, 1 to 43,200.
        prefetch: Messages in hand at most, running and waiting; by default twice ``concurrency``.
        session: A sessionmaker for handlers that take a session and have no store that makes one.
        key: Names the work of a message; by default the id it was sent with, through all its copies.
        backoff: How long a message that failed stays away.
        dead_letters: Where messages that can never be handled go; by default the queue's own redrive policy tells.
        name: What the records are kept under; by default the queue's name.
        wait: Seconds of each long poll, 0 to 20.
        stop_timeout: Seconds that running handlers have when the consumer is stopped.
        poll_grace: Seconds that an open long poll has when everything else has ended.
        clock: Where the time comes from.

    Raises:
        ConfigurationError: The handler cannot be called, or an option makes no sense.

    Examples:
        >>> from resilient.queue import Queue
        >>> from resilient.testing.sqs import FakeSqs
        >>> sqs = FakeSqs()
        >>> orders = Queue(sqs.create_queue(QueueName="orders")["QueueUrl"], client=sqs)
        >>> seen = []
        >>> def handle(order: dict) -> None:
        ...     seen.append(order["order"])
        >>> _ = orders.send({"order": 1})
        >>> Consumer(orders, handle, wait=0).run(until_empty=True).handled
        1
        >>> seen
        [1]
    """

    def __init__(
        self,
        queue: Queue,
        handle: Handler,
        *,
        idempotency: Store | None = None,
        concurrency: int = 8,
        visibility: int = 30,
        prefetch: int | None = None,
        session: Callable[[], Any] | None = None,
        key: Callable[[Message], str] | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008 - a frozen value
        dead_letters: Queue | None = None,
        name: str | None = None,
        wait: float = 20.0,
        stop_timeout: float = 25.0,
        poll_grace: float = 1.0,
        clock: Clock = SYSTEM,
    ) -> None:
        if isinstance(queue, str):
            raise ConfigurationError(
                "a consumer takes a Queue, not its URL", advice="write Consumer(Queue(url), handle)"
            )
        if idempotency is not None and not hasattr(idempotency, "claim"):
            raise ConfigurationError(
                f"idempotency= takes a store, not {idempotency!r}",
                advice="write idempotency=SqlStore(sessionmaker(engine))",
            )
        if queue.fifo and concurrency != 1:
            raise ConfigurationError(
                "a FIFO queue is handled one message at a time here", advice="pass concurrency=1, or use more processes"
            )
        if prefetch is None:
            prefetch = 1 if queue.fifo else 2 * concurrency
        if concurrency < 1 or prefetch < concurrency:
            raise ConfigurationError("a consumer needs concurrency >= 1 and prefetch >= concurrency")
        if visibility != int(visibility) or not 1 <= visibility <= LONGEST_VISIBILITY:
            raise ConfigurationError(f"visibility is 1 to {LONGEST_VISIBILITY} whole seconds")
        if not 0 <= wait <= 20 or stop_timeout < 0 or poll_grace < 0:
            raise ConfigurationError("wait is 0 to 20 seconds; stop_timeout and poll_grace are not negative")
        self.queue = queue
        self._options = Options(
            name=name or queue.name,
            owner=_owner(),
            concurrency=concurrency,
            prefetch=prefetch,
            visibility=int(visibility),
            wait=wait,
            # Without a record every moment between effect and delete may repeat the effect: nothing lingers then.
            linger=0.05 if idempotency is not None else 0.0,
            stop_timeout=stop_timeout,
            poll_grace=poll_grace,
            backoff=backoff,
            clock=clock,
        )
        self._processor = fates.Processor(
            plan(handle),
            store=idempotency,
            session=session,
            name=self._options.name,
            key=key,
            lease=float(visibility),
            clock=clock,
        )
        self._dead_letters = dead_letters
        self._looked_up = dead_letters is not None
        self._lock = fork_safe_lock()
        self._run: Run | None = None
        after_fork(self._forked)

    def _forked(self) -> None:
        self._run = None  # its threads are the parent's
        self._options = replace(self._options, owner=_owner())

    def __repr__(self) -> str:
        return f"Consumer({self.queue!r})"

    def run(self, *, until_empty: bool = False) -> Report:
        """Receive and handle until stopped.

        On the main thread, SIGTERM and SIGINT stop it: nothing more is received, what has not started is given back at
        once, and what runs may finish. A second signal ends it without waiting.

        Args:
            until_empty: End by itself when the queue is empty; messages that were put off are not waited for.

        Returns:
            What was done.

        Raises:
            Conflict: It runs already.
        """
        run = Run(self.queue, self._processor, self._options, self._find_dead_letters, until_empty=until_empty)
        with self._lock:
            if self._run is not None:
                raise Conflict("this consumer runs already")
            self._run = run
        try:
            with _signals(run.stop):
                return run.run()
        finally:
            with self._lock:
                self._run = None

    def stop(self) -> None:
        """Stop a run of another thread, as SIGTERM does; `run` returns when it is drained. A second call hurries it."""
        run = self._run
        if run is not None:
            run.stop()

    @property
    def running(self) -> bool:
        """Whether it runs and was not asked to stop; a readiness check may ask."""
        run = self._run
        return run is not None and not run.stopping

    def handle_one(
        self,
        body: Any,
        *,
        id: str | None = None,  # noqa: A002 - the word users know
        attributes: Mapping[str, str | bytes] | None = None,
    ) -> Any:
        """Handle one message that comes from no queue, for tests: with record, session and scope, as in `run`.

        Args:
            body: As for `Queue.send`.
            id: What names the message; give the same twice to see that there is one effect.
            attributes: Its attributes.

        Returns:
            What the handler returned, now or, for a message that was done before, then.

        Raises:
            Conflict: Another worker has the same work in hand.
            Exception: What the handler raised.
        """
        identity, scope = id or str(uuid.uuid4()), causality.running()
        message = Message(
            id=identity,
            body=encode(body),
            attributes=attributes or {},
            sent_at=self._options.clock.wall(),
            queue=self.queue.name,
            key=identity,
            token="" if scope is None else str(scope.token),
        )
        fate = self._processor.run(message, owner=self._options.owner)
        if isinstance(fate, fates.Ack):
            return fate.result
        if isinstance(fate, fates.Failed):
            raise fate.error
        if isinstance(fate, fates.Rejected):
            raise fate.error or Reject(fate.reason)
        if isinstance(fate, fates.HeldOff):
            raise Conflict("another worker has this message in hand", retry_after=fate.retry_after)
        raise Release

    def _find_dead_letters(self) -> Queue | None:
        if not self._looked_up:
            self._dead_letters = self.queue.dead_letters()
            self._looked_up = True
        return self._dead_letters


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop a run on the main thread; other threads get no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, lambda *_: stop()) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler if handler is not None else signal.SIG_DFL)
