"""The face that stores see: commands in, replies out, over one server or many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from resilient.errors import needs_extra
from resilient.wire.redis._commands import Argument, Script

with needs_extra("redis"):
    import redis.exceptions

__all__ = ["AsyncChannel"]


class AsyncChannel(ABC):
    """A way to send commands to Redis or Valkey.

    The sync face is safe to share between threads; the async one makes connections for each event loop, on first use
    in it. Both may be used in a forked child. A ready async client belongs to the loop that its user runs it in.

    Replies are those of the second version of the protocol, the same for every target: bytes, whole numbers, ``None``
    and lists; a status such as ``OK`` is bytes too. Errors are redis-py's, judged by `classify`.
    """

    clustered: bool = False
    """Whether the keys live on several servers, so that one command may only name keys of one slot."""

    @abstractmethod
    async def call(self, *args: Argument, key: Argument | None = None) -> Any:
        """Send one command, and return the reply.

        Args:
            *args: The command's name, in capitals, and its arguments.
            key: The key that says which node of a Cluster it goes to, where that is not plain from the command.

        Raises:
            redis.RedisError: It failed.
        """

    @abstractmethod
    async def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send several commands in one round trip, to each node its own, and return the replies in order.

        An error with which the server answered one command stands in its place. They are no transaction.

        Raises:
            redis.RedisError: A connection failed; some may have taken effect.
        """

    @abstractmethod
    async def block(self, seconds: float, *args: Argument) -> Any:
        """Send a command with which the server waits that many seconds at most, on a connection of its own."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections, if they were made here; of an async channel those of the running loop."""

    async def get_many(self, keys: Sequence[Argument]) -> list[Any]:
        """The values under several keys, in order; one round trip, to each node its own."""
        if not keys:
            return []
        if not self.clustered:
            found: list[Any] = await self.call("MGET", *keys)
            return found
        return [_value(reply) for reply in await self.call_many([("GET", key) for key in keys])]

    async def get_many_and(self, keys: Sequence[Argument], command: Sequence[Argument]) -> tuple[list[Any], Any]:
        """What `get_many` gives, and the reply of a command that is sent after it, in one round trip to each node.

        An error with which the server answered the command stands in the place of its reply.
        """
        values: Any
        if self.clustered:
            *found, reply = await self.call_many([*[("GET", key) for key in keys], command])
            values = [_value(each) for each in found]
        else:
            values, reply = await self.call_many([("MGET", *keys), command])
        if isinstance(values, Exception):
            raise values
        return values, reply

    async def script(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument] = ()) -> Any:
        """Run a script by its name; its text goes along where the server does not know it yet."""
        try:
            return await self.call(*script.named(keys, args))
        except redis.exceptions.NoScriptError:
            return await self.call(*script.whole(keys, args))

    async def script_many(
        self, script: Script, runs: Sequence[tuple[Sequence[Argument], Sequence[Argument]]]
    ) -> list[Any]:
        """Run a script several times in one round trip, each time with its keys and arguments; see `call_many`."""
        replies = await self.call_many([script.named(*run) for run in runs])
        unknown = _unknown(replies)
        if unknown:
            again = await self.call_many([script.whole(*runs[index]) for index in unknown])
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        return replies

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _value(reply: Any) -> Any:
    if isinstance(reply, redis.exceptions.ResponseError):  # a key that holds no string: MGET calls that absent too
        if str(reply).startswith("WRONGTYPE"):
            return None
        raise reply
    return reply


def _unknown(replies: Sequence[Any]) -> list[int]:
    return [at for at, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
