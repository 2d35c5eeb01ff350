"""The cache backend: ``CACHES = {"default": {"BACKEND": "resilient.django.cache.Cache", "LOCATION": "redis://…"}}``."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from django import conf
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.signals import setting_changed

from resilient.cache import AsyncCache, AsyncMemoryStore, MemoryStore
from resilient.cache import Cache as _Cache
from resilient.contrib._async.values import AsyncValues
from resilient.contrib._faces import options_of
from resilient.contrib._sync.values import Values
from resilient.errors import ConfigurationError, InvalidInput
from resilient.runtime import fork_safe_lock

__all__ = ["Cache"]

_DJANGOS = {"MAX_ENTRIES", "CULL_FREQUENCY"}
"""Options that every backend is given; how many entries an in-process cache holds is ``size`` here."""
_SIZE = 10_000
_CULL = 3  # Django's own
_NAME = re.compile(r"[\w .-]*")
"""What a cache in this process may be called, as Django's own is; no address without its scheme."""


class Cache(BaseCache):  # type: ignore[misc]  # Django is untyped
    """Django's cache API over `resilient.cache`, sync and async, which answers while its server is away.

    While it is, there is nothing in the cache: ``get`` gives the default, ``get_or_set`` its function's value, ``incr``
    raises ValueError as for any key that is not there. What is set or deleted meanwhile is forgotten on the server
    before it is trusted again.

    ``get_or_set`` with a function runs it once for all who ask at the same time, in this process and in others.
    ``clear`` forgets what is in this cache's namespace, and nothing else on the server. The a-methods do their own I/O,
    without a thread.

    Args:
        server: ``LOCATION``: ``redis://127.0.0.1:6379/0``, ``rediss://``, ``unix://``, ``redis+cluster://``,
            ``redis+sentinel://``; ``valkey`` for ``redis`` is the same. What is no address is the name of a cache in
            this process.
        params: ``TIMEOUT`` (``None`` is without end), ``KEY_PREFIX``, ``VERSION`` and ``KEY_FUNCTION`` as in Django.
            ``OPTIONS`` are arguments of `resilient.cache.Cache`: ``codec`` (``"pickle"``, signed, unless ``"safe"``,
            ``"json"`` or ``"orjson"`` is named), ``secret`` (by default ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``),
            ``namespace`` (``"django"``), ``compress``, ``timeout``, ``lease`` and the rest. ``jitter`` is 0 where it is
            not named: values live as long as Django was told. ``MAX_ENTRIES`` and ``CULL_FREQUENCY`` are for a cache
            in this process; without them it holds 10,000, and what was used longest ago goes first.

    Raises:
        ConfigurationError: On first use: an option is unknown or wrong. ``manage.py check`` tells it too.
    """

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._server = server
        self._options = params.get("OPTIONS") or {}

    @cached_property
    def _shared(self) -> Shared:
        # On first use: Django makes all backends in its system checks, and those are to tell what is wrong.
        return shared(self._server, self._options)

    @property
    def cache(self) -> _Cache:
        """The cache behind it, which the whole process shares: for tags, statistics and the like."""
        return self._shared.sync.cache

    @property
    def acache(self) -> AsyncCache:
        """The async face of `cache`, with the same entries."""
        return self._shared.asynchronous.cache

    def _life(self, timeout: Any) -> float | None:
        seconds: float | None = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return seconds

    # ------------------------------------------------------------------------------------------------------------ sync

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """The value of a key."""
        return self._shared.sync.get(self._name(key, version), default)

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """Store a value."""
        self._shared.sync.set(self._name(key, version), value, self._life(timeout))

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Store a value where none is. Whether none was."""
        return self._shared.sync.add(self._name(key, version), value, self._life(timeout))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Let a value live so long from now on. Whether there was one."""
        return self._shared.sync.touch(self._name(key, version), self._life(timeout))

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Forget a value. Whether there was one."""
        return self._shared.sync.delete(self._name(key, version))

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Whether there is a value."""
        return self._shared.sync.has(self._name(key, version))

    def get_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> Any:
        """The value of a key; where there is none the default, or what it returns, is stored first."""
        name, life = self._name(key, version), self._life(timeout)
        return self._shared.sync.get_or_set(name, default if callable(default) else lambda: default, life)

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add to a number, which keeps its end. Raises ValueError where nothing is, TypeError where it is no number."""
        name, values = self._name(key, version), self._shared.sync
        there = values.has(name)
        with _no_number():
            return _number(key, values.incr(name, delta, self._life(DEFAULT_TIMEOUT)) if there else None)

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """The values of those keys that have one, in one round trip."""
        names = self._names(keys, version)
        return {names[name]: value for name, value in self._shared.sync.get_many(names).items()}

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        """Store several values, in one round trip."""
        self._shared.sync.set_many(self._values(data, version), self._life(timeout))
        return []

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Forget several values, in one round trip."""
        self._shared.sync.delete_many(self._names(keys, version))

    def clear(self) -> None:
        """Forget everything in the namespace, whatever its prefix and version."""
        self._shared.sync.clear()

    def close(self, **_: Any) -> None:
        """What Django calls at each request's end. Connections go back after each call, so that none is held here."""

    # ----------------------------------------------------------------------------------------------------------- async

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """The async face of `get`."""
        return await self._shared.asynchronous.get(self._name(key, version), default)

    async def aset(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - Django names a life so
        version: int | None = None,
    ) -> None:
        """The async face of `set`."""
        name = self._name(key, version)
        await self._shared.asynchronous.set(name, value, self._life(timeout))

    async def aadd(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - Django names a life so
        version: int | None = None,
    ) -> bool:
        """The async face of `add`."""
        name = self._name(key, version)
        return await self._shared.asynchronous.add(name, value, self._life(timeout))

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:  # noqa: ASYNC109 - same
        """The async face of `touch`."""
        name = self._name(key, version)
        return await self._shared.asynchronous.touch(name, self._life(timeout))

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        """The async face of `delete`."""
        return await self._shared.asynchronous.delete(self._name(key, version))

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        """The async face of `has_key`."""
        return await self._shared.asynchronous.has(self._name(key, version))

    async def aget_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - Django names a life so
        version: int | None = None,
    ) -> Any:
        """The async face of `get_or_set`; the default may be a coroutine function too."""
        name, life = self._name(key, version), self._life(timeout)
        return await self._shared.asynchronous.get_or_set(name, _loader(default), life)

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """The async face of `incr`."""
        name, values = self._name(key, version), self._shared.asynchronous
        there = await values.has(name)
        with _no_number():
            return _number(key, await values.incr(name, delta, self._life(DEFAULT_TIMEOUT)) if there else None)

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """The async face of `get_many`."""
        names = self._names(keys, version)
        return {names[name]: value for name, value in (await self._shared.asynchronous.get_many(names)).items()}

    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - Django names a life so
        version: int | None = None,
    ) -> list[Any]:
        """The async face of `set_many`."""
        await self._shared.asynchronous.set_many(self._values(data, version), self._life(timeout))
        return []

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """The async face of `delete_many`."""
        await self._shared.asynchronous.delete_many(self._names(keys, version))

    async def aclear(self) -> None:
        """The async face of `clear`."""
        await self._shared.asynchronous.clear()

    # ------------------------------------------------------------------------------------------------------------ keys

    def _name(self, key: Any, version: int | None) -> str:
        return str(self.make_and_validate_key(key, version=version))

    def _names(self, keys: Iterable[Any], version: int | None) -> dict[str, Any]:
        return {self._name(key, version): key for key in keys}

    def _values(self, data: Mapping[Any, Any], version: int | None) -> dict[str, Any]:
        return {self._name(key, version): value for key, value in data.items()}


@contextlib.contextmanager
def _no_number() -> Iterator[None]:
    try:
        yield
    except InvalidInput as error:  # it stands for what Python says of adding to a text
        raise TypeError(error.message) from error


def _number(key: Any, found: int | None) -> int:
    if found is None:
        raise ValueError(f"Key {key!r} not found")
    return found


def _loader(default: Any) -> Callable[[], Any]:
    async def load() -> Any:
        made = default() if callable(default) else default
        return await made if inspect.isawaitable(made) else made

    return load


# ------------------------------------------------------------------------------------------------ one for each process


class Shared:
    """What all backends of one ``LOCATION`` and one set of ``OPTIONS`` share in this process, in both faces."""

    __slots__ = ("asynchronous", "sync")

    def __init__(self, target: str | None, options: dict[str, Any], cull: int | None = None) -> None:
        store: Any = target
        both: Any = target
        if target is None:  # one table for both
            store = MemoryStore(options.pop("size", _SIZE))
            store.table.cull = cull
            both = AsyncMemoryStore()
            both.table = store.table
        self.sync = Values(_Cache(store, **options))
        self.asynchronous = AsyncValues(AsyncCache(both, **options))


_lock = fork_safe_lock()
_made: dict[Any, Shared] = {}
"""Django makes a backend for each thread and each async context; what is behind them is the same. As Django's own
in-process cache does, it is found by its settings."""


def shared(server: Any, given: Mapping[str, Any]) -> Shared:
    """What stands behind a backend; made on first use. Raises ConfigurationError."""
    location = address_of(server)
    options = dict(given)
    if "://" in location and options.get("codec", "pickle") == "pickle" and "secret" not in options:
        options["secret"] = [conf.settings.SECRET_KEY, *getattr(conf.settings, "SECRET_KEY_FALLBACKS", ())]
    name = (location, repr(sorted(options.items())))
    with _lock:
        if name not in _made:
            _made[name] = make(location, options)
        return _made[name]


def make(location: str, options: dict[str, Any]) -> Shared:
    """Put a pair of caches together. No connection is made yet. Raises ConfigurationError."""
    size, cull = options.pop("MAX_ENTRIES", None), None
    if size is not None:
        options.setdefault("size", int(size))
        cull = int(options.get("CULL_FREQUENCY", _CULL))
    plain = {key: value for key, value in options.items() if key not in _DJANGOS}
    target = location if "://" in location else None
    try:
        return Shared(target, options_of(target, plain, "django"), cull)
    except TypeError as error:
        raise ConfigurationError(
            f"OPTIONS of a cache cannot be used: {error}", advice="they are the arguments of resilient.cache.Cache"
        ) from error


def address_of(server: Any) -> str:
    """``LOCATION`` as one text. Raises ConfigurationError."""
    if isinstance(server, list | tuple) and len(server) == 1:
        server = server[0]
    if not isinstance(server, str):
        raise ConfigurationError(
            "LOCATION of a cache is one address",
            advice="name a cluster as redis+cluster://host:port,host:port; reads of one key have one server",
        )
    if "://" not in server and not _NAME.fullmatch(server):
        raise ConfigurationError(
            f"LOCATION of a cache is neither an address nor a plain name: {server!r}",
            advice="write redis://host:6379/0; a plain name, such as 'local', keeps values in each process by itself",
        )
    return server


def _changed(*, setting: str, **_: object) -> None:
    """A test has other settings from here on: let go of what the former ones have made."""
    if setting in {"CACHES", "SECRET_KEY", "SECRET_KEY_FALLBACKS"}:
        with _lock:
            made = [*_made.values()]
            _made.clear()
        for each in made:
            each.sync.cache.close()


setting_changed.connect(_changed)
