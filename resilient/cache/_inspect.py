"""What stands under a key, in words: for people who look into a cache. Values are never shown."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from resilient.cache._async.cache import AsyncCache
from resilient.cache._codecs import describe
from resilient.cache._entry import (
    FAILED,
    FENCE,
    LEASE,
    NEGATIVE,
    TOMBSTONE,
    Entry,
    Life,
    Unreadable,
    unpack,
)
from resilient.cache._keys import physical
from resilient.cache._stamps import is_ours, namespace_key, number, tag_key
from resilient.cache._sync.cache import Cache
from resilient.cache._tags import unpack_tags

__all__ = ["lines_of_cache", "lines_of_key"]

_ROUNDS = 100  # so many times each server is asked for a part of its keys
_PART = 1000

_KINDS = {
    TOMBSTONE: "tombstone: invalidated a moment ago",
    FENCE: "fence: a writer is at work",
    LEASE: "lease: somebody loads it",
}


def lines_of_key(cache: Cache | AsyncCache, key: str) -> tuple[bool, list[str]]:
    """Whether a key has a value that is served, and what stands under it.

    Args:
        cache: The cache.
        key: The key, as `Cache.get` takes it.

    Raises:
        InvalidInput: The key is no text, or empty.
        redis.RedisError: The server does not answer.

    Examples:
        >>> cache = Cache(namespace="shop", ttl=60, jitter=0)
        >>> cache.set("greeting", "hello")
        >>> served, lines = lines_of_key(cache, "greeting")
        >>> served, lines[0], lines[2]
        (True, 'greeting', '  codec tagged; 69 bytes stored, 6 decoded')
    """
    raw, left = _look(cache, physical(cache.namespace, key))
    if raw is None:
        return False, [key, "  nothing"]
    try:
        entry = unpack(raw)
    except Unreadable as error:
        return False, [key, f"  no entry of this version: {error.reason}; {len(raw)} bytes"]
    now = cache.clock.wall()
    lines = [key, f"  {_life(entry, now)}"]
    served = entry.life(now) is not Life.GONE
    if not entry.flags & (TOMBSTONE | FENCE | LEASE):
        size = f"{len(raw):,} bytes stored"
        try:
            size += f", {cache.codec().measure(entry.codec, entry.body):,} decoded"
        except Unreadable as error:
            served, size = False, f"{size}; unreadable here: {error.reason}"
        lines.append(f"  codec {describe(entry.codec)}; {size}")
        lines.append(f"  age {_seconds(entry.age(now))}, its load took {_seconds(entry.cost)}")
        if entry.held(now):
            lines.append(f"  somebody loads it anew, for {_seconds(entry.held(now))} at most")
    marked, stands = _tags(cache, entry)
    lines += marked
    served = served and stands
    if left is not None:
        lines.append(f"  the server keeps it for {_seconds(left)}")
    return served, lines


def _life(entry: Entry, now: float) -> str:
    for flag, words in _KINDS.items():
        if entry.flags & flag:
            return f"{words}, for {_seconds(max(0.0, entry.created + entry.keep - now))} at most"
    kind = "absence: there is no such thing" if entry.flags & NEGATIVE else "value"
    kind = "error of its loader" if entry.flags & FAILED else kind
    life = entry.life(now)
    if life is Life.FRESH:
        text = f"{kind}, fresh for {_seconds(entry.created + entry.fresh - now)}"
        return f"{text}, then stale for {_seconds(entry.keep - entry.fresh)}" if entry.keep > entry.fresh else text
    if life is Life.STALE:
        return f"{kind}, stale, may be served for {_seconds(entry.created + entry.keep - now)}"
    return f"{kind}, gone since {_seconds(now - entry.created - entry.keep)}"


def _tags(cache: Cache | AsyncCache, entry: Entry) -> tuple[list[str], bool]:
    """What an entry's stamps say, and whether they still stand."""
    try:
        tags = unpack_tags(entry.tags)
    except Unreadable:
        return ["  its tags cannot be read"], False
    if not entry.generation:  # what bears no stamps is served to nobody
        return ([f"  tags: {', '.join(name for name, _ in tags)}"] if tags else []), False
    keys = [namespace_key(cache.namespace), *[tag_key(cache.namespace, name) for name, _ in tags]]
    raws = _wait(cache, lambda: cache.store.get_many(keys))
    lines = []
    if number(raws[0]) != entry.generation:
        lines.append("  its namespace was cleared")
    gone = [number(raw) != stamp for raw, (_, stamp) in zip(raws[1:], tags, strict=True)]
    if tags:
        names = [f"{name} (invalidated)" if moved else name for (name, _), moved in zip(tags, gone, strict=True)]
        lines.append(f"  tags: {', '.join(names)}")
    return lines, number(raws[0]) == entry.generation and not any(gone)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"


def _look(cache: Cache | AsyncCache, key: str) -> tuple[bytes | None, float | None]:
    """The bytes under a key of the store, and how many seconds more the server keeps them."""
    channel = getattr(cache.store, "channel", None)
    if channel is None:
        return _wait(cache, lambda: cache.store.get_many([key]))[0], None
    raw, left = _wait(cache, lambda: channel.call_many([("GET", key), ("PTTL", key)]))
    for reply in (raw, left):
        if isinstance(reply, Exception):
            raise reply
    return raw, left / 1000 if left >= 0 else None


def _wait(cache: Cache | AsyncCache, ask: Callable[[], Any]) -> Any:
    """What a cache of either face answers."""
    if not isinstance(cache, AsyncCache):
        return ask()

    async def asked() -> Any:
        try:
            return await ask()
        finally:
            channel = getattr(cache.store, "channel", None)
            if channel is not None:  # its connections belong to this loop, which ends here
                await getattr(channel, "unbind", channel.aclose)()

    return asyncio.run(asked())


# ----------------------------------------------------------------------------------------------------- a whole cache


def lines_of_cache(cache: Cache | AsyncCache) -> list[str]:
    """What is known of a cache as a whole: its keys, its reads in this process, and those of its server.

    The keys are counted by SCAN, of at most 100,000 on each server.

    Raises:
        redis.RedisError: The server does not answer.

    Examples:
        >>> lines_of_cache(Cache(namespace="shop", ttl=60))
        ['shop: in this process, up']
    """
    channel = getattr(cache.store, "channel", None)
    stats = cache.stats()
    where = "in this process" if channel is None else "a Cluster" if channel.clustered else "a server"
    lines = [f"{cache.namespace}: {where}, {stats.state}"]
    reads = stats.hits + stats.misses
    if reads:
        lines.append(
            f"  this process: {reads:,} reads, hit ratio {stats.hit_ratio:.1%}; {stats.loads:,} loads, "
            f"{stats.stores:,} stored, {stats.refused:,} refused, {stats.unreadable:,} unreadable"
        )
    if channel is None:
        return lines
    count, whole = 0, True
    hits = misses = 0
    for place in _places(cache, channel):
        found, ended = _count(cache, channel, place)
        count, whole = count + found, whole and ended
        known = _keyspace(cache, channel, place)
        hits, misses = hits + known[0], misses + known[1]
    lines.append(f"  keys: {'' if whole else 'at least '}{count:,}")
    if hits + misses:
        lines.append(f"  the server, all that it serves: hit ratio {hits / (hits + misses):.1%}")
    return lines


def _places(cache: Cache | AsyncCache, channel: Any) -> list[str | None]:
    """A key for each server that has keys, by which a command is sent there; ``None`` means the only one."""
    if not channel.clustered:
        return [None]
    from resilient.wire.redis._commands import slot_of

    slots: list[Any] = _wait(cache, lambda: channel.call("CLUSTER", "SLOTS"))
    starts: dict[tuple[Any, ...], range] = {}
    for first, last, master, *_ in slots:
        starts.setdefault((master[0], master[1]), range(first, last + 1))
    return [_key_in(span, slot_of) for span in starts.values()]


def _key_in(span: range, slot_of: Callable[[str], int]) -> str:
    number = 0
    while slot_of(str(number)) not in span:
        number += 1
    return str(number)


def _count(cache: Cache | AsyncCache, channel: Any, place: str | None) -> tuple[int, bool]:
    """How many keys of the cache one server has, and whether all of its keys were looked at."""
    seen: set[bytes] = set()
    cursor = b"0"
    for _ in range(_ROUNDS):
        command: Sequence[Any] = ("SCAN", cursor, "MATCH", f"{cache.namespace}:*", "COUNT", _PART)
        cursor, keys = _send(cache, channel, command, place)
        seen.update(key for key in keys if not is_ours(key.decode(errors="replace")))
        if int(cursor) == 0:
            return len(seen), True
    return len(seen), False


def _keyspace(cache: Cache | AsyncCache, channel: Any, place: str | None) -> tuple[int, int]:
    """Hits and misses of a whole server since it began; none where it does not tell."""
    import redis.exceptions

    try:
        text = _send(cache, channel, ("INFO", "stats"), place)
    except redis.exceptions.ResponseError:
        return 0, 0  # a user without the right to ask, or a fake
    if isinstance(text, bytes):
        text = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
    hits, misses = (float(text.get(name, 0)) for name in ("keyspace_hits", "keyspace_misses"))
    return (int(hits), int(misses)) if math.isfinite(hits + misses) else (0, 0)


def _send(cache: Cache | AsyncCache, channel: Any, command: Sequence[Any], place: str | None) -> Any:
    return _wait(cache, lambda: channel.call(*command) if place is None else channel.call(*command, key=place))
