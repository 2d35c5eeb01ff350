"""Where entries are kept: a Redis server, or this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resilient.cache._bells import AsyncBell
from resilient.cache._entry import HEAD, TOKEN
from resilient.cache._memory import Table
from resilient.cache._scripts import CLAIM, REPLACE, SWAP, WRITE, wake_key
from resilient.cache._seen import milliseconds
from resilient.cache._values import Claim, Swap
from resilient.clock import SYSTEM, Clock

if TYPE_CHECKING:
    from resilient.wire.redis import AsyncChannel

__all__ = ["AsyncMemoryStore", "AsyncRedisStore"]


class AsyncMemoryStore:
    """Entries in this process: bounded, and gone with it.

    Args:
        size: How many entries at most; the least recently used goes first.
        most: How many bytes at most, of keys and entries.
        clock: Where time is read.

    Examples:
        >>> import asyncio
        >>> store = AsyncMemoryStore(size=100)
        >>> asyncio.run(store.put_many({"k": b"v"}, life=1000))
        >>> asyncio.run(store.get_many(["k"]))
        [b'v']
    """

    local: bool = True
    failures: tuple[type[BaseException], ...] = ()

    def __init__(self, size: int = 10_000, most: int | None = None, *, clock: Clock = SYSTEM) -> None:
        self.table = Table(size, clock, most)
        self._clock = clock

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key, in order."""
        return self.table.get_many(keys)

    async def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        """Store entries with one life, whatever was there."""
        self.table.put_many(entries, life)

    async def get_or_claim(self, keys: Sequence[str], header: bytes, life: int) -> tuple[list[bytes | None], bool]:
        """Look, and begin to load what is not there; see `AsyncStore`."""
        return self.table.get_many(keys), self.table.claim(keys[0], None, header, life) is None

    async def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> tuple[bytes | None, float] | None:
        """Begin to load; see `AsyncStore`."""
        return self.table.claim(key, seen, header, life)

    async def claim_many(self, claims: Sequence[Claim]) -> list[tuple[bytes | None, float] | None]:
        """Begin to load several."""
        return [self.table.claim(*claim) for claim in claims]

    async def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        """Store or delete only if what is there still begins as expected; ``None`` expects nothing there."""
        return self.table.swap(key, expected, raw, life)

    async def write_versioned(self, key: str, fence: bytes | None, raw: bytes, life: int, lease: int) -> int:
        """End a write by versions; see `AsyncStore`."""
        return self.table.write_versioned(key, fence, raw, life, lease)

    async def swap_many(self, swaps: Sequence[Swap]) -> list[bool]:
        """The same for several."""
        return [self.table.swap(*swap) for swap in swaps]

    async def wait(self, key: str, token: int, seconds: float) -> None:
        """Until the lease with that token is over; so many seconds at most."""
        bell = AsyncBell(self._clock)
        if self.table.listen(key, token, bell.ring):
            try:
                await bell.wait(seconds)
            finally:
                self.table.unlisten(key, bell.ring)

    async def exchange_many(self, marks: Mapping[str, bytes], life: int) -> list[bytes | None]:
        """Store marks, and return what was there; see `AsyncStore`."""
        return [self.table.exchange(key, mark, life) for key, mark in marks.items()]

    async def aclose(self) -> None:
        """Forget everything."""
        self.table.clear()


class AsyncRedisStore:
    """Entries on a Redis or Valkey server, single or clustered.

    Args:
        channel: The way to it, from `resilient.wire.redis`.
    """

    local: bool = False

    def __init__(self, channel: AsyncChannel) -> None:
        import redis

        from resilient.wire.redis import Script

        self.failures: tuple[type[BaseException], ...] = (redis.RedisError, OSError)
        self._refusals = redis.ResponseError
        self.channel = channel
        self._call = channel.call
        self._claim = Script(CLAIM)
        self._swap = Script(SWAP)
        self._write = Script(WRITE)
        self._replace = Script(REPLACE)
        self.get_many = channel.get_many
        """The bytes under each key, in order; one round trip to each server."""

    async def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        """Store entries with one life, whatever was there; in one round trip."""
        self._all(await self._replies([("SET", key, raw, "PX", life) for key, raw in entries.items()]))

    async def get_or_claim(self, keys: Sequence[str], header: bytes, life: int) -> tuple[list[bytes | None], bool]:
        """Look, and begin to load what is not there, in one round trip; see `AsyncStore`."""
        found, done = await self.channel.get_many_and(keys, ("SET", keys[0], header, "PX", life, "NX"))
        return found, done == b"OK"  # a server that is full, or refuses all that writes, still tells what is there

    async def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> tuple[bytes | None, float] | None:
        """Begin to load; see `AsyncStore`. Where nothing was seen, one plain command does it if that is still so."""
        if not seen and await self._call("SET", key, header, "PX", life, "NX") is not None:
            return None
        return _claimed(await self.channel.script(self._claim, (key,), ((seen or b"")[:HEAD], header, life)))

    async def claim_many(self, claims: Sequence[Claim]) -> list[tuple[bytes | None, float] | None]:
        """Begin to load several, in one round trip."""
        runs = [((key,), ((seen or b"")[:HEAD], header, life)) for key, seen, header, life in claims]
        return [_claimed(reply) for reply in self._all(await self.channel.script_many(self._claim, runs))]

    async def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        """Store or delete only if what is there still begins as expected; ``None`` expects nothing there.

        Who waits for the lease that is expected is woken.
        """
        if expected is None:
            return raw is None or await self._call("SET", key, raw, "PX", life, "NX") is not None
        return bool(await self.channel.script(self._swap, *_swapping(key, expected, raw, life)))

    async def write_versioned(self, key: str, fence: bytes | None, raw: bytes, life: int, lease: int) -> int:
        """End a write by versions; see `AsyncStore`."""
        return int(await self.channel.script(self._write, (key,), ((fence or b"")[:HEAD], raw, life, lease)))

    async def swap_many(self, swaps: Sequence[Swap]) -> list[bool]:
        """The same for several that expect something, in one round trip."""
        runs = [_swapping(key, expected or b"", raw, life) for key, expected, raw, life in swaps]
        return [bool(reply) for reply in self._all(await self.channel.script_many(self._swap, runs))]

    async def wait(self, key: str, token: int, seconds: float) -> None:
        """Until the lease with that token is over; so many seconds at most."""
        stream = wake_key(key, token)
        await self.channel.block(seconds, "XREAD", "BLOCK", milliseconds(seconds), "STREAMS", stream, "0")

    async def exchange_many(self, marks: Mapping[str, bytes], life: int) -> list[bytes | None]:
        """Store marks, and return what was there, in one round trip; where one is refused, in two.

        Refused they are for want of room, or since somebody else has put a list there.
        """
        entries = list(marks.items())
        replies = await self._replies([("SET", key, mark, "PX", life, "GET") for key, mark in entries])
        refused = [at for at, reply in enumerate(replies) if isinstance(reply, self._refusals)]
        if refused:
            runs = [((key,), (mark, life)) for key, mark in (entries[at] for at in refused)]
            for at, was in zip(refused, await self.channel.script_many(self._replace, runs), strict=True):
                replies[at] = replies[at] if isinstance(was, Exception) else was  # the first says why
        return self._all(replies)

    async def _replies(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What the server answers to each, errors among it; one command is sent in fewer steps than several."""
        if len(commands) != 1:
            return await self.channel.call_many(commands)
        try:
            return [await self._call(*commands[0])]
        except self._refusals as error:
            return [error]

    @staticmethod
    def _all(replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def aclose(self) -> None:
        """Close the connections, if they were made for this store."""
        await self.channel.aclose()


def _claimed(reply: Any) -> tuple[bytes | None, float] | None:
    """What the script said: that the caller is to load, or what is there and for how long."""
    return None if reply == 1 else (reply[0] or None, max(0.0, reply[1] / 1000))


def _swapping(key: str, expected: bytes, raw: bytes | None, life: int) -> tuple[tuple[str, str], tuple[Any, ...]]:
    """Keys and arguments of a swap: the stream that wakes bears the token of what is expected."""
    token = int.from_bytes(expected[TOKEN], "big")
    return (key, wake_key(key, token)), (expected[:HEAD], raw or b"", life)
