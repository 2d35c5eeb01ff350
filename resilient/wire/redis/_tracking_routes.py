"""Where the servers are whose changes are to be told: one, the primaries of a Cluster, or whom sentinels name.

Used by one thread alone, with calls that block for a short time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from resilient.errors import needs_extra
from resilient.wire.redis._addresses import Address, Place
from resilient.wire.redis._connector import connection_options
from resilient.wire.redis._dialing import SYNC, dialer
from resilient.wire.redis._limits import Limits
from resilient.wire.redis._parsing import pack
from resilient.wire.redis._pool import Node
from resilient.wire.redis._slots import read_slots
from resilient.wire.redis._sync.sentinel import SentinelChannel

with needs_extra("redis"):
    import redis.asyncio.connection
    import redis.connection
    import redis.exceptions

__all__ = ["Route", "address_of", "all_primaries", "idle_primaries", "route"]


class Route(ABC):
    """To the servers of an address."""

    question: bytes
    """What a server is asked now and then, to learn whether it is still what it was."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self._dial = dialer(address, limits, SYNC)

    def connect(self, place: Place) -> Any:
        """A new connection to a server, after its handshake."""
        connection = self._dial(place)
        try:
            connection.connect()
        except BaseException:
            connection.disconnect()
            raise
        return connection

    @abstractmethod
    def places(self) -> list[Place]:
        """Where all of them are now."""

    def remains(self) -> bool:
        """Whether they are still there, as far as others than themselves can tell."""
        return True

    @abstractmethod
    def state(self, reply: Any) -> object:
        """What a server says of itself that must not change while it is listened to; ``None`` where it does not say."""

    def admits(self, state: object) -> bool:  # noqa: ARG002 - for those who are choosy
        """Whether a server that says so of itself is one that is wanted."""
        return True

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Close what was opened to ask others."""


class _ToServer(Route):
    question = pack(("ROLE",))

    def __init__(self, address: Address, limits: Limits) -> None:
        super().__init__(address, limits)
        self._place = address.places[0]

    def places(self) -> list[Place]:
        return [self._place]

    def state(self, reply: Any) -> object:
        return reply[0] if isinstance(reply, list) and reply else None


class _ToPrimary(_ToServer):
    """To the one that sentinels name."""

    def __init__(self, address: Address, limits: Limits, brief: Limits) -> None:
        super().__init__(address, limits)
        self._sentinels = SentinelChannel(address, brief)
        self._found: Place | None = None

    def places(self) -> list[Place]:
        self._found = self._sentinels.locate()
        return [self._found]

    def remains(self) -> bool:
        try:
            return self._sentinels.locate() == self._found
        except redis.exceptions.RedisError:
            return True  # nobody says otherwise

    def admits(self, state: object) -> bool:
        return state in {None, b"master"}

    def close(self) -> None:
        self._sentinels.close()


class _ToCluster(Route):
    """To all its primaries, those included that have no slots yet: a slot that moves there is written there before.

    Where it is not allowed to ask for all nodes, only those with slots are known, and are asked for again and again.
    """

    question = pack(("CLUSTER", "NODES"))
    _map = pack(("CLUSTER", "SLOTS"))

    def __init__(self, address: Address, limits: Limits) -> None:
        super().__init__(address, limits)
        self._limits = limits
        self._seeds = list(address.places)
        self._known: list[Place] = []
        self._blind = False

    def places(self) -> list[Place]:
        failure: Exception | None = None
        for place in dict.fromkeys([*self._known, *self._seeds]):
            node = Node(place, self._dial, self._limits)
            try:
                slots, nodes = node.call(self._map, True), node.call(self.question, True)
            except redis.exceptions.RedisError as error:
                failure = error
                continue
            finally:
                node.close()
            if isinstance(slots, list) and slots:
                self._blind = not isinstance(nodes, bytes)
                spare = [] if self._blind else idle_primaries(nodes)
                found = list(dict.fromkeys([*(primary for _, _, primary in read_slots(slots, place)), *spare]))
                # Whoever was asked first is asked last the next time: it may be the one that knows the least.
                self._known = [*found[1:], found[0]]
                return found
        raise redis.exceptions.ConnectionError(
            "Error connecting to the Cluster: no node says who has what"
        ) from failure

    def remains(self) -> bool:
        if not self._blind:
            return True  # the nodes themselves are asked
        before = set(self._known)
        try:
            return set(self.places()) == before
        except redis.exceptions.RedisError:
            return True  # nobody says otherwise

    def state(self, reply: Any) -> object:
        return all_primaries(reply) if isinstance(reply, bytes) else None


def _primaries(nodes: bytes) -> Iterator[list[str]]:
    """The words about each primary that is not known to have failed."""
    for line in nodes.decode(errors="replace").splitlines():
        words = line.split()
        flags = set(words[2].split(",")) if len(words) > 7 else set()
        if "master" in flags and not flags & {"fail", "noaddr", "handshake"}:
            yield words


def all_primaries(nodes: bytes) -> frozenset[tuple[str, str]]:
    r"""Name and address of each primary, from the reply to ``CLUSTER NODES``.

    Examples:
        >>> nodes = b"id1 h:1@11 myself,master - 0 0 1 connected 0-5\nid2 h:2@12 slave id1 0 0 1 connected"
        >>> all_primaries(nodes) == {("id1", "h:1@11")}
        True
    """
    return frozenset((words[0], words[1]) for words in _primaries(nodes))


def idle_primaries(nodes: bytes) -> list[Place]:
    r"""Where the primaries are that have no slots.

    Examples:
        >>> idle_primaries(b"id1 h:1@11 master - 0 0 1 connected 0-5\nid2 ::1:2@12,name master - 0 0 1 connected")
        [('::1', 2)]
    """
    bare = [words[1].partition("@")[0].rpartition(":") for words in _primaries(nodes) if len(words) == 8]
    return [(host, int(port)) for host, _, port in bare if host]


def route(address: Address, bound: float) -> Route:
    """The way to the servers of an address; nothing of it is open yet.

    Args:
        address: What a URL says.
        bound: Seconds that a connection or a reply may take.

    Raises:
        ConfigurationError: The address has a word that redis-py's connections do not know.
    """
    limits = Limits(connect=bound, answer=bound, wait=bound, connections=4)
    if address.kind == "cluster":
        return _ToCluster(address, limits)
    if address.kind == "sentinel":
        # Sentinels are asked while the connection to the primary waits: for a short time only.
        return _ToPrimary(address, limits, Limits(connect=bound / 4, answer=bound / 4, wait=bound / 4, connections=4))
    return _ToServer(address, limits)


# ------------------------------------------------------------------------------------------------- of a ready client

_KEPT = {"db", "username", "password", "credential_provider", "client_name", "socket_keepalive"}
_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    # A connection over TLS is also one over TCP.
    ("tls", (redis.connection.SSLConnection, redis.asyncio.connection.SSLConnection)),
    ("unix", (redis.connection.UnixDomainSocketConnection, redis.asyncio.connection.UnixDomainSocketConnection)),
    ("tcp", (redis.connection.Connection, redis.asyncio.connection.Connection)),
)


def address_of(target: Any) -> Address | None:
    """Where a URL or a ready client leads; ``None`` where connections like the client's cannot be made here."""
    if isinstance(target, str):
        return Address.parse(target)
    nodes = getattr(target, "nodes_manager", None)
    if nodes is not None:
        return _of_cluster(target, nodes)
    pool = getattr(target, "connection_pool", None)
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        return _of_sentinels(target, pool, manager)
    way = _way(getattr(pool, "connection_class", None))
    if way is None:
        return None
    options = connection_options(target)
    if way == "unix":
        return Address("server", (("", 0),), "unix", "", _kept(options) | {"path": options.get("path", "")})
    return Address("server", (_place(options),), way, "", _kept(options))  # type: ignore[arg-type]  # one of the table


def _of_cluster(client: Any, nodes: Any) -> Address | None:
    known = getattr(nodes, "startup_nodes", None) or getattr(nodes, "nodes_cache", None) or {}
    places = tuple((str(node.host), int(node.port)) for node in known.values())
    options = connection_options(client)
    secure = options.get("ssl") or _way(options.get("connection_class")) == "tls"
    return Address("cluster", places, "tls" if secure else "tcp", "", _kept(options)) if places else None


def _of_sentinels(client: Any, pool: Any, manager: Any) -> Address | None:
    each = [connection_options(sentinel) for sentinel in manager.sentinels]
    if not each or not getattr(pool, "is_master", True):
        return None
    options = connection_options(client)
    way = "tls" if issubclass(pool.connection_class, _KINDS[0][1]) else "tcp"
    return Address(
        "sentinel",
        tuple(_place(options) for options in each),
        way,  # type: ignore[arg-type]  # one of the two
        str(pool.service_name),
        _kept(options),
        _kept(each[0]),
    )


def _way(kind: Any) -> str | None:
    """How connections of a class go; a class from elsewhere, such as a fake's, is unknown."""
    if not isinstance(kind, type) or kind.__module__.partition(".")[0] == "fakeredis":
        return None
    return next((way for way, classes in _KINDS if issubclass(kind, classes)), None)


def _place(options: dict[str, Any]) -> Place:
    return str(options.get("host", "localhost")), int(options.get("port", 6379))


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in options.items()
        if value is not None and (name in _KEPT or name.startswith("ssl_"))
    }
