"""Sleeping between attempts, with the one switch that turns it off in users' tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from resilient.runtime import fork_safe_lock

__all__ = ["length", "off"]

_lock = fork_safe_lock()
_blocks = 0  # how many blocks want no waiting; blocks of several threads may overlap in any way


@contextmanager
def off() -> Iterator[None]:
    """Turn waiting off for the whole process, until the last such block ends."""
    global _blocks
    with _lock:
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1


def length(seconds: float) -> float:
    """The wait as it will be: itself, or nothing while waiting is turned off."""
    return 0.0 if _blocks else seconds
