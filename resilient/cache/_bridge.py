"""How a listener of SQLAlchemy, which is a plain function, waits for the cache.

Beneath an AsyncSession the listeners run in a greenlet, from which SQLAlchemy itself awaits. Written as a pair, since
the two faces share no line of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from resilient.errors import needs_extra

with needs_extra("sql"):
    from sqlalchemy.util import await_only

__all__ = ["AsyncBridge", "Bridge"]


class AsyncBridge:
    """For listeners beneath an AsyncSession."""

    @staticmethod
    def wait(step: Callable[[], Awaitable[None]]) -> None:
        """Take a step, awaited from within a listener."""
        await_only(step())


class Bridge:
    """For listeners of a plain session."""

    @staticmethod
    def wait(step: Callable[[], None]) -> None:
        """Take a step."""
        step()
