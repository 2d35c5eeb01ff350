"""One PostgreSQL server on loopback, with its data in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from resilient.clock import SYSTEM
from resilient.errors import Unavailable
from resilient.testing.servers._template import Template
from resilient.testing.servers.process import guard
from resilient.testing.servers.server import HOST, Server, find_program, is_open, missing_modules

__all__ = ["PostgresServer"]

_ACCOUNTS = """
CREATE ROLE app LOGIN PASSWORD 'app';
CREATE DATABASE app OWNER app;
"""

# Small and quick. What is committed survives kill -9, since the system holds it; it would not survive a power cut.
_OPTIONS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "16MB",
    "max_wal_size": "64MB",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "jit": "off",
    "lc_messages": "C",
}


def _program(name: str) -> str | None:
    """A program of PostgreSQL: on the PATH, or where Debian keeps them, the newest version first."""
    found = find_program(name)
    if found:
        found = os.path.realpath(found)  # its other programs and its files are looked for beside it
        if name != "postgres" or (Path(found).parent / "initdb").exists():
            return found
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: each.parent.name.zfill(4))
    return next((str(each / name) for each in reversed(folders) if (each / name).exists()), None)


def _account() -> pwd.struct_passwd | None:
    """Who runs the server in place of root, which it refuses to serve; ``None`` where this process is not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def _unprivileged(command: list[str]) -> list[str]:
    account = _account()
    if account is None:
        return command
    setpriv = find_program("setpriv") or "setpriv"
    return [setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", *command]


def _give(folder: Path) -> None:
    """Let the server's user own a folder with all in it, and reach it."""
    account = _account()
    if account is None:
        return
    folder.parent.chmod(0o711)
    for each in (folder, *folder.rglob("*")):
        os.chown(each, account.pw_uid, account.pw_gid)


def _install(folder: Path) -> None:
    # Made in a folder of its own: the server's user may have no way into this one.
    with tempfile.TemporaryDirectory(prefix="resilient-initdb-") as made:
        _initialise(Path(made) / "data")
        shutil.copytree(Path(made) / "data", folder)


def _initialise(folder: Path) -> None:
    password = folder.with_name("password")
    password.write_text("admin\n")
    folder.mkdir(mode=0o700)
    _give(folder)
    password.chmod(0o644)
    _run([
        _program("initdb") or "initdb", f"--pgdata={folder}", "--username=admin", f"--pwfile={password}",
        "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
    ], None)  # fmt: skip
    _run([_program("postgres") or "postgres", "--single", "-F", "-D", str(folder), "postgres"], _ACCOUNTS)


def _run(command: list[str], text: str | None) -> None:
    done = subprocess.run(
        _unprivileged(command), input=text or "", capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )
    if done.returncode != 0 or "ERROR" in done.stderr:
        raise Unavailable(f"{Path(command[0]).name} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


_template = Template("postgres", _install)


class PostgresServer(Server):
    """A PostgreSQL with the database ``app`` and two users.

    ``app`` (password ``app``) owns the database ``app``. ``admin`` (password ``admin``) may do everything. What was
    committed survives `kill` and `restart`. PostgreSQL refuses to run as root: started by root, it runs as the user
    ``postgres``, or else as ``nobody``.

    Args:
        port: The port to listen on; by default a free one.
        template: A folder in which the installed data are kept, shared by the processes of one test run; by default
            they are made once per process.
        start_timeout: Seconds within which it must answer after a start.

    Examples:
        >>> from resilient.testing.servers import PostgresServer
        >>> if PostgresServer.missing() is None:
        ...     with PostgresServer() as server:
        ...         assert server.query("SELECT 1 + 1") == [(2,)]
    """

    grace: ClassVar[float] = 10.0

    def __init__(
        self,
        *,
        port: int | None = None,
        template: Path | None = None,
        start_timeout: float = 30.0,
        name: str | None = None,
    ) -> None:
        super().__init__(port=port, start_timeout=start_timeout, name=name)
        self._template = template
        self._killed: set[int] = set()

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        if not _program("postgres") or not _program("initdb"):
            return "no postgres or initdb"
        if os.geteuid() == 0 and (_account() is None or not find_program("setpriv")):
            return "PostgreSQL refuses to run as root, and there is no setpriv or no other user"
        return missing_modules(["psycopg"], "postgres")

    @property
    def url(self) -> str:
        """Where SQLAlchemy finds it, as the user ``app``."""
        return f"postgresql+psycopg://app:app@{HOST}:{self.port}/app"

    @property
    def admin_url(self) -> str:
        """The same as the user ``admin``, who may do everything."""
        return f"postgresql+psycopg://admin:admin@{HOST}:{self.port}/app"

    def query(self, sql: str, *parameters: object, timeout: float = 10.0) -> list[tuple[Any, ...]]:
        """Run one statement as ``admin`` on a connection of its own, and return its rows.

        Raises:
            Unavailable: The server was not reached, or did not answer within that many seconds.
            psycopg.Error: It refused the statement.
        """
        import psycopg

        from resilient.wire._postgres import bounded_connection

        login = {"host": HOST, "port": self.port, "user": "admin", "password": "admin", "dbname": "app"}
        try:
            connection = bounded_connection(timeout, timeout).connect(autocommit=True, sslmode="disable", **login)
            with contextlib.closing(connection):
                cursor = connection.execute(sql, parameters or None)
                return [] if cursor.description is None else list(cursor.fetchall())
        except psycopg.OperationalError as error:
            if error.sqlstate is None:
                raise Unavailable(f"{self.name} did not answer") from error
            raise

    def heal(self) -> None:
        """Make it run, answer, take writes and have no tables, whatever was done to it."""
        self.thaw()
        self.start()
        self.end_connections()
        self.query("DROP OWNED BY app CASCADE")
        self.query("DROP SCHEMA IF EXISTS public CASCADE")
        self.query("CREATE SCHEMA public AUTHORIZATION app")
        self.query("GRANT ALL ON DATABASE app TO app")

    def end_connections(self) -> None:
        """End every connection of the user ``app``."""
        self.query("SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = 'app'")

    # -------------------------------------------------------------------------------------------------------- inside

    def _prepare(self, directory: Path) -> None:
        data = directory / "data"
        shutil.copytree(_template.get(self._template), data)
        data.chmod(0o700)  # it accepts no other
        _give(data)

    def _argv(self) -> list[str]:
        options = {**_OPTIONS, "port": str(self.port)}
        program = _program("postgres") or "postgres"
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return _unprivileged([program, "-D", str(self.directory / "data"), *settings])

    def _probe(self) -> object:
        if not is_open(self.port):
            raise ConnectionRefusedError
        return self.query("SELECT 1", timeout=1.0)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the server and its processes, each of which has left the group for one of its own."""
        if self._popen is None or self._owner != os.getpid():
            return
        if number == signal.SIGTERM:
            super()._signal(signal.SIGINT)  # the polite end that does not wait until every client has left
            return
        if number == signal.SIGKILL:
            super()._signal(signal.SIGSTOP)  # it starts no more of them while they are looked for
        else:
            super()._signal(number)
        children = _children(self._popen.pid)
        if number == signal.SIGKILL:
            self._killed = set(children)
        for pid in children:
            # They end with the server by themselves, but not while they are frozen: then the guard has to know of them.
            (guard.add if number == signal.SIGSTOP else guard.drop)("group", pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        if number == signal.SIGKILL:
            super()._signal(number)

    def _reap(self) -> None:
        super()._reap()
        for _ in range(400):  # its processes end a moment after it; until then they hold its memory and its folder
            if not any(pid in self._killed and state not in "ZX" for pid, state, _ in _processes()):
                break
            SYSTEM.sleep(0.005)
        self._killed = set()

    def _wait_stopped(self) -> None:
        super()._wait_stopped()
        for _ in range(200):
            if self._popen is None or all(state in "TZX" for state in _children(self._popen.pid).values()):
                return
            self._signal(signal.SIGSTOP)  # also one that was being started
            SYSTEM.sleep(0.002)


def _children(parent: int) -> dict[int, str]:
    """The children of a process and their states."""
    return {pid: state for pid, state, above in _processes() if above == parent}


def _processes() -> Iterator[tuple[int, str, int]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile
            state, above = stat.read_text().rpartition(")")[2].split()[:2]
            yield int(stat.parent.name), state, int(above)
