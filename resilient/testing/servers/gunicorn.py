"""A web application under gunicorn, as in production: a master, workers, threads."""

from __future__ import annotations

import http.client
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from resilient.testing.servers.server import HOST, Server, missing_modules, module_command

__all__ = ["Gunicorn"]


class Gunicorn(Server):
    """A WSGI application served by gunicorn with threads.

    `kill` and `freeze` reach the master and all its workers.

    Args:
        app: Where the application is, written ``module:attr`` (or ``module:factory()``).
        env: Variables added to its environment; ``None`` as a value removes one.
        cwd: The folder it runs in, from which ``app`` can be imported; by default the current one.
        workers: How many processes answer.
        threads: How many requests each of them answers at a time.
        timeout: Seconds after which the master ends a worker that no longer reports.
        ready: The path that is asked to see whether it answers; any answer will do.
        arguments: Further arguments for gunicorn.
        port: The port to listen on; by default a free one.
        start_timeout: Seconds within which it must answer after a start.

    Examples:
        >>> from resilient.testing.servers import Gunicorn
        >>> if Gunicorn.missing() is None:
        ...     with Gunicorn("wsgiref.simple_server:demo_app") as server:
        ...         assert server.get("/")[0] == 200
    """

    stop_grace: ClassVar[float] = 5.0  # so that what the application does at its end is done

    def __init__(
        self,
        app: str,
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        workers: int = 1,
        threads: int = 4,
        timeout: float = 30.0,
        ready: str = "/",
        arguments: Sequence[str] = (),
        port: int | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        super().__init__(port=port, start_timeout=start_timeout, name=f"gunicorn {app}")
        self._app = app
        self._env = dict(env or {})
        self._cwd = Path.cwd() if cwd is None else cwd
        self._options = {
            "workers": workers,
            "threads": threads,
            "timeout": int(timeout),
            "graceful-timeout": 4,
            "worker-class": "gthread",
            "keep-alive": 5,
        }
        self._ready = ready
        self._arguments = list(arguments)

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        return "no gunicorn (install it)" if missing_modules(["gunicorn"], "") else None

    def get(self, path: str = "/", *, timeout: float = 5.0) -> tuple[int, bytes]:
        """Ask for a path on a connection of its own.

        Returns:
            The status and the body.

        Raises:
            OSError: It was not reached, or did not answer within that many seconds.
        """
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _prepare(self, directory: Path) -> None:
        # Newer versions open a control socket in the home folder, one for all; older ones ignore what they do not know.
        (directory / "gunicorn.conf.py").write_text("control_socket_disable = True\n")

    def _argv(self) -> list[str]:
        options = [part for name, value in self._options.items() for part in (f"--{name}", str(value))]
        # Its heartbeat files go to its own folder: /dev/shm is not everywhere, and nothing may be left behind.
        options += ["--bind", f"{HOST}:{self.port}", "--worker-tmp-dir", str(self.directory)]
        options += ["--config", str(self.directory / "gunicorn.conf.py")]
        return [*module_command("gunicorn"), *options, *self._arguments, self._app]

    def _probe(self) -> object:
        return self.get(self._ready, timeout=2.0)
