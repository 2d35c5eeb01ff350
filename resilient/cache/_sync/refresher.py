# Generated from resilient/cache/_async/refresher.py by tools/unasync.py: do not edit.
"""Keeps cached values warm, from one process of all."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from resilient import events
from resilient.cache._entry import LEASE, marker
from resilient.cache._events import LoadFailed
from resilient.cache._functions import Mode, require
from resilient.cache._seen import milliseconds
from resilient.cache._sync.engine.tier import UNREACHABLE
from resilient.cache._timer import Timer
from resilient.cache._values import Loader
from resilient.errors import ConfigurationError

if TYPE_CHECKING:
    from resilient.cache._sync.cache import Cache

__all__ = ["Refresher"]


class Refresher:
    """Loads chosen values anew every so many seconds, so that no reader ever waits for them.

    Every process may run one: they share a lease on the cache's server, and whoever holds it refreshes. Should that
    process die, another takes over when the lease is over. While the server is away nobody refreshes.

    Args:
        cache: The cache.
        every: Seconds from one refresh to the next; less than the ttl of what is refreshed.
        name: What it is called; refreshers of one name and namespace share a lease.
        lease: Seconds for which one process has the right; ``every`` by default.

    Raises:
        ConfigurationError: A time is not positive.

    Examples:
        >>> import asyncio
        >>> from resilient.cache import Cache
        >>> cache = Cache(namespace="shop", ttl=300)
        >>> @cache.lazy("best")
        ... def best() -> list[str]:
        ...     return ["gamer3", "gamer1"]
        >>> refresher = Refresher(cache, every=60)
        >>> refresher.add(best)
        >>> refresher.run_once()
        True
        >>> cache.get("best")
        ['gamer3', 'gamer1']
    """

    def __init__(
        self, cache: Cache, every: float = 60.0, *, name: str = "refresher", lease: float | None = None
    ) -> None:
        if every <= 0 or (lease is not None and lease <= 0):
            raise ConfigurationError("a refresher's times are positive numbers of seconds")
        self._cache = cache
        self._every = every
        self._lease = every if lease is None else lease
        self._key = cache.physical(f"refresher:{name}")
        self._jobs: list[Callable[[], Any]] = []
        self._held: bytes | None = None
        self._due = 0.0
        self._name = name
        self._timer: Timer | None = None

    # ------------------------------------------------------------------------------------------------- what to refresh

    def add(self, function: Loader[..., Any], *args: Any, **kwargs: Any) -> None:
        """Refresh the value of one call of a function of ``lazy``; any other function is called as it is.

        Args:
            function: Such as ``get_user``, or ``board.rebuild`` of a leaderboard.
            *args: The arguments of the call.
            **kwargs: The same by name.

        Raises:
            ConfigurationError: It is a function of the other face.
            TypeError: It cannot be called with these arguments.
        """
        call, key = getattr(function, "refresh", None), getattr(function, "key", None)
        if call is None:
            require(function, asynchronous=Mode.asynchronous)
        if callable(key):
            key(*args, **kwargs)
        else:
            with contextlib.suppress(ValueError):  # functions of C may not tell
                inspect.signature(function).bind(*args, **kwargs)
        self._jobs.append(partial(call or function, *args, **kwargs))

    def add_query(
        self,
        session: Callable[[], Any],
        statement: Any,
        ttl: float | None = None,
        *,
        tags: Iterable[str] = (),
        params: Mapping[str, Any] | None = None,
    ) -> None:
        """Refresh the rows of a query.

        Args:
            session: A sessionmaker; each refresh has a session of its own.
            statement: As for `Cache.query`, and so are the others.
            ttl: Seconds the rows live.
            tags: Further tags.
            params: Parameters of the statement.
        """
        given = {"ttl": ttl, "tags": tuple(tags), "params": params}
        self._jobs.append(partial(self._query, session, statement, given))

    def _query(self, session: Callable[[], Any], statement: Any, given: dict[str, Any]) -> None:
        from resilient.cache._sync.query import query

        with session() as work:
            query(self._cache, work, statement, refresh=True, **given)

    # ------------------------------------------------------------------------------------------------------ refreshing

    def run_once(self) -> bool:
        """Take or keep the lease, and refresh what is due. Whether this process has the lease.

        An error of a loader is told as the event `LoadFailed`, and the others go on.
        """
        if not self._hold():
            return False
        now = self._cache.clock.monotonic()
        if self._due > now:
            return True
        self._due = now + self._every
        for job in list(self._jobs):
            try:
                job()
            except Exception as error:  # noqa: BLE001 - whatever it is, the other values are to be refreshed
                events.emit(LoadFailed(cache=self._cache.namespace, error=type(error).__name__, served="background"))
            if not self._hold():
                return False  # it took too long: somebody else goes on
        return True

    def _hold(self) -> bool:
        """Take the lease, or make it last anew."""
        tier = self._cache.main.tier
        header = marker(LEASE, self._cache.clock.wall(), self._lease)
        life = milliseconds(self._lease)
        if self._held is not None:
            kept = tier.run(tier.store.swap, self._key, self._held, header, life)
            if kept is UNREACHABLE:
                return False
            self._held = header if kept else None
            if kept:
                return True
        self._due = 0.0  # whoever takes over refreshes at once
        taken = tier.run(tier.store.claim, self._key, None, header, life) is None
        self._held = header if taken else None
        return taken

    # ------------------------------------------------------------------------------------------------------- its life

    def start(self) -> None:
        """Refresh in the background, from now on."""
        if self._timer is None:
            self._timer = Timer(self._round, min(self._lease, self._every) / 3, f"refresher-{self._name}")
        self._timer.kick()

    def _round(self) -> bool:
        """What the timer calls: there is always a next time."""
        self.run_once()
        return True

    def close(self) -> None:
        """Stop, and leave the lease to another process."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.close()
        held, self._held = self._held, None
        if held is not None:
            tier = self._cache.main.tier
            tier.run(tier.store.swap, self._key, held, None, 0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
