"""Redis: the machine's own server, or one in Python where the machine has none."""

from __future__ import annotations

import socket

from resilient.errors import Unavailable
from resilient.testing.servers.server import HOST, Server, find_program, missing_modules, module_command

__all__ = ["EmbeddedRedis", "RedisServer"]


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
        request = f"*{len(parts)}\r\n" + "".join(f"${len(part.encode())}\r\n{part}\r\n" for part in parts)
        try:
            with socket.create_connection((HOST, self.port), timeout=timeout) as connection:
                connection.sendall(request.encode())
                answer = connection.makefile("rb").readline().decode().strip()
        except OSError as error:
            raise Unavailable(f"{self.name} did not answer {parts[0]}") from error
        if not answer or answer.startswith("-"):
            raise Unavailable(f"{self.name} answered {parts[0]} with {answer!r}")
        return answer

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

    Examples:
        >>> from resilient.testing.servers import RedisServer
        >>> if RedisServer.missing() is None:
        ...     with RedisServer() as redis:
        ...         assert redis.command("PING") == "+PONG"
    """

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        return None if find_program("redis-server", "valkey-server") else "no redis-server or valkey-server"

    def _argv(self) -> list[str]:
        program = find_program("redis-server", "valkey-server") or "redis-server"
        options = {"port": str(self.port), "bind": HOST, "save": "", "appendonly": "no", "databases": "16"}
        return [program, *(part for name, value in options.items() for part in (f"--{name}", value))]


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
