"""A channel to the primary that sentinels name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient.clock import SYSTEM
from resilient.errors import needs_extra
from resilient.wire.redis._addresses import Address, Place
from resilient.wire.redis._async.server import AsyncServerChannel
from resilient.wire.redis._commands import Argument
from resilient.wire.redis._dialing import dialer
from resilient.wire.redis._limits import Limits
from resilient.wire.redis._nodes import AsyncNode
from resilient.wire.redis._parsing import pack

with needs_extra("redis"):
    import redis.exceptions

__all__ = ["AsyncSentinelChannel"]


class AsyncSentinelChannel(AsyncServerChannel):
    """See `AsyncChannel`.

    Each new connection asks the sentinels where the primary is, and then the server whether it is one. A server that
    says it takes no writes, or a connection that is lost or silent, makes all connections new.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        ask = dialer(address, limits, AsyncNode.kinds, sentinels=True)
        self._sentinels = [AsyncNode(place, ask, limits) for place in address.places]
        self._budget = limits.connect + limits.answer
        self._question = pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service))
        dial = dialer(address, limits, AsyncNode.kinds)
        self._node = AsyncNode(("", 0), dial, limits, locate=self.locate, admit=_admit)
        self._blocking = AsyncNode(("", 0), dial, limits, locate=self.locate, admit=_admit)

    async def locate(self) -> Place:
        """Where the primary is, by the first sentinel that names one. Raises redis.ConnectionError."""
        failure: Exception | None = None
        until = SYSTEM.monotonic() + self._budget
        for sentinel in list(self._sentinels):
            if SYSTEM.monotonic() > until:
                break
            try:
                reply = await sentinel.call(self._question, True)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                reply = error
            if isinstance(reply, list):
                self._sentinels.sort(key=lambda each: each is not sentinel)  # whoever answered is asked first
                return reply[0].decode(), int(reply[1])
            failure = reply if isinstance(reply, Exception) else failure
        raise redis.exceptions.ConnectionError("Error connecting to the primary: no sentinel names one") from failure

    async def call(self, *args: Argument, key: Argument | None = None) -> Any:
        """See `AsyncChannel.call`."""
        try:
            return await super().call(*args, key=key)
        except redis.exceptions.ReadOnlyError:  # it was the primary once; nothing was done
            self._renew()
            return await super().call(*args, key=key)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            self._renew()
            raise

    async def get_many(self, keys: Sequence[Argument]) -> list[Any]:
        """See `AsyncChannel.get_many`."""
        try:
            return await super().get_many(keys)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            self._renew()
            raise

    async def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """See `AsyncChannel.call_many`."""
        try:
            replies = await super().call_many(commands)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            self._renew()
            raise
        refused = [at for at, reply in enumerate(replies) if isinstance(reply, redis.exceptions.ReadOnlyError)]
        if refused:
            self._renew()
            again = await super().call_many([commands[at] for at in refused])
            for at, reply in zip(refused, again, strict=True):
                replies[at] = reply
        return replies

    def _renew(self) -> None:
        self._node.renew()
        self._blocking.renew()

    async def aclose(self) -> None:
        """See `AsyncChannel.aclose`."""
        await super().aclose()
        for sentinel in self._sentinels:
            await sentinel.aclose()


async def _admit(connection: Any) -> None:
    """Refuse a server that is no primary: sentinels learn of a change one after the other."""
    await connection.send_command("ROLE")
    role = (await connection.read_response())[0]
    if role != b"master":
        raise redis.exceptions.ConnectionError(f"Error connecting to the primary: it is a {role.decode()}")
