"""A load balancer in front of some servers, as in production: HAProxy, which asks each for its health."""

from __future__ import annotations

import csv
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from resilient.clock import SYSTEM
from resilient.errors import DeadlineExceeded, Unavailable
from resilient.testing.servers.server import HOST, Server, find_program

__all__ = ["HAProxy"]


class HAProxy(Server):
    """HAProxy on loopback, spreading requests over servers that pass its health checks.

    It asks each server every ``inter`` seconds, takes one out after ``fall`` failed answers in a row and in after
    ``rise`` good ones. With no server left it answers 503 itself.

    Args:
        servers: The ports of the servers on this machine, by name.
        check: The path that is asked; a server is well if it answers 200.
        inter: Seconds between two checks.
        fall: Failed checks in a row after which a server is out.
        rise: Good checks in a row after which it is in.
        check_timeout: Seconds after which a check that is not answered has failed.
        retries: How often a request whose connection was refused is sent again, to another server.
        port: The port to listen on; by default a free one.
        start_timeout: Seconds within which it must answer after a start.

    Examples:
        >>> from resilient.testing.servers import Gunicorn, HAProxy
        >>> if HAProxy.missing() is None and Gunicorn.missing() is None:
        ...     with (
        ...         Gunicorn("wsgiref.simple_server:demo_app") as web,
        ...         HAProxy({"a": web.port}, check="/") as balancer,
        ...     ):
        ...         assert balancer.wait_state("a", "UP", timeout=5) < 5
    """

    stop_grace: ClassVar[float] = 0.0

    def __init__(
        self,
        servers: Mapping[str, int],
        *,
        check: str = "/readyz",
        inter: float = 0.5,
        fall: int = 2,
        rise: int = 2,
        check_timeout: float = 2.0,
        retries: int = 0,
        port: int | None = None,
        start_timeout: float = 10.0,
    ) -> None:
        super().__init__(port=port, start_timeout=start_timeout)
        self.servers = dict(servers)
        self.check, self.inter, self.fall, self.rise, self.retries = check, inter, fall, rise, retries
        self.check_timeout = check_timeout

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        return None if find_program("haproxy") else "no haproxy (install it)"

    # ----------------------------------------------------------------------------------------- what it thinks of them

    def states(self) -> dict[str, str]:
        """What it thinks of each server: ``UP``, ``DOWN``, or ``UP 1/2`` and ``DOWN 1/2`` on the way to the other."""
        rows = csv.DictReader(self.command("show stat").lstrip("# ").splitlines())
        return {row["svname"]: row["status"] for row in rows if row["svname"] in self.servers}

    def wait_state(self, name: str, state: str, timeout: float) -> float:
        """Wait until a server is ``UP`` or ``DOWN``.

        Returns:
            The seconds that were waited.

        Raises:
            DeadlineExceeded: It is not, after that many seconds.
        """
        began = SYSTEM.monotonic()
        while True:
            found = self.states().get(name, "")
            waited = SYSTEM.monotonic() - began
            if found.split(" ")[0] == state and "/" not in found:
                return waited
            if waited > timeout:
                raise DeadlineExceeded(f"{name} is {found or 'not there'} and not {state} after {timeout:g} s")
            SYSTEM.sleep(0.01)

    def command(self, line: str) -> str:
        """Say something to its administration socket, such as ``show stat``. Raises Unavailable."""
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(2.0)
                link.connect(str(self.directory / "admin.sock"))
                link.sendall(f"{line}\n".encode())
                parts = []
                while part := link.recv(65_536):
                    parts.append(part)
        except OSError as error:
            raise Unavailable(f"{self.name} did not answer {line!r}") from error
        return b"".join(parts).decode()

    # ------------------------------------------------------------------------------------------------------- inside

    def _prepare(self, directory: Path) -> None:
        (directory / "haproxy.cfg").write_text(self._config(directory))

    def _config(self, directory: Path) -> str:
        each = f"check inter {round(self.inter * 1000)}ms fall {self.fall} rise {self.rise}"
        lines = [
            "global",
            f"  stats socket {directory}/admin.sock mode 600 level admin",
            "  maxconn 2000",
            "defaults",
            "  mode http",
            "  timeout connect 2s",
            "  timeout client 10s",
            "  timeout server 10s",
            f"  timeout check {round(self.check_timeout * 1000)}ms",
            f"  retries {self.retries}",
            *(["  option redispatch 1"] if self.retries else []),
            "frontend in",
            f"  bind {HOST}:{self.port}",
            "  default_backend out",
            "backend out",
            "  balance roundrobin",
            f"  option httpchk GET {self.check}",
            "  http-check expect status 200",
            *(f"  server {name} {HOST}:{port} {each}" for name, port in self.servers.items()),
        ]
        return "\n".join(lines) + "\n"

    def _argv(self) -> list[str]:
        # In the foreground and without a master process: what is started here is what is stopped here.
        return [find_program("haproxy") or "haproxy", "-db", "-f", str(self.directory / "haproxy.cfg")]

    def _probe(self) -> object:
        return self.command("show info")
