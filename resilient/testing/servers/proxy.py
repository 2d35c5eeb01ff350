"""A wire that can be cut: a TCP proxy on loopback, between a client and a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, Self

from resilient.errors import ConfigurationError, Unavailable
from resilient.runtime import start_thread
from resilient.testing.servers.server import HOST, free_port

__all__ = ["TcpProxy"]

Mode = Literal["pass", "cut", "swallow", "hold", "swallow_answers"]


@dataclass
class _Wire:
    """What the wire does now; read by each connection, changed by the handles."""

    mode: Mode = "pass"
    delay: float = 0.0
    trigger: bytes = b""

    def passes_request(self) -> bool:
        return self.mode != "swallow"

    def passes_answer(self, *, triggered: bool) -> bool:
        return self.mode != "swallow" and not (self.mode == "swallow_answers" and triggered)


_RESET = struct.pack("ii", 1, 0)  # closing a socket that lingers for 0 s sends RST


class TcpProxy:
    """Passes bytes between its own port and a server's, until told to do something worse.

    It listens from the moment it is made; it runs on a thread of its own in this process, and each handle returns when
    it has taken effect. The modes replace each other; `restore` ends them.

    Args:
        target: The server's port on 127.0.0.1.

    Examples:
        >>> from resilient.testing.servers import RedisServer, TcpProxy
        >>> if RedisServer.missing() is None:
        ...     with RedisServer() as redis, TcpProxy(redis.port) as proxy:
        ...         url = proxy.through(redis.url)
        ...         proxy.stall()    # clients wait in vain
        ...         proxy.restore()
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.accepted = 0
        """How many connections it has taken so far."""
        self._wire = _Wire()
        self._links: set[_Link] = set()
        self._listener: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._owner = os.getpid()
        self.port = 0
        """The port that clients connect to."""
        self.start()

    def start(self) -> Self:
        """Listen again after `stop`, on the same port. Does nothing where it listens."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = start_thread(self._loop.run_forever, name="tcp-proxy")
            try:
                self._call(self._listen)
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """End all connections and listen no more. May be repeated."""
        loop, self._loop = self._loop, None
        if loop is None or self._owner != os.getpid():
            return
        asyncio.run_coroutine_threadsafe(self._shut(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join()
        loop.close()

    close = stop

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<TcpProxy {self.port} to {self.target}, {self._wire.mode}>"

    # ------------------------------------------------------------------------------------------------------- handles

    @property
    def url(self) -> str:
        """Where clients of an HTTP server find it."""
        return f"http://{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    def through(self, url: str) -> str:
        """The same URL, by way of this proxy.

        Raises:
            ConfigurationError: The URL does not name the port behind this proxy.
        """
        if f":{self.target}" not in url:
            raise ConfigurationError(f"the URL does not name port {self.target}, which is behind this proxy")
        return url.replace(f":{self.target}", f":{self.port}", 1)

    def cut(self) -> None:
        """Close all connections and refuse new ones, as when the server has died."""
        self._call(self._cut)

    def stall(self, *, keep: bool = False) -> None:
        """Take connections and bytes and pass nothing on, as when the host hangs or the network drops all packets.

        Args:
            keep: Whether `restore` delivers what was sent meanwhile, as a network does that recovers: a request can
                then take effect long after its sender gave up. By default it is lost, and the connections concerned
                are reset.
        """
        self._call(self._enter, "hold" if keep else "swallow")

    def swallow_answers(self, to: bytes = b"") -> None:
        """Pass requests on and lose their answers: they take effect, and nobody learns of it.

        Args:
            to: Only from the first request on that contains these bytes, such as ``b"COMMIT"``; each connection by
                itself. By default at once.
        """
        self._wire.trigger = to
        self._call(self._enter, "swallow_answers")

    def slow(self, seconds: float) -> None:
        """Deliver every answer that many seconds late, in order; 0 ends it."""
        if seconds < 0:
            raise ConfigurationError(f"an answer cannot be late by {seconds!r} s")
        self._wire.delay = seconds

    def reset(self) -> None:
        """Reset all open connections (RST), once. New ones are served as before."""
        self._call(self._reset_links)

    def restore(self) -> None:
        """Pass everything again. Connections that lost bytes are reset, since their streams have holes."""
        self._wire.delay = 0.0
        self._call(self._restore)

    # ------------------------------------------------------------------------------------------ inside, on the thread

    def _call(self, step: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        if self._loop is None or self._owner != os.getpid():
            raise Unavailable("the proxy is stopped")
        asyncio.run_coroutine_threadsafe(step(*arguments), self._loop).result(10)

    async def _listen(self) -> None:
        if self._listener is not None:
            return
        for attempt in range(20):
            port = self.port or free_port()
            try:
                self._listener = await asyncio.start_server(self._serve, HOST, port)
            except OSError:
                if self.port or attempt == 19:
                    raise
            else:
                self.port = port
                return

    async def _unlisten(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _enter(self, mode: Mode) -> None:
        if self._wire.mode == "cut":
            await self._listen()
        self._wire.mode = mode

    async def _cut(self) -> None:
        self._wire.mode = "cut"
        await self._unlisten()
        for link in list(self._links):
            link.end()
        await asyncio.sleep(0)

    async def _reset_links(self, only_holed: bool = False) -> None:  # noqa: FBT001, FBT002 - private
        for link in list(self._links):
            if link.holed or not only_holed:
                link.end(reset=True)
        await asyncio.sleep(0)

    async def _restore(self) -> None:
        self._wire.mode = "pass"
        await self._reset_links(only_holed=True)
        await self._listen()
        for link in self._links:
            link.flowing.set()

    async def _shut(self) -> None:
        await self._unlisten()
        for link in list(self._links):
            link.end(reset=True)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close their sockets in the next turn

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(self._wire, reader, writer)
        self._links.add(link)
        try:
            await link.run(self.target)
        except asyncio.CancelledError:
            pass  # the proxy is being stopped; asyncio would report a cancelled handler as an error
        except OSError:
            link.end(reset=True)  # the server is not there, or one side is gone
        finally:
            self._links.discard(link)
            link.end()


class _Link:
    """One client's connection and its other half."""

    def __init__(self, wire: _Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._wire = wire
        self._reader = reader
        self._writers = [writer]
        self._triggered = False
        self._ended = False
        self.holed = False
        self.flowing = asyncio.Event()

    async def run(self, target: int) -> None:
        """Connect to the server and pass bytes both ways until both sides have ended."""
        if self._wire.mode in {"swallow", "hold"}:
            await self._silence()
        reader, writer = await asyncio.open_connection(HOST, target)
        self._writers.append(writer)
        both = [self._pump(self._reader, writer, self._asked), self._pump(reader, self._writers[0], self._answered)]
        tasks = [asyncio.ensure_future(pump) for pump in both]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _silence(self) -> None:
        """Nothing passes any more: wait until it may; where bytes get lost, `restore` ends this connection instead."""
        self.holed = self.holed or self._wire.mode != "hold"
        self.flowing.clear()
        await self.flowing.wait()
        if self._ended:
            raise ConnectionResetError  # nothing that is still in a buffer may arrive any more

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[bytes], bool]
    ) -> None:
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivery = asyncio.ensure_future(self._deliver(late, writer))
        loop = asyncio.get_running_loop()
        answers = writer is self._writers[0]
        try:
            while True:
                data = await reader.read(65_536)
                if self._wire.mode == "hold":
                    await self._silence()
                if not passes(data):
                    self.holed = True
                    if not data:
                        await self._silence()  # the end is lost like anything else
                    continue
                late.put_nowait((loop.time() + (self._wire.delay if answers else 0.0), data))
                if not data:
                    break
            await delivery
        finally:
            delivery.cancel()

    async def _deliver(self, late: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await late.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    def _asked(self, data: bytes) -> bool:
        if self._wire.mode == "swallow_answers" and self._wire.trigger in data:
            self._triggered = True
        return self._wire.passes_request()

    def _answered(self, _data: bytes) -> bool:
        return self._wire.passes_answer(triggered=self._triggered or not self._wire.trigger)

    def end(self, *, reset: bool = False) -> None:
        """Close both halves, or reset them."""
        self._ended = True
        self.flowing.set()  # wakes what waits in silence, to find that it is over
        for writer in self._writers:
            if reset and not writer.transport.is_closing():
                with contextlib.suppress(OSError):
                    plain = writer.get_extra_info("socket")
                    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            else:
                writer.close()
