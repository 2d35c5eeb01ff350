"""Several servers at once: start them side by side, and wait until they have agreed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resilient.clock import SYSTEM
from resilient.errors import Unavailable
from resilient.runtime import WorkerPool

__all__ = ["together", "wait_until"]


def together(calls: Sequence[Callable[[], object]]) -> None:
    """Make all calls at the same time, each on a thread, and wait until all have ended.

    Args:
        calls: What to call, for instance the ``start`` of some servers.

    Raises:
        BaseException: What the first of them raised that failed; the others have ended too.

    Examples:
        >>> together([lambda: print("started")])
        started
    """
    if not calls:
        return
    pool = WorkerPool("together", size=len(calls))
    try:
        jobs = [pool.submit(call) for call in calls]
        errors = [job.exception() for job in jobs]
    finally:
        pool.close(1.0)
    for error in errors:
        if error is not None:
            raise error


def wait_until(reached: Callable[[], bool], timeout: float, failed: str) -> None:
    """Ask again and again; a server that does not answer has not reached it yet.

    Args:
        reached: Whether it is so.
        timeout: Seconds.
        failed: What is said where it is not in time.

    Raises:
        Unavailable: It was not within that many seconds.

    Examples:
        >>> wait_until(lambda: True, 1.0, "nobody leads")
    """
    until = SYSTEM.monotonic() + timeout
    failure: Exception | None = None
    while SYSTEM.monotonic() < until:
        try:
            if reached():
                return
        except Unavailable as error:
            failure = error
        SYSTEM.sleep(0.02)
    raise Unavailable(f"{failed} after {timeout:g} s") from failure
