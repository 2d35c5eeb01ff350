"""How the waits of a psycopg connection are bounded, on this side and on the server's.

A sync psycopg connection has no read timeout of its own: on a frozen server it would wait for ever. But each of its
waits goes through one method, which is replaced here by one that ends.
"""

from __future__ import annotations

import functools
import select
from collections.abc import Generator
from typing import Any

from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, Engine

from resilient.clock import SYSTEM
from resilient.policy import deadline

__all__ = ["PsycopgLimits", "bounded_connection"]

_IDLE_BEFORE_LOOK = 1.0  # a connection used within the last second is taken as alive
_GRACE = 0.05  # seconds that a rollback may take even when no time is left
_READ, _WRITE = 1, 2  # what psycopg's generators ask for, and are told


def _drive(steps: Generator[Any, Any, Any], fileno: int | None, limit: float) -> Any:
    """Run one of psycopg's generators to its end, waiting for its socket no longer than ``limit`` seconds in all.

    Args:
        steps: Yields what it waits for; while it connects, also for which socket, since that may change.
        fileno: The socket; ``None`` while it connects.
        limit: Seconds.

    Raises:
        TimeoutError: The time is up, and the generator is closed.
    """
    until = SYSTEM.monotonic() + limit
    try:
        wanted = next(steps)
        while True:
            number, mask = (fileno, wanted) if fileno is not None else wanted
            left = until - SYSTEM.monotonic()
            ready = _ready(number, mask, left) if left > 0 else 0
            if not ready:
                steps.close()
                raise TimeoutError
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value


def _ready(fileno: int, mask: int, seconds: float) -> int:
    poll = select.poll()
    poll.register(fileno, (select.POLLIN if mask & _READ else 0) | (select.POLLOUT if mask & _WRITE else 0))
    found = poll.poll(seconds * 1000)
    if not found:
        return 0
    ready = (_READ if found[0][1] & select.POLLIN else 0) | (_WRITE if found[0][1] & select.POLLOUT else 0)
    return ready or mask  # an error or the end of the stream: libpq finds out which when it reads or writes


def bounded_connection(connect_limit: float, limit: float) -> type[Any]:
    """A class of psycopg connections whose every wait ends.

    Args:
        connect_limit: Seconds to connect to one address, and for a rollback.
        limit: Seconds for one answer.
    """
    return type("BoundedConnection", (_bounded_class(),), {"connect_limit": connect_limit, "limit": limit})


@functools.cache
def _bounded_class() -> type[Any]:
    import psycopg

    base: Any = psycopg.Connection

    class BoundedConnection(base):  # type: ignore[misc] # a base chosen at run time
        connect_limit: float
        limit: float
        _ending = False

        @classmethod
        def _connect_gen(cls, *args: Any, **options: Any) -> Generator[Any, Any, Any]:
            # psycopg waits for this generator in whole seconds, and no less than two: so it does its waiting itself.
            yield from ()
            limit = deadline.bound(cls.connect_limit)
            try:
                return _drive(super()._connect_gen(*args, **options), None, limit)
            except TimeoutError:
                raise psycopg.errors.ConnectionTimeout(f"no connection within {limit:.3g} s") from None

        def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
            if args or options:  # a wait for notifications, which names its own limit
                return super().wait(gen, *args, **options)
            limit = self._time_for_it()
            try:
                return _drive(gen, self.pgconn.socket, limit)
            except TimeoutError:
                self.pgconn.finish()  # the answer may still come, and would be taken for that of the next statement
                raise psycopg.errors.OperationalError(f"timed out: no answer within {limit:.3g} s") from None
            except KeyboardInterrupt:
                self.pgconn.finish()  # same
                raise

        def _time_for_it(self) -> float:
            if not self._ending:
                return deadline.bound(self.limit)
            remaining = deadline.remaining()  # a rollback is tried even when no time is left, but briefly
            return self.connect_limit if remaining is None else max(_GRACE, min(self.connect_limit, remaining))

        def rollback(self) -> None:
            self._ending = True
            try:
                super().rollback()
            finally:
                self._ending = False

    return BoundedConnection


class PsycopgLimits:
    """Makes an engine's connections bounded ones, and tells the server how long each statement may run.

    A statement without a deadline runs under the limit that the connection was made with, as it is. Under
    a deadline the server is told what remains, so that it gives up what this side gives up; that takes a round trip,
    which is saved where the limit told last is still about right.
    """

    def __init__(self, made: Engine, connect_timeout: float, timeout: float) -> None:
        self._kind = bounded_connection(connect_timeout, timeout)
        self._timeout = timeout
        event.listen(made, "do_connect", self._connecting)
        event.listen(made, "checkout", self._checked_out)
        event.listen(made, "checkin", self._checked_in)
        # Not before_cursor_execute: what fails there reaches the caller as psycopg's own error.
        event.listen(made, "do_execute", self._executing)
        event.listen(made, "do_executemany", self._executing)
        event.listen(made, "rollback", self._forget)
        event.listen(made, "rollback_savepoint", self._forget)

    def _connecting(self, _dialect: Any, _record: Any, args: Any, options: dict[str, Any]) -> Any:
        return self._kind.connect(*args, **options)

    def _checked_out(self, raw: Any, record: Any, _proxy: Any) -> None:
        if raw.closed:
            raise exc.InvalidatePoolError("a database connection had broken")
        used = record.info.get("resilient_used")
        idle = used is not None and SYSTEM.monotonic() - used > _IDLE_BEFORE_LOOK
        if idle and _ready(raw.pgconn.socket, _READ, 0):  # the server said something unasked: that it ends
            raise exc.InvalidatePoolError("an idle database connection had died")

    def _checked_in(self, _raw: Any, record: Any) -> None:
        record.info["resilient_used"] = SYSTEM.monotonic()

    def _executing(self, _cursor: Any, _statement: str, _parameters: Any, context: Any) -> None:
        connection = context.root_connection
        remaining = deadline.remaining()
        try:
            info = connection.info
        except NotImplementedError:  # SQLAlchemy's first look at the server goes past the pool
            return
        told = info.get("resilient_told", self._timeout)  # None: a rollback took it back, to whatever it was before
        if remaining is None or remaining >= self._timeout:
            wanted, most = self._timeout, self._timeout
        else:
            wanted, most = remaining, remaining * 1.25 + 0.02
        if told is not None and wanted <= told <= most:
            return
        if wanted < self._timeout:
            wanted = min(wanted * 1.1, self._timeout)  # so that it serves the next call with the same deadline too
        with connection.connection.dbapi_connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {max(1, round(wanted * 1000))}")
        info["resilient_told"] = wanted

    def _forget(self, connection: Connection, *_: object) -> None:
        if not connection.invalidated and "resilient_told" in connection.info:
            connection.info["resilient_told"] = None
