"""Facts about this process and its machine."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from resilient.arguments import is_number
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.health._core import Check, Result

__all__ = ["Heartbeat", "disk", "heartbeat"]


class Heartbeat:
    """Notices a loop that stands still: the loop beats, and the check fails when the last beat is too old.

    It is a fact about this process, so liveness takes it. It is the check itself: add it, and call `beat` in the loop.

    Args:
        max_age: Seconds without a beat after which it fails (``silent``); they begin to count when it is made.
        path: A file that each beat touches, so that another process can look: ``resilient health module:attr``, for a
            worker that serves no HTTP. Until the first beat there is no file, and the check fails.
        clock: Where the time comes from.

    Examples:
        >>> from resilient.health import Health, checks
        >>> worker, health = checks.heartbeat(max_age=30), Health()
        >>> health.add("worker", worker, views=["live", "ready"])
        >>> worker.beat()
        >>> health.live().word
        'pass'
    """

    def __init__(self, max_age: float, *, path: str | PathLike[str] | None = None, clock: Clock = SYSTEM) -> None:
        if not is_number(max_age) or not max_age > 0:
            raise ConfigurationError(f"a heartbeat needs max_age > 0 seconds, got {max_age!r}")
        self.max_age = max_age
        self._path = None if path is None else Path(path)
        self._clock = clock
        self._last = clock.monotonic()

    def beat(self) -> None:
        """Say that the loop goes round. Raises OSError where the file cannot be touched."""
        self._last = self._clock.monotonic()
        if self._path is not None:
            self._path.touch()
            moment = self._clock.wall()
            os.utime(self._path, (moment, moment))

    def __call__(self) -> Result:
        """Look at the last beat: the check itself."""
        age = self._age()
        if age is None:
            return Result.fail("silent")
        values = {"age": round(age, 3)}
        return Result.fail("silent", **values) if age > self.max_age else Result.ok(**values)

    def _age(self) -> float | None:
        if self._path is None:
            return self._clock.monotonic() - self._last
        try:
            return max(0.0, self._clock.wall() - self._path.stat().st_mtime)
        except FileNotFoundError:
            return None


heartbeat = Heartbeat
"""Make a `Heartbeat`."""


def disk(path: str | PathLike[str] = "/", *, warn_free: float = 0.1, fail_free: float = 0.02) -> Check:
    """A disk has room, for bytes and for files. With little it warns (``low``), with next to none it fails (``full``).

    Args:
        path: A folder on it.
        warn_free: The free part (0 to 1) below which it warns.
        fail_free: The free part below which it fails.

    Raises:
        ConfigurationError: Those are no parts, or in the wrong order.

    Examples:
        >>> sorted(disk(warn_free=0, fail_free=0).run().values)
        ['files', 'free']
    """
    if not 0 <= fail_free <= warn_free <= 1:
        raise ConfigurationError(
            f"a disk cannot be judged by warn_free={warn_free!r} and fail_free={fail_free!r}",
            advice="use parts of the whole: 0 <= fail_free <= warn_free <= 1",
        )

    def look() -> Result:
        found = os.statvfs(path)
        room = found.f_bavail / found.f_blocks if found.f_blocks else 1.0
        files = found.f_favail / found.f_files if found.f_files else 1.0  # some file systems count none
        values = {"free": round(room, 4), "files": round(files, 4)}
        least = min(room, files)
        if least < fail_free:
            return Result.fail("full", **values)
        return Result.warn("low", **values) if least < warn_free else Result.ok(**values)

    return Check(look, "system", "local")
