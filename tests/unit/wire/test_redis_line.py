"""One connection, driven directly: who ends its waits, and that they end."""

from __future__ import annotations

import os
import signal
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from resilient.wire.redis import _line
from resilient.wire.redis._line import Line


class Foreign(socket.socket):
    """A socket of a library that waits in its own way, as those that replace Python's do."""

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As of TLS."""
        assert not flags
        return super().recv_into(buffer, nbytes)


@pytest.fixture
def ends():
    """Two ends of one connection; the far one says nothing by itself."""
    near, far = socket.socketpair()
    with near, far:
        yield near, far


@pytest.fixture
def line(ends, monkeypatch):
    """A line whose usual limit is 50 ms, and which reads a reply in pieces of 16 KB at most."""
    hiredis = pytest.importorskip("hiredis")
    monkeypatch.setattr(_line, "ROOM", 16_384)
    monkeypatch.setattr(_line, "new_reader", lambda _: hiredis.Reader(notEnoughData=_line.UNFINISHED))
    return Line(SimpleNamespace(_sock=ends[0], disconnect=ends[0].close), object(), 0.05)


@pytest.mark.parametrize("limit", [0.05, 0.08, 3600.5], ids=["usual", "of-a-deadline", "long"])
def test_a_silent_server_is_waited_for_as_long_as_said(line, ends, limit):
    """By the kernel at the usual limit, by Python at another, and by turns on one connection."""
    if limit > 1:
        ends[1].sendall(b"+OK\r\n")
        assert line.ask(b"PING\r\n", limit) == b"OK"
        limit = 0.05
    began = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        line.ask(b"PING\r\n", limit)
    assert limit * 0.9 <= time.monotonic() - began < limit + 5


def test_what_cannot_be_sent_in_time_is_told(line):
    """A server that reads nothing: the buffers fill, and the write ends too."""
    with pytest.raises(redis.TimeoutError):
        line.ask(b"x" * 50_000_000, 0.05)


def test_the_usual_limit_costs_no_polling(line, ends):
    """The socket blocks, so that Python asks the system for nothing but the write and the read."""
    ends[1].sendall(b"+OK\r\n+OK\r\n+OK\r\n")
    line.ask(b"PING\r\n", 0.05)
    assert ends[0].gettimeout() is None
    line.receive(2, 0.05)


@pytest.mark.parametrize("wire", [b"GET k\r\n", b"MGET" + b" k" * 1000 + b"\r\n"], ids=["short", "long"])
@pytest.mark.parametrize("limit", [0.05, 0.08], ids=["usual", "of-a-deadline"])
def test_a_reply_in_several_pieces_that_are_there_is_whole(line, ends, wire, limit):
    """More than one read takes; at the usual limit the socket goes on blocking."""
    ends[1].sendall(b"$90000\r\n" + b"x" * 90_000 + b"\r\n+OK\r\n")
    assert line.ask(wire, limit) == b"x" * 90_000
    assert (ends[0].gettimeout() is None) is (limit == 0.05)
    assert line.receive(1, limit) == [b"OK"]


@pytest.mark.parametrize("limit", [0.05, 0.08], ids=["usual", "of-a-deadline"])
def test_the_rest_of_a_reply_is_waited_for_as_long_as_said(line, ends, limit):
    """A server that says a part of it, and no more."""
    ends[1].sendall(b"$90000\r\n" + b"x" * 30_000)
    began = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        line.ask(b"GET k\r\n", limit)
    assert limit * 0.9 <= time.monotonic() - began < limit + 5


@pytest.mark.parametrize("limit", [0.0, 7200.0, float("inf")])
def test_limits_that_a_kernel_does_not_count_are_left_to_python(ends, limit):
    """None at all, and those of hours."""
    assert not _line._watched_by_kernel(ends[0], limit)


def test_pieces_from_sockets_of_other_libraries_are_read_without_flags(ends, monkeypatch):
    """TLS, for example, knows none."""
    hiredis = pytest.importorskip("hiredis")
    monkeypatch.setattr(_line, "ROOM", 16_384)
    monkeypatch.setattr(_line, "new_reader", lambda _: hiredis.Reader(notEnoughData=_line.UNFINISHED))
    with Foreign(fileno=os.dup(ends[0].fileno())) as foreign:
        line = Line(SimpleNamespace(_sock=foreign, disconnect=foreign.close), object(), 0.05)
        ends[1].sendall(b"$90000\r\n" + b"x" * 90_000 + b"\r\n")
        assert line.ask(b"GET k\r\n", 0.05) == b"x" * 90_000


def test_sockets_of_other_libraries_are_left_to_them():
    """What waits in a way of its own would wait for ever if it were told to block."""
    with Foreign() as foreign:
        assert not _line._watched_by_kernel(foreign, 0.05)
        assert foreign.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == bytes(16)


def test_a_process_that_is_interrupted_all_the_time_waits_no_longer(ends, monkeypatch):
    """A profiler's timer has the kernel begin its count anew each time, so that it would never end."""
    hiredis = pytest.importorskip("hiredis")
    monkeypatch.setattr(_line, "new_reader", lambda _: hiredis.Reader(notEnoughData=_line.UNFINISHED))
    times = []

    def interrupt(*_):
        times.append(1)
        if len(times) >= 1000:  # the test fails then, instead of waiting for ever
            signal.setitimer(signal.ITIMER_REAL, 0)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        line = Line(SimpleNamespace(_sock=ends[0], disconnect=ends[0].close), object(), 0.05)
        with pytest.raises(redis.TimeoutError):
            line.ask(b"PING\r\n", 0.05)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(times) < 1000
