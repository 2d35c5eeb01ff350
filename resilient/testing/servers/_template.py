"""The data folder of a database, installed once and copied for each server."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from resilient.testing.servers.process import guard

__all__ = ["Template"]


class Template:
    """Installed once per process, or per shared folder.

    Args:
        name: What its folders are called.
        install: Fills the folder that it is given, which does not exist yet.
    """

    def __init__(self, name: str, install: Callable[[Path], None]) -> None:
        self._name = name
        self._install = install
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._owner = 0

    def get(self, shared: Path | None) -> Path:
        """The folder to copy.

        Args:
            shared: A folder that several processes share; by default this process has one of its own.
        """
        with self._lock:
            if shared is not None:
                return self._in(shared)
            if self._path is None or self._owner != os.getpid() or not self._path.exists():
                folder = Path(tempfile.mkdtemp(prefix=f"resilient-{self._name}-"))
                guard.add("folder", folder)
                self._path, self._owner = self._in(folder), os.getpid()
            return self._path

    def _in(self, folder: Path) -> Path:
        ready = folder / f"{self._name}-template"
        with (folder / f"{self._name}-template.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # other processes of the same test run wait here and find it done
            if not ready.exists():
                unfinished = ready.with_suffix(".new")
                shutil.rmtree(unfinished, ignore_errors=True)
                self._install(unfinished)
                unfinished.rename(ready)
        return ready
