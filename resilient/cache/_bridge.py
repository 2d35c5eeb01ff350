"""How a listener of SQLAlchemy, which is a plain function, waits for the cache.

Beneath an AsyncSession the listeners run in a greenlet, from which SQLAlchemy itself awaits. Written as a pair, since
the two faces share no line of it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from resilient.errors import needs_extra

with needs_extra("sql"):
    from sqlalchemy.util import await_only

__all__ = ["AsyncBridge", "Bridge"]

T = TypeVar("T")


class AsyncBridge:
    """For listeners beneath an AsyncSession."""

    @staticmethod
    def wait(coroutine: Awaitable[T]) -> T:
        """What a coroutine returns, awaited from within a listener."""
        return await_only(coroutine)


class Bridge:
    """For listeners of a plain session."""

    @staticmethod
    def wait(result: T) -> T:
        """The same, of what was done already."""
        return result
