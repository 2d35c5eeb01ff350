"""One MariaDB server on loopback, with its data in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from resilient.clock import SYSTEM
from resilient.errors import Unavailable
from resilient.testing.servers._template import Template
from resilient.testing.servers.server import HOST, Server, find_program, is_open, missing_modules

__all__ = ["MariaDbServer"]

_ACCOUNTS = """
FLUSH PRIVILEGES;
CREATE DATABASE app CHARACTER SET utf8mb4;
CREATE USER admin@'%' IDENTIFIED BY 'admin';
GRANT ALL PRIVILEGES ON *.* TO admin@'%' WITH GRANT OPTION;
CREATE USER app@'%' IDENTIFIED BY 'app';
GRANT ALL PRIVILEGES ON app.* TO app@'%';
GRANT ALL PRIVILEGES ON `app\\_%`.* TO app@'%';
"""

# Small and quick. What is committed survives kill -9, since the system holds it; it would not survive a power cut.
_OPTIONS = {
    "bind-address": HOST,
    "skip-name-resolve": "1",
    "character-set-server": "utf8mb4",
    "performance-schema": "0",
    "max-connections": "300",
    "table-open-cache": "200",
    "key-buffer-size": "64K",
    "aria-pagecache-buffer-size": "1M",
    "innodb-buffer-pool-size": "16M",
    "innodb-log-file-size": "4M",
    "innodb-log-buffer-size": "1M",
    "innodb-flush-log-at-trx-commit": "2",
    "innodb-doublewrite": "0",
    "innodb-use-native-aio": "0",
    "innodb-fast-shutdown": "2",
    "innodb-lock-wait-timeout": "5",
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "sync-binlog": "0",
    "log-slave-updates": "1",
    "relay-log": "relay",
    "gtid-strict-mode": "1",
    "slave-net-timeout": "10",
}


def _install(folder: Path) -> None:
    accounts = folder.with_suffix(".sql")
    accounts.write_text(_ACCOUNTS)
    command = [
        find_program("mariadb-install-db", "mysql_install_db") or "mariadb-install-db",
        "--no-defaults",
        f"--datadir={folder}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--skip-name-resolve",
        f"--extra-file={accounts}",
        f"--innodb-log-file-size={_OPTIONS['innodb-log-file-size']}",
        *(["--user=root"] if os.geteuid() == 0 else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder.parent)
    if done.returncode != 0 or not (folder / "app").is_dir():
        said = f"{done.stdout}\n{done.stderr}"
        errors = [line for line in said.splitlines() if "ERROR" in line]  # the rest is advice on how to report a bug
        raise Unavailable("mariadb-install-db failed:\n" + ("\n".join(errors[:5]) or said[-2000:]))


_template = Template("mariadb", _install)


class MariaDbServer(Server):
    """A MariaDB with the database ``app`` and two users.

    ``app`` (password ``app``) owns ``app`` and every database whose name begins with ``app_``; it lacks SUPER and
    READ ONLY ADMIN, so that ``read_only`` binds it. ``admin`` (password ``admin``) may do everything.
    What was committed survives `kill` and `restart`.

    Args:
        port: The port to listen on; by default a free one.
        server_id: Its number in a group of replicating servers.
        template: A folder in which the installed data are kept, shared by the processes of one test run; by default
            they are made once per process.
        start_timeout: Seconds within which it must answer after a start.

    Examples:
        >>> from resilient.testing.servers import MariaDbServer
        >>> if MariaDbServer.missing() is None:
        ...     with MariaDbServer() as server:
        ...         assert server.query("SELECT 1 + 1") == [(2,)]
    """

    grace: ClassVar[float] = 10.0

    def __init__(
        self,
        *,
        port: int | None = None,
        server_id: int = 1,
        template: Path | None = None,
        start_timeout: float = 30.0,
        name: str | None = None,
    ) -> None:
        super().__init__(port=port, start_timeout=start_timeout, name=name)
        self.server_id = server_id
        self.read_only = False
        self._template = template

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        if not find_program("mariadbd", "mysqld") or not find_program("mariadb-install-db", "mysql_install_db"):
            return "no mariadbd or mariadb-install-db"
        return missing_modules(["pymysql"], "mysql")

    @property
    def url(self) -> str:
        """Where SQLAlchemy finds it, as the user ``app``."""
        return f"mysql+pymysql://app:app@{HOST}:{self.port}/app"

    @property
    def admin_url(self) -> str:
        """The same as the user ``admin``, who may do everything."""
        return f"mysql+pymysql://admin:admin@{HOST}:{self.port}/app"

    # ------------------------------------------------------------------------------------------------------- queries

    def query(self, sql: str, *parameters: object, timeout: float = 10.0) -> list[tuple[Any, ...]]:
        """Run one statement as ``admin`` on a connection of its own, and return its rows.

        Raises:
            Unavailable: The server was not reached, or did not answer within that many seconds.
            pymysql.err.MySQLError: It refused the statement.
        """
        with self.connection(timeout=timeout) as connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return list(cursor.fetchall())

    def row(self, sql: str) -> dict[str, Any]:
        """The first row of an answer, by the names of its columns; empty where there is none."""
        with self.connection() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone()
            return {} if row is None else dict(zip((column[0] for column in cursor.description), row, strict=True))

    @contextlib.contextmanager
    def connection(self, *, timeout: float = 10.0) -> Iterator[Any]:
        """A PyMySQL connection as ``admin``, autocommitting and bounded in each call; closed at the end.

        Raises:
            Unavailable: The server was not reached, or a call on the connection lost it.
        """
        import pymysql

        connection: Any = None
        try:
            connection = pymysql.connect(
                host=HOST,
                port=self.port,
                user="admin",
                password="admin",  # noqa: S106 - a server that lives for one test run, on loopback
                autocommit=True,
                ssl_disabled=True,  # else PyMySQL loads all certificates of the system for each connection: 35 ms
                connect_timeout=max(1, int(timeout)),
                read_timeout=timeout,
                write_timeout=timeout,
            )
            yield connection
        except pymysql.err.OperationalError as error:
            if error.args[0] in {2002, 2003, 2006, 2013}:
                raise Unavailable(f"{self.name} did not answer") from error
            raise
        finally:
            if connection is not None and connection.open:
                with contextlib.suppress(Exception):  # the goodbye to a dead server
                    connection.close()

    def drop_all(self) -> None:
        """Empty ``app``, drop every database named ``app_…``, and end the open transactions that are in the way."""
        import pymysql

        with self.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SET SESSION lock_wait_timeout = 1, foreign_key_checks = 0")
            for statement in _drops(cursor):
                try:
                    cursor.execute(statement)
                except pymysql.err.OperationalError as error:
                    if error.args[0] != 1205:  # somebody still holds the table
                        raise
                    self.end_connections()
                    cursor.execute(statement)

    def heal(self) -> None:
        """Make it run, answer, take writes and have no tables, whatever was done to it."""
        self.thaw()
        self.start()
        self.read_only = False
        self.query("SET GLOBAL read_only = 0")
        self.drop_all()

    def end_connections(self) -> None:
        """End every connection of the user ``app``."""
        self.query("KILL HARD USER app")

    # -------------------------------------------------------------------------------------------------------- inside

    def _prepare(self, directory: Path) -> None:
        shutil.copytree(_template.get(self._template), directory / "data")

    def _argv(self) -> list[str]:
        options = {
            **_OPTIONS,
            "datadir": str(self.directory / "data"),
            "socket": str(self.directory / "s"),
            "pid-file": str(self.directory / "pid"),
            "tmpdir": str(self.directory),
            "port": str(self.port),
            "server-id": str(self.server_id),
            "report-host": HOST,
            "report-port": str(self.port),
            "read-only": "1" if self.read_only else "0",
        }
        if os.geteuid() == 0:
            options["user"] = "root"  # else it refuses to run as root
        program = find_program("mariadbd", "mysqld") or "mariadbd"
        return [program, "--no-defaults", *(f"--{name}={value}" for name, value in options.items())]

    def _probe(self) -> object:
        # For a refused connection PyMySQL formats a traceback, which costs more than the probe, and which the parser of
        # Python 3.11 before 3.11.5 does not survive when another thread does the same (pytest, reporting a failure).
        if not is_open(self.port):
            raise ConnectionRefusedError
        return self.query("SELECT 1", timeout=1.0)

    def _wait_for(self, sql: str, *, timeout: float) -> None:
        """Ask until the first value of the answer is true."""
        until = SYSTEM.monotonic() + timeout
        while not self.query(sql)[0][0]:
            if SYSTEM.monotonic() >= until:
                raise Unavailable(f"{self.name} did not reach within {timeout:g} s: {sql}")
            SYSTEM.sleep(0.02)


def _drops(cursor: Any) -> list[str]:
    cursor.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE 'app\\_%'")
    statements = [f"DROP DATABASE IF EXISTS `{name}`" for (name,) in cursor.fetchall()]
    cursor.execute("SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'app'")
    for name, kind in cursor.fetchall():
        what = {"VIEW": "VIEW", "SEQUENCE": "SEQUENCE"}.get(kind, "TABLE")
        statements.append(f"DROP {what} IF EXISTS app.`{name}`")
    return statements
