"""Whole runs of pytest with these fixtures: nothing is left behind however they end, and what is missing is said."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from resilient.testing.servers import MariaDbCluster, Process, RedisServer

HERE = Path(__file__).parent

TESTS = """
import os, signal, time
from pathlib import Path

signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts us in the background may have it ignored

def note(*servers):
    Path(os.environ["NOTES"]).write_text(" ".join(f"{s.pid}:{s.directory}" for s in servers))

def test_servers(redis_server, mariadb):
    redis_server.freeze()
    mariadb.primary.freeze()
    note(redis_server, *mariadb.nodes)
    if os.environ.get("HANG"):
        time.sleep(600)

def test_failing(redis_server, mariadb):
    redis_server.freeze()
    mariadb.replicas[0].freeze()
    assert False
"""

NEEDS = [RedisServer, MariaDbCluster]
PATIENCE = 120.0  # seconds that a machine with better things to do may take for a whole run
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def run(tmp_path, templates):
    """Start pytest in a folder with these conftest files and one test file; ended at the end whatever happens."""
    (tmp_path / "servers").mkdir()
    shutil.copy(HERE.parent / "conftest.py", tmp_path)
    shutil.copy(HERE / "conftest.py", tmp_path / "servers")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\nfilterwarnings = error\n")
    runs = []

    def start(tests, *arguments, **env):
        (tmp_path / "servers" / "test_it.py").write_text(tests)
        settings = {"CI": None, "REQUIRE_SERVERS": None, "PYTEST_XDIST_WORKER": None, "PYTEST_ADDOPTS": None, **env}
        settings |= {"NOTES": str(tmp_path / "notes"), "RESILIENT_TEMPLATES": str(templates)}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:hypothesispytest",
            "servers",
            *arguments,
        ]
        runs.append(Process(command, env=settings, cwd=tmp_path))
        return runs[-1].start()

    yield start
    for process in runs:
        process.stop()


def until(condition, timeout=PATIENCE):
    """Wait for what another process does; it has no event to await."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def left_behind(notes):
    """The noted processes that still run and the noted folders that still exist."""
    left = []
    for note in notes.read_text().split():
        pid, _, folder = note.partition(":")
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            state = "Z"
        left += [pid] * (state != "Z") + [folder] * Path(folder).exists()
    return left


def need_servers():
    """These runs use all the servers."""
    for kind in NEEDS:
        if kind.missing():
            pytest.skip(f"missing server: {kind.missing()}")


def test_nothing_is_left_after_a_run(run, tmp_path):
    """Servers that tests left frozen are stopped, whether the tests passed or failed."""
    need_servers()
    process = run(TESTS)
    assert process.wait(PATIENCE) == 1
    assert "1 failed, 1 passed" in process.output()
    assert left_behind(tmp_path / "notes") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_after_a_signal(run, tmp_path, number):
    """Ctrl-C, or kill -9 of pytest amid a test, with servers frozen: all are gone soon after."""
    need_servers()
    process = run(TESTS, HANG="1")
    notes = tmp_path / "notes"
    until(lambda: notes.exists() and notes.read_text())
    os.kill(process.pid, number)
    process.wait(PATIENCE)
    until(lambda: left_behind(notes) == [])


ONE_MISSING = """
def test_first(redis_server): pass
def test_second(redis_server): pass
def test_other(): pass
"""


@pytest.fixture
def bare_path(tmp_path):
    """A PATH on which no server is found; Python itself is started by its full path."""
    from resilient.testing.servers.server import find_program

    if any(Path("/usr/sbin", name).exists() for name in ("redis-server", "valkey-server")):
        pytest.skip("redis-server stands where it is found without a PATH")
    assert find_program("no-such-program") is None
    return str(tmp_path)


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["alone", "workers"])
def test_a_missing_server_skips_with_one_line(run, bare_path, arguments):
    """Tests that need no server run; the end of the run says in one line what was not tested, and why."""
    process = run(ONE_MISSING, *arguments, PATH=bare_path)
    assert process.wait(PATIENCE) == 0
    lines = [line for line in process.output().splitlines() if "for want of" in line]
    assert lines == ["tests skipped for want of a server: 2 with no redis-server or valkey-server"]
    assert "1 passed, 2 skipped" in process.output()


@pytest.mark.parametrize("demand", [{"CI": "true"}, {"REQUIRE_SERVERS": "1"}], ids=["CI", "REQUIRE_SERVERS"])
def test_a_missing_server_fails_where_it_is_required(run, bare_path, demand):
    """With CI=true or REQUIRE_SERVERS=1 nothing is skipped in silence."""
    process = run(ONE_MISSING, PATH=bare_path, **demand)
    assert process.wait(PATIENCE) == 1
    assert "no redis-server or valkey-server on this machine" in process.output()


def test_servers_that_nobody_asks_for_are_not_started(run):
    """A run of tests without servers starts none."""
    tests = """
from resilient.testing.servers.process import guard
def test_it(): assert guard._helper is None
"""
    assert run(tests).wait(PATIENCE) == 0
