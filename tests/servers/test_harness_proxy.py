"""Each thing a wire can do to a connection, seen from both of its ends."""

from __future__ import annotations

import socket
import threading
import time
import types

import pytest

from resilient.errors import ConfigurationError, Unavailable
from resilient.testing.servers import TcpProxy


@pytest.fixture
def echo():
    """A server that answers each line with the same line and remembers what it got."""
    server = types.SimpleNamespace(lines=[], resets=0, got=threading.Condition())
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    threads = []

    def serve(connection):
        with connection, connection.makefile("rb") as lines:
            try:
                for line in lines:
                    with server.got:
                        server.lines.append(line)
                        server.got.notify_all()
                    connection.sendall(line)
            except OSError:
                server.resets += 1

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=serve, args=(connection,))
            thread.start()
            threads.append(thread)

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield server
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    accepting.join(5)
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive(), "a proxy left a connection to the server open"


@pytest.fixture
def proxy(echo, tcp_proxy):
    return tcp_proxy(echo.port)


def connect(proxy, timeout=5.0):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout)


def ask(client, line=b"hello\n", timeout=5.0):
    client.settimeout(timeout)
    client.sendall(line)
    return client.recv(1000)


def test_passes_bytes_both_ways(proxy):
    """A healthy proxy is not noticed, also with more bytes than one read takes."""
    with connect(proxy) as client:
        assert ask(client) == b"hello\n"
        long = b"x" * 300_000 + b"\n"
        client.sendall(long)
        with client.makefile("rb") as answer:
            assert answer.read(len(long)) == long


def test_the_end_of_one_side_reaches_the_other(proxy, echo):
    """A half-closed connection still carries the answer, and then its end."""
    with connect(proxy) as client:
        client.sendall(b"last\n")
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answer:
            assert answer.read() == b"last\n"


def test_cut_ends_and_refuses(proxy):
    """A cut wire ends open connections and refuses new ones; restored, the same port serves again."""
    with connect(proxy) as client:
        assert ask(client) == b"hello\n"
        proxy.cut()
        assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
    proxy.restore()
    with connect(proxy) as client:
        assert ask(client) == b"hello\n"


def test_stall_swallows_and_restore_resets(proxy, echo):
    """A stalled wire takes bytes and connections and passes nothing; restored, it resets what lost bytes."""
    with connect(proxy) as old:
        assert ask(old) == b"hello\n"
        proxy.stall()
        with connect(proxy) as new:
            for client in (old, new):
                with pytest.raises(TimeoutError):
                    ask(client, b"lost\n", timeout=0.1)
            proxy.restore()
            for client in (old, new):
                client.settimeout(5)
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
    assert echo.lines == [b"hello\n"]


def test_stall_spares_connections_that_said_nothing(proxy):
    """A connection that was idle during the stall lives on."""
    with connect(proxy) as client:
        for keep in (False, True, False):
            assert ask(client) == b"hello\n"
            proxy.stall(keep=keep)
            proxy.restore()
        assert ask(client) == b"hello\n"


def test_kept_bytes_arrive_late(proxy, echo):
    """With keep=True a request arrives after the recovery, even from a sender that gave up."""
    with connect(proxy) as client:
        assert ask(client) == b"hello\n"
        proxy.stall(keep=True)
        with pytest.raises(TimeoutError):
            ask(client, b"late\n", timeout=0.1)
    assert echo.lines == [b"hello\n"]
    proxy.restore()
    with echo.got:
        assert echo.got.wait_for(lambda: echo.lines == [b"hello\n", b"late\n"], timeout=5)


def test_kept_answers_arrive_late(proxy):
    """With keep=True a client that is still there gets its answer after the recovery, also on a new connection."""
    with connect(proxy) as old:
        assert ask(old) == b"hello\n"
        proxy.stall(keep=True)
        with connect(proxy) as new:
            old.sendall(b"one\n")
            new.sendall(b"two\n")
            proxy.restore()
            assert (old.recv(10), new.recv(10)) == (b"one\n", b"two\n")


def test_answers_are_swallowed(proxy, echo):
    """The server gets the request, and the client never gets the answer."""
    with connect(proxy) as client:
        assert ask(client) == b"hello\n"
        proxy.swallow_answers()
        with pytest.raises(TimeoutError):
            ask(client, b"done\n", timeout=0.1)
    assert echo.lines == [b"hello\n", b"done\n"]


def test_answers_are_swallowed_from_a_request_on(proxy, echo):
    """With to= only the connection that sent these bytes loses answers, from that request on."""
    proxy.swallow_answers(to=b"COMMIT")
    with connect(proxy) as client, connect(proxy) as other:
        assert ask(client, b"INSERT\n") == b"INSERT\n"
        with pytest.raises(TimeoutError):
            ask(client, b"COMMIT\n", timeout=0.1)
        assert ask(other, b"SELECT\n") == b"SELECT\n"
        assert b"COMMIT\n" in echo.lines
        proxy.restore()
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert ask(other) == b"hello\n"


def test_a_goodbye_is_swallowed_too(proxy, echo):
    """A client that hangs up during a stall is not noticed by the server before the recovery; it stays so twice."""
    for _ in range(2):
        with connect(proxy) as client:
            assert ask(client) == b"hello\n"
            proxy.stall()
        assert proxy.connections == 1
        proxy.restore()
        while proxy.connections:
            time.sleep(0.001)


def test_slow_delays_answers_once(proxy, limit):
    """Each answer is late by the given time, not by its multiple; 0 and restore end it."""
    with connect(proxy) as client:
        late = max(0.15, limit(0.15) / 2)
        proxy.slow(late)
        begun = time.monotonic()
        assert ask(client) == b"hello\n"
        assert time.monotonic() - begun >= late
        begun = time.monotonic()
        for _ in range(10):
            client.sendall(b"0123456789\n")
        with client.makefile("rb") as answer:
            assert len(answer.read(110)) == 110
        assert late <= time.monotonic() - begun < 6 * late
        proxy.slow(0)
        begun = time.monotonic()
        assert ask(client) == b"hello\n"
        assert time.monotonic() - begun < late


def test_reset_is_a_reset_and_only_once(proxy, echo):
    """Open connections get RST; new ones are served."""
    with connect(proxy) as client:
        assert ask(client) == b"hello\n"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert ask(client) == b"hello\n"
        assert proxy.accepted == 2


def test_a_dead_server_resets_the_client(tcp_proxy):
    """Behind the proxy nothing listens: the client is not left waiting."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(ConnectionResetError), connect(tcp_proxy(port)) as client:
        client.recv(1)


def test_stop_ends_everything_and_start_listens_again(proxy):
    """Stopped, it has no connections and takes no orders; started again, it has the same port."""
    port = proxy.port
    with connect(proxy) as client:
        assert ask(client) == b"hello\n"
        proxy.stop()
        proxy.stop()
        assert proxy.connections == 0
        with pytest.raises(OSError):
            ask(client)
        with pytest.raises(Unavailable):
            proxy.cut()
    proxy.start()
    with connect(proxy) as client:
        assert ask(client) == b"hello\n"
    assert proxy.port == port


def test_through_rewrites_urls(proxy, echo):
    """A URL of the server becomes one of the proxy; one of another server is refused."""
    assert proxy.through(f"redis://127.0.0.1:{echo.port}/0") == f"redis://127.0.0.1:{proxy.port}/0"
    with pytest.raises(ConfigurationError):
        proxy.through("redis://127.0.0.1:1/0")


def test_no_negative_delay(proxy):
    """An answer cannot come before its question."""
    with pytest.raises(ConfigurationError):
        proxy.slow(-1)


def test_a_proxy_in_front_of_redis(redis_server, tcp_proxy):
    """The whole: a client of a real server behind a proxy loses it and gets it back."""
    import redis

    wire = tcp_proxy(redis_server.port)
    with redis.Redis.from_url(wire.through(redis_server.url), socket_timeout=0.2, socket_connect_timeout=0.2) as client:
        assert client.set("a", 1)
        wire.stall()
        with pytest.raises(redis.exceptions.RedisError):
            client.get("a")
        wire.restore()
        assert client.get("a") == b"1"


def test_unused_proxy_is_closed_by_its_block(echo):
    """A proxy made without the fixture ends with its block."""
    with TcpProxy(echo.port) as wire:
        assert wire.connections == 0
    with pytest.raises(ConnectionRefusedError):
        connect(wire)
