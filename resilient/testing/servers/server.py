"""What all servers share: a free port on loopback, and waiting until it answers."""

from __future__ import annotations

import random
import shutil
import socket
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Self

from resilient.clock import SYSTEM
from resilient.errors import ConfigurationError, Unavailable
from resilient.testing.servers.process import Process

__all__ = [
    "Server",
    "find_program",
    "free_port",
    "is_open",
    "missing_modules",
    "module_command",
    "output_tail",
    "wait_until",
]

HOST = "127.0.0.1"
_CHANCE = random.SystemRandom()  # not the one that tests seed and Hypothesis watches: servers start beside other tests


class Server(Process):
    """A process that listens on one port of 127.0.0.1.

    Args:
        port: The port to listen on; by default a free one. It stays the same over `restart`.
        start_timeout: Seconds within which it must answer after a start.
    """

    # A server's data are thrown away with it, so that nothing is gained by asking it to end in good order.
    stop_grace: ClassVar[float] = 0.0

    def __init__(self, *, port: int | None = None, start_timeout: float = 30.0, name: str | None = None) -> None:
        super().__init__(name=name or type(self).__name__)
        self._given_port = port
        self._port = port
        self.start_timeout = start_timeout

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine, in a few words; ``None`` where it can."""
        return None

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://{HOST}:{self.port}"

    def _probe(self) -> object:
        """Ask it something that only a working server answers; raise where it does not."""
        raise NotImplementedError

    def start(self) -> Self:
        """Start it, and return when it answers. Does nothing where it runs.

        Raises:
            ConfigurationError: This machine lacks what it needs; see `missing`.
            Unavailable: It ended before it answered, or did not answer in time; its last output is in the message.
        """
        reason = self.missing()
        if reason is not None:
            raise ConfigurationError(f"{type(self).__name__} cannot run here: {reason}")
        fresh = self.state in {"new", "stopped"}
        try:
            return super().start()
        except Unavailable:
            # Someone else may have taken the port between the search and the start: once more with another one.
            if not fresh or self._given_port is not None or not is_open(self.port):
                raise
            self._port = None
            return super().start()

    def _await_ready(self) -> None:
        wait_until(self._probe, timeout=self.start_timeout, process=self)


def wait_until(probe: Callable[[], object], *, timeout: float, process: Process) -> None:
    """Call the probe until it no longer raises.

    Raises:
        Unavailable: The process ended, or the time ran out.
    """
    until = SYSTEM.monotonic() + timeout
    pause = 0.005
    while True:
        try:
            probe()
            return
        except Exception as error:  # any refusal means: not ready yet
            if process.state not in {"running", "frozen"}:
                raise Unavailable(f"{process.name} ended before it answered{output_tail(process)}") from error
            if SYSTEM.monotonic() >= until:
                raise Unavailable(
                    f"{process.name} did not answer within {timeout:g} s{output_tail(process)}"
                ) from error
        SYSTEM.sleep(pause)
        pause = min(0.05, pause * 1.5)


def output_tail(process: Process, lines: int = 12) -> str:
    """The last lines a process printed, ready to follow a message."""
    tail = process.output().splitlines()[-lines:]
    return ":\n" + "\n".join(tail) if tail else " and printed nothing"


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens.

    It lies below the range from which the system takes the ports of outgoing connections: such a connection cannot
    sit on it while its server is down, and a client cannot meet itself there.
    """
    low, high = 15_000, min(32_000, _ephemeral_from())
    for _ in range(200):
        port = _CHANCE.randrange(low, high) if high > low + 1000 else 0
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
            return int(candidate.getsockname()[1])
    raise Unavailable("no free port was found on 127.0.0.1")


def _ephemeral_from() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 49_152  # what systems other than Linux use


def is_open(port: int) -> bool:
    """Whether something listens on that port of 127.0.0.1."""
    with socket.socket() as candidate:
        candidate.settimeout(0.2)
        return candidate.connect_ex((HOST, port)) == 0


def find_program(*names: str) -> str | None:
    """The path of the first program found, on the PATH or where distributions put servers."""
    for name in names:
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
        if found:
            return found
    return None


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this library with this interpreter, wherever the library was imported from."""
    root = str(Path(__file__).parents[3])
    run = f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", f"import runpy, sys; sys.path.append({root!r}); {run}", *arguments]


def missing_modules(names: Iterable[str], extra: str) -> str | None:
    """A sentence that names the modules which cannot be found, and the extra that brings them."""
    absent = [name for name in names if find_spec(name) is None]
    return f"no {' and '.join(absent)} (extra {extra!r})" if absent else None
