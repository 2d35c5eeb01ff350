"""Replication for SQLite files: a copier that plays the part of a database's own, for tests and demonstrations.

Every ``interval`` the primary is copied to each replica in one step, through SQLite's backup API, so that a reader
sees either the old copy or the new one. With it comes the table ``resilient_copied`` with one row ``at``: the wall
time before the copy was begun, which is the proof `resilient.storage.replicas.ReplicaSet` looks for.

The state of a replica (stopped, killed) is kept in the file system, so that the copier may run in another process:

    python -m resilient.testing.sqlite primary.db replica-1.db replica-2.db
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Self
from urllib.parse import quote

from resilient.clock import SYSTEM, Clock
from resilient.errors import Unavailable
from resilient.runtime import Periodic, fork_safe_lock

__all__ = ["SqliteReplication"]

_SIDE_FILES = ("", "-wal", "-shm", "-journal")


class SqliteReplication:
    """Copies a SQLite file to others, again and again, until told to stop.

    Args:
        primary: The file that is written to. It must exist when copying begins.
        replicas: The files that are kept like it; made where they do not exist.
        interval: Seconds between the end of one round and the start of the next.
        clock: Where time is read.

    Examples:
        >>> import sqlite3, tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with contextlib.closing(sqlite3.connect(folder / "a.db")) as primary:
        ...     _ = primary.execute("CREATE TABLE t (id INTEGER)")
        >>> copier = SqliteReplication(folder / "a.db", [folder / "b.db"])
        >>> copier.copy()
        >>> (folder / "b.db").exists()
        True
        >>> copier.close()
    """

    def __init__(
        self,
        primary: str | os.PathLike[str],
        replicas: Sequence[str | os.PathLike[str]],
        *,
        interval: float = 0.1,
        clock: Clock = SYSTEM,
    ) -> None:
        self.primary = Path(primary)
        self.replicas = tuple(Path(each) for each in replicas)
        self._clock = clock
        self._lock = fork_safe_lock()
        self._source: sqlite3.Connection | None = None
        self._copied: dict[Path, int] = {}
        self._periodic = Periodic(self.copy, interval, "sqlite-replication")

    # ------------------------------------------------------------------------------------------------- the copier

    def start(self, index: int | None = None) -> None:
        """Start copying on a thread of this process; with an index, let a stopped replica go on.

        Args:
            index: Which replica; without it, the copier itself.
        """
        if index is not None:
            _marker(self.replicas[index]).unlink(missing_ok=True)
            return
        self.copy()
        self._periodic.ensure()

    def stop(self, index: int | None = None) -> None:
        """Stop copying to a replica, which then falls behind; without an index, end the copier.

        Args:
            index: Which replica; without it, all of them and the thread.
        """
        if index is not None:
            with self._lock:  # a round that runs here has ended when this returns
                _marker(self.replicas[index]).touch()
            return
        self.close()

    def kill(self, index: int) -> None:
        """Make a replica unreachable: its file is moved away, so that opening it fails."""
        path = self.replicas[index]
        with self._lock:
            for suffix in _SIDE_FILES:
                _move(_beside(path, suffix), _beside(_grave(path), suffix))

    def restart(self, index: int) -> None:
        """Make a killed replica reachable again, as old as it was."""
        path = self.replicas[index]
        with self._lock:
            for suffix in reversed(_SIDE_FILES):
                _move(_beside(_grave(path), suffix), _beside(path, suffix))

    def close(self) -> None:
        """End the thread and close the files."""
        self._periodic.close()
        with self._lock:
            if self._source is not None:
                self._source.close()
                self._source = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------------- copying

    def copy(self) -> None:
        """Make one round now: bring every replica that is neither stopped nor killed up to the primary.

        Raises:
            Unavailable: The primary cannot be read.
        """
        with self._lock:
            at = self._clock.wall()
            try:
                version = self._version()
            except sqlite3.Error as error:
                raise Unavailable(f"the primary {self.primary.name} cannot be read") from error
            for path in self.replicas:
                if not _marker(path).exists() and not _grave(path).exists():
                    with contextlib.suppress(sqlite3.Error):  # busy, or just killed: the next round tries again
                        self._bring(path, at, version)

    def _version(self) -> int:
        """A number that changes when the primary does."""
        if self._source is None:
            self._source = sqlite3.connect(_uri(self.primary), uri=True, timeout=1.0, check_same_thread=False)
        return int(self._source.execute("PRAGMA data_version").fetchone()[0])

    def _bring(self, path: Path, at: float, version: int) -> None:
        known = self._copied.get(path)
        mode = "rw" if known is not None else "rwc"  # a file that vanished later was killed, and stays so
        target = sqlite3.connect(_uri(path, mode), uri=True, timeout=1.0)
        with contextlib.closing(target):
            if known == version:
                with target:
                    target.execute("UPDATE resilient_copied SET at = ?", (at,))
                return
            with contextlib.closing(sqlite3.connect(":memory:")) as staged:
                assert self._source is not None
                self._source.backup(staged, sleep=0.005)
                with staged:
                    staged.execute("CREATE TABLE resilient_copied (at REAL NOT NULL)")
                    staged.execute("INSERT INTO resilient_copied VALUES (?)", (at,))
                staged.backup(target, sleep=0.005)
            self._copied[path] = version


def _uri(path: Path, mode: str = "rw") -> str:
    return f"file:{quote(str(path))}?mode={mode}"


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _marker(path: Path) -> Path:
    return _beside(path, ".stopped")


def _grave(path: Path) -> Path:
    return _beside(path, ".killed")


def _move(source: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        source.replace(target)


def _main(arguments: Sequence[str] | None = None) -> int:
    """Copy until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m resilient.testing.sqlite",
        description="Keep SQLite files like one that is written to, until SIGTERM.",
    )
    parser.add_argument("primary", help="the SQLite file that is written to")
    parser.add_argument("replicas", nargs="+", help="the files that are kept like it")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds between two rounds (%(default)s)")
    options = parser.parse_args(arguments)
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        with SqliteReplication(options.primary, options.replicas, interval=options.interval):
            sys.stdout.write("copying\n")
            sys.stdout.flush()
            ended.wait()
    except Unavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
