"""The copier that replicates SQLite files, in this process and in one of its own."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from resilient.errors import Unavailable
from resilient.testing import FakeClock
from resilient.testing.sqlite import SqliteReplication


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "p.db", isolation_level=None, check_same_thread=False)) as made:
        made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, twin INTEGER)")
        yield made


def read(path: Path, statement: str) -> list[tuple]:
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as opened:
        return opened.execute(statement).fetchall()


def test_the_mark_is_the_time_before_the_copy_was_begun(tmp_path: Path, primary: sqlite3.Connection) -> None:
    """It moves on with each round, also when nothing changed, and never past what was copied."""
    clock = FakeClock(wall=1000.0)
    copier = SqliteReplication(tmp_path / "p.db", [tmp_path / "r.db"], clock=clock)
    for number in range(3):
        if number != 1:
            primary.execute("INSERT INTO t VALUES (?, ?)", (number, number))
        copier.copy()
        assert read(tmp_path / "r.db", "SELECT at FROM resilient_copied") == [(1000.0 + number,)]
        clock.advance(1)
    assert read(tmp_path / "r.db", "SELECT id FROM t") == [(0,), (2,)]
    copier.close()


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_reader_never_sees_half_a_transaction(tmp_path: Path, primary: sqlite3.Connection, mode: str) -> None:
    """While a writer writes pairs, every read of the copy sees whole pairs, and always the mark."""
    primary.execute(f"PRAGMA journal_mode = {mode}")
    copier = SqliteReplication(tmp_path / "p.db", [tmp_path / "r.db"], interval=0.001)
    copier.start()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                primary.execute("BEGIN IMMEDIATE")
                primary.execute("INSERT INTO t VALUES (?, 0)", (2 * number,))
                primary.execute("INSERT INTO t VALUES (?, 1)", (2 * number + 1,))
                primary.execute("COMMIT")
            except sqlite3.OperationalError:
                if primary.in_transaction:
                    primary.execute("ROLLBACK")

    thread = threading.Thread(target=write)
    thread.start()
    most = 0
    try:
        until = time.monotonic() + 10.0
        while most < 100 and time.monotonic() < until:
            with closing(sqlite3.connect(tmp_path / "r.db", timeout=5.0)) as opened:
                ((even, odd, marks),) = opened.execute(
                    "SELECT SUM(twin = 0), SUM(twin = 1), (SELECT COUNT(*) FROM resilient_copied) FROM t"
                ).fetchall()
            assert even == odd
            assert marks == 1
            most = even or 0
    finally:
        stop.set()
        thread.join()
        copier.close()
    assert most > 0


def test_a_stopped_replica_stays_and_goes_on(tmp_path: Path, primary: sqlite3.Connection) -> None:
    """Stopped, it is left as it was, the mark included; started, it catches up."""
    copier = SqliteReplication(tmp_path / "p.db", [tmp_path / "r.db"])
    copier.copy()
    before = read(tmp_path / "r.db", "SELECT at FROM resilient_copied")
    copier.stop(0)
    primary.execute("INSERT INTO t VALUES (1, 1)")
    copier.copy()
    assert read(tmp_path / "r.db", "SELECT COUNT(*) FROM t") == [(0,)]
    assert read(tmp_path / "r.db", "SELECT at FROM resilient_copied") == before
    copier.start(0)
    copier.copy()
    assert read(tmp_path / "r.db", "SELECT COUNT(*) FROM t") == [(1,)]
    copier.close()


def test_a_killed_replica_is_gone_until_restarted(tmp_path: Path, primary: sqlite3.Connection) -> None:
    """Its file cannot be opened, and copying does not make it anew; restarted, it is as old as it was."""
    copier = SqliteReplication(tmp_path / "p.db", [tmp_path / "r.db"])
    copier.copy()
    copier.kill(0)
    primary.execute("INSERT INTO t VALUES (1, 1)")
    copier.copy()
    assert not (tmp_path / "r.db").exists()
    copier.restart(0)
    assert read(tmp_path / "r.db", "SELECT COUNT(*) FROM t") == [(0,)]
    copier.copy()
    assert read(tmp_path / "r.db", "SELECT COUNT(*) FROM t") == [(1,)]
    copier.close()


def test_without_a_primary_it_says_so(tmp_path: Path) -> None:
    """A missing primary is an error, and no file is made for it."""
    copier = SqliteReplication(tmp_path / "none.db", [tmp_path / "r.db"])
    with pytest.raises(Unavailable, match=r"none\.db cannot be read"):
        copier.start()
    assert list(tmp_path.iterdir()) == []
    copier.close()


def test_it_runs_as_a_process_and_obeys_from_here(tmp_path: Path, primary: sqlite3.Connection) -> None:
    """Started by its command, it copies, heeds stop and kill of another process, and ends with SIGTERM and exit 0."""
    files = [str(tmp_path / name) for name in ("p.db", "r.db", "s.db")]
    process = subprocess.Popen(
        [sys.executable, "-m", "resilient.testing.sqlite", *files, "--interval", "0.02"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "copying\n"
        control = SqliteReplication(files[0], files[1:])
        control.stop(0)
        control.kill(1)
        primary.execute("INSERT INTO t VALUES (1, 1)")
        time.sleep(0.2)  # several rounds, in which nothing must happen
        assert read(tmp_path / "r.db", "SELECT COUNT(*) FROM t") == [(0,)]
        assert not (tmp_path / "s.db").exists()
        control.start(0)
        control.restart(1)
        until = time.monotonic() + 10.0
        for path in (tmp_path / "r.db", tmp_path / "s.db"):
            while read(path, "SELECT COUNT(*) FROM t") != [(1,)]:
                assert time.monotonic() < until
                time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_command_without_a_primary_ends_with_a_line(tmp_path: Path) -> None:
    """Exit 1 and one plain line."""
    command = [sys.executable, "-m", "resilient.testing.sqlite", str(tmp_path / "none.db"), str(tmp_path / "r.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == "the primary none.db cannot be read\n"
