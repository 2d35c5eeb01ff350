"""Being told what changes on the servers: one thread, one connection to each primary.

A server that speaks the protocol's third version (Redis from 6.0, Valkey) tells of each changed key under a prefix,
whoever changed it. Where that is forbidden, those who write tell it themselves, by publish and subscribe.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import random
import selectors
import socket
import ssl
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from resilient.clock import SYSTEM, Clock
from resilient.errors import needs_extra
from resilient.runtime import after_fork, fork_safe_lock, start_thread
from resilient.wire.redis._parsing import pack
from resilient.wire.redis._tracking import Answer, Ear, Messages, Watch, announcement, changed_keys, is_unasked
from resilient.wire.redis._tracking_routes import Route, address_of, route

with needs_extra("redis"):
    import redis.exceptions

__all__ = ["Ear", "Tracking"]

Mode = Literal["tracking", "pubsub"]

_FIRST, _LONGEST = 0.05, 1.0  # seconds between two attempts to connect
_REFUSED = 30.0  # the same where a server allows neither
_CHUNK = 16_384
_PING = pack(("PING",))
_PASSING = ("LOADING", "MASTERDOWN", "BUSY", "CLUSTERDOWN", "TRYAGAIN", "ERR max number of clients")
_now = SYSTEM.monotonic


class _Lost(Exception):
    """The servers cannot be listened to any longer; the text says why."""


class _Refused(Exception):
    """A server does not do what it was asked."""


class _Line:
    """One connection on which a server tells."""

    def __init__(self, connection: Any, watch: Watch) -> None:
        self._connection = connection
        self.sock: socket.socket = connection._sock  # noqa: SLF001 - read here, by a parser that knows what is pushed
        self._messages = Messages()
        self.early: list[Any] = []  # what was pushed while a reply was awaited
        self.watch = watch
        self.state: object = None
        self.inquires = False  # whether the outstanding question is about its state

    def ask(self, wire: bytes) -> Any:
        """Send one command and wait for its reply, within the limit of the socket."""
        self.send(wire)
        while True:
            for message in self.receive():
                if is_unasked(message):
                    self.early.append(message)
                else:
                    return message

    def demand(self, *args: str) -> None:
        """Send one command that must be obeyed.

        Raises:
            _Refused: The server does not do that, and will not later.
            _Lost: It cannot say now.
        """
        reply = self.ask(pack(args))
        if isinstance(reply, Answer):
            raise (_Lost if reply.text.startswith(_PASSING) else _Refused)(reply.text)

    def receive(self) -> list[Any]:
        """What has come; waits for something where the socket does."""
        try:
            data = self.sock.recv(_CHUNK)
            while isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
                data += self.sock.recv(_CHUNK)
            if not data:
                raise _Lost("the server closed the connection")
            return self._messages.feed(data)
        except (BlockingIOError, ssl.SSLWantReadError):
            return []
        except OSError as error:
            raise _Lost(f"the connection failed: {type(error).__name__}") from error
        except ValueError as error:
            raise _Lost(f"what the server said was not understood: {error}") from error

    def send(self, wire: bytes) -> None:
        """Send a question."""
        try:
            self.sock.sendall(wire)
        except OSError as error:
            raise _Lost(f"the connection failed: {type(error).__name__}") from error

    def close(self) -> None:
        """Hang up."""
        self._connection.disconnect()


class Tracking:
    """Tells an ear what changes on the servers, and up to when it knows.

    Nothing is opened and no thread runs until `ensure`. One thread serves whoever uses the ear, in threads and in
    event loops alike. It connects anew, with growing pauses, for as long as the ear lives. In a forked child the
    session is over, and `ensure` begins another.

    Args:
        target: A URL or a ready client, as for `resilient.wire.redis.open_channel`; of a ready client only the
            options are taken.
        prefix: Of the keys to be told of.
        ear: Is told; held weakly.
        bound: Seconds for which the ear trusts what it heard; servers are asked four times as often.
        clock: Where the ear reads time.

    Raises:
        ConfigurationError: The address is none.
    """

    def __init__(self, target: Any, *, prefix: str, ear: Ear, bound: float = 1.0, clock: Clock = SYSTEM) -> None:
        self._now = clock.monotonic
        self._prefix = prefix
        self._ear = weakref.ref(ear)
        self._bound = bound
        address = address_of(target)
        self._route: Route | None = None if address is None else route(address, bound)
        self.mode: Mode | None = None
        """How it is told now; ``None`` while it is not."""
        self.trouble: str | None = None if address else "connections like this client's cannot be made here"
        """Why it is not told, for people."""
        self._publishes = False
        self._session: int | None = None
        self._lines: list[_Line] = []
        self._closed = False
        self._lock = fork_safe_lock()
        self._renew()
        after_fork(self._forked)

    def _renew(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._live = threading.Event()

    def _forked(self) -> None:
        """The sockets are the parent's, which goes on; here they are closed without a word to the server."""
        lines, self._lines = self._lines, []
        for line in lines:
            with contextlib.suppress(OSError):
                line.sock.close()
        self._renew()
        self._over("the process was forked")

    # ---------------------------------------------------------------------------------------------------- for users

    def ensure(self) -> None:
        """Begin to be told, where that was not begun yet."""
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed and self._route is not None:
                try:
                    # The thread outlives whoever starts it, and so has no deadline of theirs.
                    self._thread = contextvars.Context().run(start_thread, self._work, self._stop, name="tracking")
                except RuntimeError as error:  # there are too many, or the interpreter ends: whoever reads goes on
                    self.trouble = f"no thread: {error}"

    @property
    def keep(self) -> float:
        """Seconds that a value may be kept at most, however alive this is.

        What writers publish may be lost, and not everybody who writes may publish.
        """
        return math.inf if self.mode == "tracking" else self._bound

    def news(self, keys: Iterable[str]) -> list[tuple[str, str, str]]:
        """The commands by which a writer tells the others what it has changed; none, where the server does that."""
        return [announcement(self._prefix, keys)] if self._publishes else []

    def wait(self, seconds: float) -> bool:
        """Begin, and wait at most that long until everything is told."""
        self.ensure()
        return self._live.wait(seconds)

    def close(self, wait: float = 1.0) -> None:
        """Be told no more; waits so many seconds at most for the thread. May be repeated."""
        with self._lock:
            self._closed = True
            self._stop.set()
            thread = self._thread
            lines = list(self._lines)
        for line in lines:
            with contextlib.suppress(OSError):
                line.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(wait)
        self._over("closed")

    # ------------------------------------------------------------------------------------------------ on the thread

    def _work(self, stop: threading.Event) -> None:
        pause = _FIRST
        while not stop.is_set() and self._ear() is not None:
            began = _now()
            why, refused = self._told_until_lost(stop)
            if stop is not self._stop:
                return  # the process was forked in between
            self._hang_up(why)
            if _now() - began > _LONGEST:
                pause = _FIRST
            # Not all of a fleet at once.
            stop.wait(_REFUSED if refused else pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(_LONGEST, 2 * pause)
        self._hang_up("closed")
        self._way().close()

    def _told_until_lost(self, stop: threading.Event) -> tuple[str, bool]:
        """Why it ended, and whether trying again soon is in vain."""
        try:
            self._open(stop)
            self._listen(stop)
        except (_Lost, _Refused) as error:
            return str(error), isinstance(error, _Refused)
        except (redis.exceptions.RedisError, OSError) as error:
            return f"no connection: {type(error).__name__}", False
        except Exception as error:  # noqa: BLE001 - whatever it is, the ear must hear that the session is over
            return f"{type(error).__name__}: {error}", False
        return "closed", False

    def _hang_up(self, why: str) -> None:
        self._over(why)
        lines, self._lines = self._lines, []
        for line in lines:
            with contextlib.suppress(Exception):
                line.close()

    def _over(self, why: str) -> None:
        """The session is over: whoever hears it from the ear finds it so here, and why."""
        session, self._session = self._session, None
        self._live.clear()
        self.mode = None
        self.trouble = self.trouble if self._route is None else why
        ear = self._ear()
        if session is not None and ear is not None:
            ear.cut(session)

    # ----------------------------------------------------------------------------------------------------- opening

    def _open(self, stop: threading.Event) -> None:
        """Have every server tell; then the session begins."""
        way = self._way()
        places = way.places()
        mode: Mode = "tracking"
        try:
            for place in places:
                self._added(place, stop, self._track)
        except _Refused:
            self._hang_up("tracking is not allowed here")
            mode = "pubsub"
            # In a Cluster what is published at one node is told at all of them.
            self._added(random.choice(places), stop, self._subscribe)  # noqa: S311 - any will do
        ear = self._hearing()
        self._publishes = mode == "pubsub"
        self.mode, self.trouble = mode, None
        self._session = session = ear.begun()
        for line in self._lines:
            self._tell(line, line.early)
        ear.heard(session, self._proven())
        if stop.is_set():
            raise _Lost("closed")
        self._live.set()

    def _way(self) -> Route:
        if self._route is None:
            raise _Lost(self.trouble or "")
        return self._route

    def _added(self, place: tuple[str, int], stop: threading.Event, begin: Any) -> None:
        line = _Line(self._way().connect(place), self._watch())
        with self._lock:
            self._lines.append(line)
        if stop.is_set():
            raise _Lost("closed")
        line.sock.settimeout(self._bound)
        begin(line)
        line.sock.settimeout(0)

    def _watch(self) -> Watch:
        return Watch(self._now(), self._bound)

    def _track(self, line: _Line) -> None:
        way = self._way()
        line.demand("HELLO", "3")
        line.watch = self._watch()
        line.demand("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._prefix)
        line.state = way.state(line.ask(way.question))
        if not way.admits(line.state):
            raise _Lost("the server is not the primary")

    def _subscribe(self, line: _Line) -> None:
        line.watch = self._watch()
        line.demand("SUBSCRIBE", f"{self._prefix}changed")

    # ---------------------------------------------------------------------------------------------------- listening

    def _listen(self, stop: threading.Event) -> None:
        with selectors.DefaultSelector() as selector:
            for line in self._lines:
                selector.register(line.sock, selectors.EVENT_READ, line)
            rounds, look = 0, _now() + self._bound
            while not stop.is_set():
                now = self._now()
                for key, _ in selector.select(min([line.watch.next(now) for line in self._lines])):
                    self._tell(key.data, key.data.receive())
                now = self._now()
                for line in self._lines:
                    if line.watch.is_due(now):
                        rounds += 1
                        self._question(line, rounds)
                    elif line.watch.is_lost(now):
                        raise _Lost("the server does not answer")
                if _now() >= look:
                    if not self._way().remains():
                        raise _Lost("the primary is another")
                    self._hearing()
                    look = _now() + self._bound

    def _question(self, line: _Line, rounds: int) -> None:
        """Ask whether it lives; now and then also whether it is still what it was."""
        line.inquires = line.state is not None and rounds % (len(self._lines) + 1) == 0
        line.watch.asked(self._now())
        line.send(self._way().question if line.inquires else _PING)

    def _tell(self, line: _Line, messages: Sequence[Any]) -> None:
        ear, session = self._hearing(), self._session
        if session is None:
            raise _Lost("closed")
        for message in messages:
            if is_unasked(message):
                keys = changed_keys(message)
                if keys is None or keys:
                    ear.told(session, keys)
            elif line.watch.waits:
                if line.inquires and (state := self._way().state(message)) is not None and state != line.state:
                    raise _Lost("the server is no longer what it was")
                line.watch.answered()
                ear.heard(session, self._proven())

    def _hearing(self) -> Ear:
        ear = self._ear()
        if ear is None:
            raise _Lost("nobody listens")
        return ear

    def _proven(self) -> float:
        return min(line.watch.proven for line in self._lines)
