"""A PostgreSQL that is started by whoever runs the tests, root or not, and broken on purpose."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from resilient.errors import Unavailable
from resilient.testing.servers import PostgresServer


def processes_of(server: PostgresServer) -> dict[int, str]:
    """The server's processes and their states, found by its folder or by their parent."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        pid = int(stat.parent.name)
        if server.pid in {pid, int(parent)} and "postgres" in name:
            found[pid] = state
    return found


def login(server: PostgresServer) -> psycopg.Connection:
    return psycopg.connect(host="127.0.0.1", port=server.port, user="app", password="app", dbname="app")


def test_it_runs_as_an_ordinary_user(postgres: PostgresServer) -> None:
    """PostgreSQL refuses root; the server answers all the same, and its user owns a database and no more."""
    assert Path(f"/proc/{postgres.pid}").stat().st_uid != 0
    assert postgres.query("SELECT 1 + %s", 1) == [(2,)]
    with login(postgres) as connection:
        connection.execute("CREATE TABLE a (id int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE ROLE another")
    connection.close()


def test_frozen_is_every_process_of_it(postgres: PostgresServer, limit: Callable[[float], float]) -> None:
    """Each connection is a process that left the group for one of its own: a freeze stops it too, a thaw wakes it."""
    with login(postgres) as connection:
        connection.execute("SELECT 1")
        postgres.freeze()
        assert len(processes_of(postgres)) > 3
        assert set(processes_of(postgres).values()) == {"T"}
        began = time.monotonic()
        with pytest.raises(Unavailable):
            postgres.query("SELECT 1", timeout=0.2)
        assert time.monotonic() - began < limit(1.0)
        postgres.thaw()
        assert connection.execute("SELECT 2").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize("fault", ["nothing", "freeze", "kill", "restart"])
def test_healing_undoes_it(postgres: PostgresServer, fault: str) -> None:
    """Whatever was done: it runs, takes writes, and has no tables, though somebody left a transaction open."""
    connection = login(postgres)
    connection.execute("CREATE TABLE left_over (id int)")
    connection.commit()
    connection.execute("LOCK TABLE left_over")
    if fault != "nothing":
        getattr(postgres, fault)()
    postgres.heal()
    connection.close()
    assert postgres.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    with login(postgres) as again:
        again.execute("CREATE TABLE left_over (id int)")
    again.close()


def test_what_was_committed_survives_a_kill(postgres: PostgresServer) -> None:
    """As it does in life; nothing of the killed server runs on, not even what was frozen."""
    with login(postgres) as connection:
        connection.execute("CREATE TABLE kept (id int)")
        connection.execute("INSERT INTO kept VALUES (7)")
    connection.close()
    postgres.freeze()
    before = processes_of(postgres)
    postgres.kill()
    assert all(state_of(pid) in {"Z", "X"} for pid in before)
    port = postgres.port
    postgres.restart()
    assert postgres.port == port
    assert postgres.query("SELECT id FROM kept") == [(7,)]


def test_it_leaves_nothing() -> None:
    """Stopped, its processes and its folder are gone, also where it was frozen."""
    if PostgresServer.missing():
        pytest.skip(f"missing server: {PostgresServer.missing()}")
    with PostgresServer() as server:
        folder, seen = server.directory, processes_of(server)
        assert len(seen) > 2
        server.freeze()
    assert not folder.exists()
    until = time.monotonic() + 5.0
    while any(state_of(pid) not in {"Z", "X"} for pid in seen):
        assert time.monotonic() < until
        time.sleep(0.01)


ABANDONED = """
import sys
from resilient.testing.servers import PostgresServer
server = PostgresServer(template=__import__("pathlib").Path(sys.argv[1])).start()
server.freeze()
from pathlib import Path
seen = [server.pid]
for stat in Path("/proc").glob("[0-9]*/stat"):
    try:
        if int(stat.read_text().rpartition(")")[2].split()[1]) == server.pid:
            seen.append(int(stat.parent.name))
    except OSError:
        pass
print(*seen, flush=True)
sys.stdin.read()
"""


def test_a_frozen_one_ends_with_its_killed_owner(tmp_path: Path) -> None:
    """kill -9 of the Python that froze it: no process of the server is left, though none of them could act."""
    if PostgresServer.missing():
        pytest.skip(f"missing server: {PostgresServer.missing()}")
    command = [sys.executable, "-c", ABANDONED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        seen = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(seen) > 3
        owner.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10.0
    while any(state_of(pid) not in {"Z", "X"} for pid in seen):
        assert time.monotonic() < until, "something was left behind"
        time.sleep(0.02)


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
