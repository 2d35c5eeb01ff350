"""Where sessions are kept: a Redis or Valkey server, or this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from resilient.cache.rooms import Refusals
from resilient.clock import SYSTEM, Clock
from resilient.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from resilient.policy import Breaker, Pipeline
from resilient.policy.classify import chain, default
from resilient.runtime import fork_safe_lock
from resilient.web._sessions import Record, SessionStore

__all__ = ["MemorySessions", "RedisSessions", "open_store"]

P = ParamSpec("P")
T = TypeVar("T")

_LOAD = """
local found = redis.call('HGETALL', KEYS[1])
if #found == 0 then return {0, found} end
local left = redis.call('PTTL', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {left, found}
"""
_CREATE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""
_CHANGE = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local put = tonumber(ARGV[2])
if put > 0 then redis.call('HSET', KEYS[1], unpack(ARGV, 3, 2 + put)) end
if #ARGV > 2 + put then redis.call('HDEL', KEYS[1], unpack(ARGV, 3 + put)) end
if ARGV[1] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
"""
_TAKE = """
local found = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1])
return found
"""
_JOIN = """
redis.call('SADD', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('SCARD', KEYS[1])
"""
_MANY = 32  # in an owner's list: from so many on, those that are over are sought at each login
_FIELDS = 1000  # of one session: so many a script can be told of in one step


def open_store(target: Any, *, namespace: str, clock: Clock = SYSTEM, **limits: Any) -> SessionStore:
    """The store for what the user named: an address, a ready client, a store, or nothing for this process."""
    if target is None:
        return MemorySessions(clock=clock)
    if hasattr(target, "members") and hasattr(target, "change"):
        store: SessionStore = target
        return store
    return RedisSessions(target, namespace=namespace, **limits)


class RedisSessions:
    """Sessions on a Redis or Valkey server, single or clustered: each one hash, each owner's list one set.

    Args:
        target: An address or a ready client; see `resilient.cache.Cache`.
        namespace: What the keys begin with.
        limits: ``connect_timeout`` and ``timeout`` in seconds, ``unbounded``; as for `resilient.cache.Cache`.
    """

    def __init__(self, target: Any, *, namespace: str, **limits: Any) -> None:
        import redis

        from resilient.wire.redis import Script, classify, open_channel

        self._channel = open_channel(target, **limits)
        self._failures = (redis.RedisError, OSError)
        self._pipeline = Pipeline(
            f"sessions:{namespace}",
            Breaker(consecutive=3, rate=0.5, min_calls=20, window=2.0, wait=0.5, max_wait=0.8),
            classify=chain((classify, default)),
        )
        self._load, self._create = Script(_LOAD), Script(_CREATE)
        self._change, self._take, self._join = Script(_CHANGE), Script(_TAKE), Script(_JOIN)
        self._namespace = namespace
        self._refusals = Refusals(f"sessions:{namespace}", classify, SYSTEM)

    def _ask(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._pipeline.call(operation, *args, **kwargs)
        except DeadlineExceeded:
            raise
        except Unavailable as error:
            raise Unavailable(
                "the sessions' server is away, so that nobody can be told logged in or not",
                retry_after=error.retry_after,
            ) from error
        except self._failures as error:
            self._refusals.note(error)
            raise Unavailable(
                "the sessions' server did not answer, so that nobody can be told logged in or not", retry_after=1.0
            ) from error

    def _key(self, key: str) -> str:
        return f"{self._namespace}:session:{key}"

    def _list(self, owner: str) -> str:
        return f"{self._namespace}:sessions-of:{owner}"

    def load(self, key: str, life: float | None) -> Record | None:
        """See `SessionStore.load`."""
        name = self._key(key)
        if life is None:
            found, left = self._all([("HGETALL", name), ("PTTL", name)])
        else:
            left, found = self._ask(self._channel.script, self._load, (name,), (_milliseconds(life),))
        if not found or left <= 0:
            return None
        return Record(_fields(found), left / 1000)

    def create(self, key: str, fields: Mapping[str, bytes], life: float) -> bool:
        """See `SessionStore.create`."""
        args = (_milliseconds(life), *_flat(fields))
        return bool(self._ask(self._channel.script, self._create, (self._key(key),), args))

    def change(self, key: str, put: Mapping[str, bytes], drop: list[str], life: float | None) -> bool:
        """See `SessionStore.change`."""
        args = (0 if life is None else _milliseconds(life), 2 * len(put), *_flat(put), *drop)
        return bool(self._ask(self._channel.script, self._change, (self._key(key),), args))

    def delete(self, key: str) -> bool:
        """See `SessionStore.delete`."""
        return bool(self._ask(self._channel.call, "DEL", self._key(key)))

    def take(self, key: str) -> dict[str, bytes] | None:
        """See `SessionStore.take`."""
        return _fields(self._ask(self._channel.script, self._take, (self._key(key),), ())) or None

    def join(self, owner: str, key: str, life: float) -> None:
        """See `SessionStore.join`."""
        args = (key, _milliseconds(life))
        if self._ask(self._channel.script, self._join, (self._list(owner),), args) >= _MANY:
            others = [each for each in self.members(owner) if each != key]
            there = self._all([("EXISTS", self._key(each)) for each in others])
            self.leave(owner, [each for each, is_there in zip(others, there, strict=True) if not is_there])

    def members(self, owner: str) -> list[str]:
        """See `SessionStore.members`."""
        return [key.decode() for key in self._ask(self._channel.call, "SMEMBERS", self._list(owner))]

    def leave(self, owner: str, keys: list[str]) -> None:
        """See `SessionStore.leave`."""
        if keys:
            self._ask(self._channel.call, "SREM", self._list(owner), *keys)

    def _all(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        return self._ask(self._several, commands) if commands else []

    def _several(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        replies = self._channel.call_many(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def close(self) -> None:
        """See `SessionStore.close`."""
        self._channel.close()


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _fields(found: list[bytes]) -> dict[str, bytes]:
    names = [name.decode(errors="replace") for name in found[::2]]  # what is no text was not written here
    return dict(zip(names, found[1::2], strict=True))


def _flat(fields: Mapping[str, bytes]) -> list[str | bytes]:
    if len(fields) > _FIELDS:
        raise InvalidInput(f"a session holds at most {_FIELDS} fields", advice="put what belongs together into one")
    return [part for pair in fields.items() for part in pair]


class MemorySessions:
    """Sessions in this process: for development and tests.

    Args:
        size: How many at most. When there is no room a new one is refused: ending others would log people out.
        clock: Where time is read.
    """

    def __init__(self, size: int = 100_000, *, clock: Clock = SYSTEM) -> None:
        self._size = size
        self._clock = clock
        self._lock = fork_safe_lock()
        self._sessions: dict[str, tuple[dict[str, bytes], float]] = {}
        self._lists: dict[str, set[str]] = {}
        self.away = False
        """Whether it acts as if it were a server that does not answer."""

    def _live(self, key: str) -> tuple[dict[str, bytes], float] | None:
        if self.away:
            raise Unavailable("the sessions' server is away", retry_after=1.0)
        found = self._sessions.get(key)
        if found is not None and found[1] <= self._clock.monotonic():
            del self._sessions[key]
            return None
        return found

    def load(self, key: str, life: float | None) -> Record | None:
        """See `SessionStore.load`."""
        with self._lock:
            found = self._live(key)
            if found is None:
                return None
            now = self._clock.monotonic()
            if life is not None:
                self._sessions[key] = found[0], now + life
            return Record(dict(found[0]), found[1] - now)

    def create(self, key: str, fields: Mapping[str, bytes], life: float) -> bool:
        """See `SessionStore.create`."""
        with self._lock:
            if self._live(key) is not None:
                return False
            if len(self._sessions) >= self._size:
                for each in list(self._sessions):
                    self._live(each)
                if len(self._sessions) >= self._size:
                    raise Overloaded(f"this process holds {self._size} sessions already")
            self._sessions[key] = dict(fields), self._clock.monotonic() + life
            return True

    def change(self, key: str, put: Mapping[str, bytes], drop: list[str], life: float | None) -> bool:
        """See `SessionStore.change`."""
        with self._lock:
            found = self._live(key)
            if found is None:
                return False
            kept = {name: raw for name, raw in found[0].items() if name not in drop}
            until = found[1] if life is None else self._clock.monotonic() + life
            self._sessions[key] = {**kept, **put}, until
            return True

    def delete(self, key: str) -> bool:
        """See `SessionStore.delete`."""
        with self._lock:
            found = self._live(key)
            self._sessions.pop(key, None)
            return found is not None

    def take(self, key: str) -> dict[str, bytes] | None:
        """See `SessionStore.take`."""
        with self._lock:
            found = self._live(key)
            self._sessions.pop(key, None)
            return None if found is None else found[0]

    def join(self, owner: str, key: str, life: float) -> None:  # noqa: ARG002 - a list goes with its last session
        """See `SessionStore.join`."""
        with self._lock:
            there = {each for each in self._lists.get(owner, ()) if self._live(each) is not None}
            self._lists[owner] = there | {key}

    def members(self, owner: str) -> list[str]:
        """See `SessionStore.members`."""
        with self._lock:
            self._live("")  # says where it is away
            return sorted(self._lists.get(owner, ()))

    def leave(self, owner: str, keys: list[str]) -> None:
        """See `SessionStore.leave`."""
        with self._lock:
            left = self._lists.get(owner, set()) - set(keys)
            self._lists[owner] = left
            if not left:
                del self._lists[owner]

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._sessions.clear()
            self._lists.clear()
