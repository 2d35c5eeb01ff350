"""Ends what a dead parent left behind. Run as a script, on its own: it imports nothing of the library.

The parent holds the writing end of this script's standard input and writes one line for each process group and each
folder it makes (``+group 123``, ``-group 123``, ``+folder /path``, ``-folder /path``). When the parent is gone, however
it went, the input ends: everything still on the lists is killed and removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path


def main(mark: str) -> None:
    """Read the lists until the parent is gone, then clean up."""
    kept: dict[str, set[str]] = {"group": set(), "folder": set()}
    for line in sys.stdin:
        verb, _, value = line.rstrip("\n").partition(" ")
        names = kept[verb[1:]]
        (names.add if verb[0] == "+" else names.discard)(value)
    groups = {int(group) for group in kept["group"]}
    for _ in range(3):  # a second look finds what was being started during the first
        groups |= marked_groups(mark)
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
    for folder in kept["folder"]:
        shutil.rmtree(folder, ignore_errors=True)


def marked_groups(mark: str) -> set[int]:
    """The groups of processes that carry the parent's mark in their environment (Linux; elsewhere none)."""
    wanted = f"RESILIENT_GUARD={mark}".encode()
    found: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in entry.read_bytes().split(b"\0"):
                found.add(os.getpgid(int(entry.parent.name)))
    return found - {os.getpgid(0)}


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the parent does, not before
    main(sys.argv[1])
