"""The real servers: started once per run (per worker of pytest-xdist), side by side, healthy and empty for each test.

Those that the chosen tests need begin to start as soon as the tests are collected, while other tests already run.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from resilient.errors import Unavailable
from resilient.runtime import WorkerPool
from resilient.testing.servers import (
    MariaDbCluster,
    MotoServer,
    PostgresServer,
    RedisCluster,
    RedisSentinel,
    RedisServer,
    TcpProxy,
    ValkeyServer,
    free_port,
)
from resilient.testing.servers.server import find_program

CLASSES: dict[str, Any] = {
    "redis_server": RedisServer,
    "redis_cluster": RedisCluster,
    "redis_sentinel": RedisSentinel,
    "valkey_server": ValkeyServer,
    "mariadb": MariaDbCluster,
    "postgres": PostgresServer,
    "moto_server": MotoServer,
}


class Fleet:
    """The servers of this run, each started at most once and all stopped at the end."""

    def __init__(self, template: Path) -> None:
        self.template = template
        """Where the installed data of databases are kept, of which each server gets a copy."""
        self._pool = WorkerPool("fleet", size=len(CLASSES))
        self._starts: dict[str, Future[Any]] = {}
        self.times: dict[str, tuple[float, float]] = {}
        """When the start of each began and ended."""

    def begin(self, name: str) -> None:
        """Start a server in the background, where it can run here and was not begun yet."""
        if name not in self._starts and CLASSES[name].missing() is None:
            self._starts[name] = self._pool.submit(self._start, name)

    def _start(self, name: str) -> Any:
        begun = time.monotonic()
        options = {"template": self.template} if name in {"mariadb", "postgres"} else {}
        server = CLASSES[name](**options)
        server.start()
        self.times[name] = (begun, time.monotonic())
        return server

    def get(self, name: str) -> Any:
        """The server, healthy and empty; skips the test, or fails it where servers are required, if it cannot run."""
        reason = CLASSES[name].missing()
        if reason is not None:
            refuse(name, reason)
        self.begin(name)
        if isinstance(self._starts[name].exception(), Unavailable):  # begun while this machine had too much to do
            del self._starts[name]
            self.begin(name)
        server = self._starts[name].result()
        server.heal()
        return server

    def stop(self) -> None:
        """Stop all that were started."""
        for start in self._starts.values():
            if start.exception() is None:
                start.result().stop()
        self._pool.close(1.0)


def refuse(name: str, reason: str) -> None:
    """Skip the running test; tests/conftest.py fails it where no server may be missing."""
    pytest.skip(f"missing server: {reason}")


fleet_key = pytest.StashKey[Fleet]()


PATIENCE = 180.0 if float(os.environ.get("RESILIENT_SCALE", "0.02")) < 1 else 1800.0
"""Seconds for a test that names no limit: the first one that needs a server also waits until it has started."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder the time that servers take to start on a machine with more to do."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PATIENCE))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to start what the chosen tests ask for."""
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ()) if name in CLASSES}
    if wanted:
        fleet = _fleet(session.config)
        for name in sorted(wanted):
            fleet.begin(name)


def _fleet(config: pytest.Config) -> Fleet:
    if fleet_key not in config.stash:
        folder = Path(config._tmp_path_factory.getbasetemp())
        if os.environ.get("PYTEST_XDIST_WORKER"):
            folder = folder.parent  # one folder for all workers: the data of MariaDB are installed once
        config.stash[fleet_key] = Fleet(Path(os.environ.get("RESILIENT_TEMPLATES", folder)))
    return config.stash[fleet_key]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop all servers, whatever happened, and write down what was measured where that is asked for."""
    if os.environ.get("RESILIENT_TABLES"):
        _write_tables(session.config, Path(os.environ["RESILIENT_TABLES"]))
    fleet = session.config.stash.get(fleet_key, None)
    if fleet is not None:
        fleet.stop()


FULL = float(os.environ.get("RESILIENT_SCALE", "0.02")) >= 1
tables_key = pytest.StashKey[dict[str, list[dict[str, str]]]]()


@pytest.fixture
def figures(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """A function that notes what was measured, as a row of a table, and prints it.

    With RESILIENT_TABLES=folder in the environment the tables of the run are written there at its end.
    """
    rows = request.config.stash.setdefault(tables_key, {})

    def note(table: str, **cells: object) -> None:
        told = {name.replace("_", " "): str(value) for name, value in cells.items()}
        record_property(table, told)
        rows.setdefault(table, []).append(told)
        print("|", " | ".join(told.values()), "|", flush=True)  # noqa: T201 - seen with -s and -rA

    return note


@pytest.fixture
def limit() -> Callable[[float], float]:
    """A promised time: as it stands in a run of full size, four times that (and half a second) on a busy machine."""
    return lambda seconds: seconds if FULL else 4 * seconds + 0.5


def _write_tables(config: pytest.Config, folder: Path) -> None:
    for table, rows in config.stash.get(tables_key, {}).items():
        heads = list(rows[0])
        lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
        lines += ["| " + " | ".join(row.get(head, "") for head in heads) + " |" for row in rows]
        (folder / f"{table}-table.md").write_text("\n".join(lines) + "\n")


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[int], TcpProxy]]:
    """A function that puts a `TcpProxy` in front of a port; all are stopped after the test."""
    with ExitStack() as proxies:
        yield lambda port: proxies.enter_context(TcpProxy(port))


@pytest.fixture
def server_start_times(request: pytest.FixtureRequest) -> dict[str, tuple[float, float]]:
    """When the start of each server of this run began and ended; monotonic seconds."""
    return _fleet(request.config).times


@pytest.fixture
def templates(request: pytest.FixtureRequest) -> Path:
    """The folder of installed data that this run's servers share; RESILIENT_TEMPLATES names it to another run."""
    return _fleet(request.config).template


@pytest.fixture
def redis_server(request: pytest.FixtureRequest) -> RedisServer:
    """A Redis, running and empty."""
    return _fleet(request.config).get("redis_server")


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[str]:
    """The address of a Redis with a certificate of its own."""
    reason = RedisServer.missing() or (None if find_program("openssl") else "no openssl")
    if reason is not None:
        refuse("tls_server", reason)
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    port = str(free_port())
    files = {"tls-cert-file": str(certificate), "tls-key-file": str(key), "tls-ca-cert-file": str(certificate)}
    with RedisServer(options={"tls-port": port, "tls-auth-clients": "no", **files}):
        yield f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"


@pytest.fixture
def redis_cluster(request: pytest.FixtureRequest) -> RedisCluster:
    """Three Redis primaries with a replica each, running and empty."""
    return _fleet(request.config).get("redis_cluster")


@pytest.fixture
def redis_sentinel(request: pytest.FixtureRequest) -> RedisSentinel:
    """A Redis primary and a replica under the watch of three sentinels, running and empty."""
    return _fleet(request.config).get("redis_sentinel")


@pytest.fixture
def valkey_server(request: pytest.FixtureRequest) -> ValkeyServer:
    """A Valkey, running and empty."""
    return _fleet(request.config).get("valkey_server")


@pytest.fixture
def mariadb(request: pytest.FixtureRequest) -> MariaDbCluster:
    """A MariaDB primary and two replicas, running, replicating and without tables."""
    return _fleet(request.config).get("mariadb")


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """A PostgreSQL, running and without tables."""
    return _fleet(request.config).get("postgres")


@pytest.fixture
def moto_server(request: pytest.FixtureRequest) -> MotoServer:
    """S3 and SQS, running and empty."""
    return _fleet(request.config).get("moto_server")
