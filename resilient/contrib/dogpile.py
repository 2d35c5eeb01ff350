"""The cache as a backend of dogpile.cache.

    from dogpile.cache import make_region, register_backend

    register_backend("resilient", "resilient.contrib.dogpile", "ResilientBackend")
    region = make_region().configure(
        "resilient", expiration_time=300, arguments={"url": "redis://127.0.0.1:6379/0", "secret": "..."}
    )

Needs ``dogpile.cache``, and the extra ``redis`` for a server.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from resilient.cache import Cache
from resilient.cache.rooms import Lock
from resilient.contrib._faces import MISSING, options_of
from resilient.contrib._sync.values import Values
from resilient.errors import ConfigurationError, MissingExtra
from resilient.runtime import fork_safe_lock

try:
    from dogpile.cache.api import NO_VALUE, BytesBackend, CacheMutex
except ImportError as error:
    raise MissingExtra("dogpile.cache", "dogpile.cache") from error

__all__ = ["ResilientBackend"]

_CACHE = ("compress", "compress_over", "connect_timeout", "lease", "local", "namespace", "size", "timeout", "unbounded")
"""Arguments that are those of `resilient.cache.Cache`; the rest of a region's arguments is of no concern here."""


_URL = "write url='redis://user:password@host:6379/0', or redis+cluster:// or redis+sentinel:// with several hosts"
_THEIRS = {
    **dict.fromkeys(("db", "host", "password", "port", "sentinels", "service_name", "startup_nodes", "username"), _URL),
    "connection_pool": "write url=, with an address or with a ready client",
    "redis_expiration_time": "write expiration_time=",
}
"""Arguments of dogpile's own backend for Redis, and what is said instead."""


class ResilientBackend(BytesBackend):
    """A backend that answers while its server is away: then there is nothing in it, and each process loads for itself.

    Values are the bytes that the region's serializer makes, which is pickle where none is named. They are signed, and
    the signature is verified before the region reads them.

    A value's loader runs in one process at a time: the lock stands on the server, whoever waits for it is woken, and it
    goes after ``lock_timeout`` seconds should its process die. While the server is away it is the process's own.

    Args:
        arguments: ``url`` (an address, a ready client, or nothing to keep values in this process), ``secret`` (needed
            with a server), ``expiration_time`` (seconds after which a value goes by itself: more than the region's own,
            since that one serves old values while one is loaded; without it, never), ``distributed_lock`` (``False``
            leaves each process to itself), ``lock_timeout`` (30 seconds), and arguments of `resilient.cache.Cache`:
            ``namespace``, ``compress``, ``local``, ``timeout``, ``connect_timeout`` and the like. Others are ignored.

    Raises:
        ConfigurationError: There is a server and no secret; an argument is wrong, or one of dogpile's own backend for
            Redis, which would have another meaning here or none.

    Examples:
        >>> backend = ResilientBackend({})
        >>> backend.set_serialized("greeting", b"hello")
        >>> backend.get_serialized("greeting")
        b'hello'
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        _check(arguments)
        target, secret = arguments.get("url"), arguments.get("secret")
        if target is not None and not secret:
            raise ConfigurationError(
                "the region's values are pickle where nothing else is said, so that they must be signed",
                advice="add secret='...' to the arguments, the same in every process",
            )
        given = {key: arguments[key] for key in _CACHE if key in arguments}
        options = options_of(target, {"codec": "safe", "secret": secret, **given}, "dogpile")
        self._values = Values(Cache(target, **options))
        self._life = arguments.get("expiration_time")
        self._lock_life = float(arguments.get("lock_timeout", 30.0))
        self._shared_lock = bool(arguments.get("distributed_lock", True)) and target is not None
        self._guard = fork_safe_lock()
        self._locks: weakref.WeakValueDictionary[str, _Local] = weakref.WeakValueDictionary()

    @property
    def cache(self) -> Cache:
        """The cache behind it."""
        return self._values.cache

    def has_lock_timeout(self) -> bool:
        """Whether a lock may end while its holder is at work."""
        return self._shared_lock

    def get_mutex(self, key: str) -> CacheMutex | None:
        """The lock of a key; ``None`` is dogpile's own, of this process."""
        if not self._shared_lock:
            return None
        with self._guard:
            local = self._locks.get(key)
            if local is None:
                local = self._locks[key] = _Local()
        return _Mutex(Lock(self.cache, key, self._lock_life), local)

    def get_serialized(self, key: str) -> Any:
        """The bytes of a key, or ``NO_VALUE``."""
        found = self._values.get(key)
        return NO_VALUE if found is MISSING else found

    def get_serialized_multi(self, keys: Iterable[str]) -> Sequence[Any]:
        """The bytes of keys, ``NO_VALUE`` for each without any; in one round trip."""
        names = list(keys)
        found = self._values.get_many(names)
        return [found.get(name, NO_VALUE) for name in names]

    def set_serialized(self, key: str, value: Any) -> None:
        """Store bytes."""
        self._values.set(key, value, self._life)

    def set_serialized_multi(self, mapping: Mapping[str, Any]) -> None:
        """Store several, in one round trip."""
        if mapping:
            self._values.set_many(mapping, self._life)

    def delete(self, key: str) -> None:
        """Forget a key."""
        self._values.delete_many([key])

    def delete_multi(self, keys: Iterable[str]) -> None:
        """Forget several, in one round trip."""
        self._values.delete_many(keys)


def _check(arguments: Mapping[str, Any]) -> None:
    """Refuse what is said to dogpile's own backend: unheard, each process would keep its own values, or for ever."""
    theirs = sorted(_THEIRS.keys() & set(arguments))
    if theirs:
        raise ConfigurationError(f"{theirs[0]!r} is no argument of this backend", advice=_THEIRS[theirs[0]])


class _Local:
    """The part of a lock that stands in this process."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = fork_safe_lock()


class _Mutex(CacheMutex):
    """A lock of all processes: one thread of each asks the server for it.

    Args:
        shared: Its part on the server.
        local: Its part in this process.
    """

    def __init__(self, shared: Lock, local: _Local) -> None:
        self._shared = shared
        self._local = local

    def acquire(self, wait: bool = True) -> bool:  # noqa: FBT001, FBT002 - dogpile's own
        """Take it. Whether it was taken; it always is where one waits."""
        if not self._local.lock.acquire(blocking=wait):
            return False
        try:
            taken = self._shared.acquire(wait=wait)
        except BaseException:
            self._local.lock.release()
            raise
        if not taken:
            self._local.lock.release()
        return taken

    def release(self) -> None:
        """Give it back, and wake one who waits for it."""
        try:
            self._shared.release()
        finally:
            self._local.lock.release()

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._local.lock.locked() or self._shared.held()
