"""Telling a shared cache in front of the application which pages are not right any more.

    from resilient.web.purging import Purger

    def purge(names):                                    # what your proxy or CDN understands
        httpx.post("https://…/purge", json={"tags": names}).raise_for_status()

    purger = Purger(cache, purge)

Pages bear the names of the values they were made of (`resilient.web.caching.headers`, ``names_in=``); when the cache is
told that one of them has changed, the purger tells the shared cache that name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from resilient import events
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.runtime import after_fork, at_exit, fork_safe_lock, start_thread
from resilient.web._events import PurgeFailed
from resilient.web.caching import token

__all__ = ["PurgeFailed", "Purger", "Watched"]

_LONGEST = 30.0  # seconds between two tries


class Watched(Protocol):
    """A `resilient.cache.Cache` or `resilient.cache.AsyncCache`."""

    namespace: str

    @property
    def everything(self) -> str:
        """The name that all it holds has."""
        ...

    def watch(self, watcher: Callable[[Sequence[str]], object]) -> Callable[[], None]:
        """Tell a function what is changed."""
        ...


class Purger:
    """Tells a shared cache what has changed, on a thread that lives while there is something to tell.

    A change costs its caller no more than a note. Names are told together, each once, and again after ``again``
    seconds: a page that was being made of the old value when the first purge came is purged by the second. What cannot
    be told is tried again, with growing pauses, for as long as the process lives.

    Args:
        cache: The cache whose changes are told. Each process tells its own.
        send: Called with the names, as `resilient.web.caching.token` writes them. It raises where they were not taken.
        again: Seconds after which a name is told a second time; as long as a page takes to be made. 0 for never.
        size: How many names may wait at most; beyond that everything is purged.
        batch: How many names are told in one call at most.
        clock: Where time is read.

    Raises:
        ConfigurationError: An argument is wrong.

    Examples:
        >>> from resilient.cache import Cache
        >>> cache, told = Cache(namespace="shop", ttl=300), []
        >>> purger = Purger(cache, told.extend)
        >>> cache.set("price:7", 100)
        >>> purger.close()
        >>> told
        ['shop:price:7']
    """

    def __init__(
        self,
        cache: Watched,
        send: Callable[[list[str]], object],
        *,
        again: float = 2.0,
        size: int = 10_000,
        batch: int = 100,
        clock: Clock = SYSTEM,
    ) -> None:
        if again < 0 or size < 1 or batch < 1:
            raise ConfigurationError("again= is no less than 0 seconds; size= and batch= are at least 1")
        self._cache = cache.namespace
        self._all = token(cache.everything)
        self._send = send
        self._again = again
        self._size = size
        self._batch = batch
        self._now = clock.monotonic
        self._lock = fork_safe_lock()
        self._reset()
        after_fork(self._reset)
        at_exit(self.close)
        self._end = cache.watch(self.note)

    def _reset(self) -> None:
        """What the parent has to tell the parent tells."""
        self._due: dict[str, tuple[float, bool]] = {}  # when a name is told, and whether for the first time
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def note(self, names: Sequence[str]) -> None:
        """These names have changed: they are told soon. For changes that no cache knows of, too."""
        now = self._now()
        with self._lock:
            if self._closed:
                return
            for name in names:
                self._due[token(name)] = (now, True)
            if len(self._due) > self._size:
                self._due = {self._all: (now, True)}
            if self._thread is None:
                self._thread = start_thread(self._work, name=f"purge-{self._cache}")
            self._wake.set()

    def _work(self) -> None:
        pause = 0.0
        while True:
            with self._lock:
                if self._closed or not self._due:
                    self._thread = None
                    return
                self._wake.clear()
                seconds = min(at for at, _ in self._due.values()) - self._now()
            if pause:
                self._stop.wait(pause)  # whatever changes meanwhile
            elif seconds > 0:
                self._wake.wait(seconds)
            if not self._closed:
                pause = 0.0 if self._told() else min(_LONGEST, max(0.1, 2 * pause))

    def _told(self) -> bool:
        """Tell what is due. Whether it was taken."""
        now = self._now()
        with self._lock:
            due = {name: note for name, note in self._due.items() if note[0] <= now}
            names = list(due)[: self._batch]
        if not names:
            return True
        if (error := self._sent(names)) is not None:
            events.emit(PurgeFailed(cache=self._cache, error=type(error).__name__, names=len(due)))
            return False
        with self._lock:
            for name in names:
                if self._due.get(name) != due[name]:
                    continue  # changed again meanwhile
                if due[name][1] and self._again:
                    self._due[name] = (now + self._again, False)
                else:
                    del self._due[name]
        return True

    def _sent(self, names: list[str]) -> Exception | None:
        try:
            self._send(names)
        except Exception as error:  # noqa: BLE001 - told as an event, and tried again
            return error
        return None

    def pending(self) -> int:
        """How many names are still to be told for the first time."""
        with self._lock:
            return sum(first for _, first in self._due.values())

    def close(self) -> None:
        """Tell what waits, once and now, and watch no more. May be repeated; runs at the process's end too."""
        self._end()
        with self._lock:
            self._closed = True
            names = [name for name, (_, first) in self._due.items() if first]
            self._due = {}
            self._wake.set()
            self._stop.set()
        for at in range(0, len(names), self._batch):
            error = self._sent(names[at : at + self._batch])
            if error is not None:
                events.emit(PurgeFailed(cache=self._cache, error=type(error).__name__, names=len(names) - at))
                return
