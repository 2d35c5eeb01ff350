# Generated from resilient/wire/redis/_async/sentinel.py by tools/unasync.py: do not edit.
"""A channel to the primary that sentinels name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient.clock import SYSTEM
from resilient.errors import needs_extra
from resilient.wire.redis._addresses import Address, Place
from resilient.wire.redis._commands import Argument
from resilient.wire.redis._dialing import dialer
from resilient.wire.redis._limits import Limits
from resilient.wire.redis._nodes import Node
from resilient.wire.redis._parsing import pack
from resilient.wire.redis._sync.server import ServerChannel

with needs_extra("redis"):
    import redis.exceptions

__all__ = ["SentinelChannel"]


class SentinelChannel(ServerChannel):
    """See `Channel`.

    Each new connection asks the sentinels where the primary is, and then the server whether it is one. A server that
    says it takes no writes, or a connection that is lost or silent, makes all connections new.
    """

    def __init__(self, address: Address, limits: Limits) -> None:
        ask = dialer(address, limits, Node.kinds, sentinels=True)
        self._sentinels = [Node(place, ask, limits) for place in address.places]
        self._budget = limits.connect + limits.answer
        self._question = pack(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service))
        dial = dialer(address, limits, Node.kinds)
        self._node = Node(("", 0), dial, limits, locate=self.locate, admit=_admit)
        self._blocking = Node(("", 0), dial, limits, locate=self.locate, admit=_admit)

    def locate(self) -> Place:
        """Where the primary is, by the first sentinel that names one. Raises redis.ConnectionError."""
        failure: Exception | None = None
        until = SYSTEM.monotonic() + self._budget
        for sentinel in list(self._sentinels):
            if SYSTEM.monotonic() > until:
                break
            try:
                reply = sentinel.call(self._question, True)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                reply = error
            if isinstance(reply, list):
                self._sentinels.sort(key=lambda each: each is not sentinel)  # whoever answered is asked first
                return reply[0].decode(), int(reply[1])
            failure = reply if isinstance(reply, Exception) else failure
        raise redis.exceptions.ConnectionError("Error connecting to the primary: no sentinel names one") from failure

    def call(self, *args: Argument, key: Argument | None = None) -> Any:
        """See `Channel.call`."""
        try:
            return super().call(*args, key=key)
        except redis.exceptions.ReadOnlyError:  # it was the primary once; nothing was done
            self._renew()
            return super().call(*args, key=key)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            self._renew()
            raise

    def get_many(self, keys: Sequence[Argument]) -> list[Any]:
        """See `Channel.get_many`."""
        try:
            return super().get_many(keys)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            self._renew()
            raise

    def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """See `Channel.call_many`."""
        try:
            replies = super().call_many(commands)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            self._renew()
            raise
        refused = [at for at, reply in enumerate(replies) if isinstance(reply, redis.exceptions.ReadOnlyError)]
        if refused:
            self._renew()
            again = super().call_many([commands[at] for at in refused])
            for at, reply in zip(refused, again, strict=True):
                replies[at] = reply
        return replies

    def _renew(self) -> None:
        self._node.renew()
        self._blocking.renew()

    def close(self) -> None:
        """See `Channel.aclose`."""
        super().close()
        for sentinel in self._sentinels:
            sentinel.close()


def _admit(connection: Any) -> None:
    """Refuse a server that is no primary: sentinels learn of a change one after the other."""
    connection.send_command("ROLE")
    role = (connection.read_response())[0]
    if role != b"master":
        raise redis.exceptions.ConnectionError(f"Error connecting to the primary: it is a {role.decode()}")
