"""A Redis Cluster of real servers, whose primaries may be killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from resilient.clock import SYSTEM
from resilient.errors import Unavailable
from resilient.testing.servers.group import together, wait_until
from resilient.testing.servers.redis import RedisServer
from resilient.testing.servers.server import HOST, free_port, is_open

__all__ = ["RedisCluster", "RedisClusterNode"]

_SLOTS = 16384
_CEILING = 32_000
_BUS = 10_000  # the nodes talk to each other on a port that much higher


class RedisClusterNode(RedisServer):
    """One server of a `RedisCluster`."""

    @property
    def port(self) -> int:
        """The port it listens on; the one for the other nodes is free too."""
        while self._port is None:
            port = free_port()
            # The second one too must lie below where the system takes the ports of outgoing connections.
            self._port = port if port + _BUS < _CEILING and not is_open(port + _BUS) else None
        return self._port

    @property
    def id(self) -> str:
        """The name the nodes know it by."""
        return str(self.ask("CLUSTER", "MYID"))

    @property
    def is_primary(self) -> bool:
        """Whether it takes writes for slots now; false where it does not answer."""
        try:
            return bool(self.ask("ROLE")[0] == "master" and self.slots)
        except Unavailable:
            return False

    @property
    def slots(self) -> list[tuple[int, int]]:
        """The ranges of slots it has, by its own account."""
        me = next(line.split() for line in self.ask("CLUSTER", "NODES").splitlines() if "myself" in line)
        ranges = [part.partition("-") for part in me[8:] if not part.startswith("[")]
        return [(int(first), int(last or first)) for first, _, last in ranges]

    def says(self, **facts: str) -> bool:
        """Whether its ``CLUSTER INFO`` has all these values."""
        said = dict(line.split(":", 1) for line in self.ask("CLUSTER", "INFO").splitlines() if ":" in line)
        return all(said.get(name) == value for name, value in facts.items())

    def _argv(self) -> list[str]:
        # A fresh folder for each start of the cluster: the file of the nodes lies in the server's own.
        cluster = {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-node-timeout": "1000"}
        haste = {"cluster-replica-validity-factor": "0", "repl-diskless-sync-delay": "0", "databases": "1"}
        return [*super()._argv(), *(part for pair in (cluster | haste).items() for part in (f"--{pair[0]}", pair[1]))]


class RedisCluster:
    """Primaries and their replicas, up in a few seconds; a killed primary is replaced in two or three.

    Args:
        primaries: How many servers share the slots.
        replicas: How many follow each of them.
        start_timeout: Seconds within which all must know each other.

    Examples:
        >>> from resilient.testing.servers import RedisCluster
        >>> if RedisCluster.missing() is None:
        ...     with RedisCluster() as cluster:
        ...         killed = cluster.primary_of(0)
        ...         killed.kill()
        ...         assert cluster.wait_failover(killed) in cluster.nodes
    """

    def __init__(self, primaries: int = 3, replicas: int = 1, *, start_timeout: float = 30.0) -> None:
        self._width = primaries
        self._start_timeout = start_timeout
        self.nodes: tuple[RedisClusterNode, ...] = tuple(
            RedisClusterNode(name=f"redis-{number + 1}") for number in range(primaries * (1 + replicas))
        )

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        return RedisClusterNode.missing()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    @property
    def primaries(self) -> tuple[RedisClusterNode, ...]:
        """The nodes that take writes now."""
        return tuple(node for node in self.nodes if node.is_primary)

    def primary_of(self, slot: int) -> RedisClusterNode:
        """The node that has a slot now.

        Raises:
            Unavailable: None has.
        """
        for node in self.primaries:
            if any(first <= slot <= last for first, last in node.slots):
                return node
        raise Unavailable(f"nobody has slot {slot}")

    # ------------------------------------------------------------------------------------------------- its whole life

    def start(self) -> Self:
        """Start all nodes, and return when each knows the others. Does nothing where it runs."""
        fresh = [node for node in self.nodes if node.state in {"new", "stopped"}]
        try:
            together([node.start for node in self.nodes])
            if fresh:
                self._assemble()
        except BaseException:
            self.stop()
            raise
        return self

    def _assemble(self) -> None:
        first, *others = self.nodes
        share = -(-_SLOTS // self._width)
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            if number < self._width:
                mine = range(number * share, min(_SLOTS, (number + 1) * share))
                node.command("CLUSTER", "ADDSLOTS", *map(str, mine))
        for node in others:
            first.command("CLUSTER", "MEET", HOST, str(node.port))
        everybody = str(len(self.nodes))
        self._wait(lambda: all(node.says(cluster_known_nodes=everybody) for node in self.nodes))
        for number, node in enumerate(self.nodes[self._width :]):
            leader = self.nodes[number % self._width].id
            # A node that has not heard of its leader refuses; it hears of it in a moment.
            self._wait(lambda node=node, leader=leader: bool(node.command("CLUSTER", "REPLICATE", leader)))  # type: ignore[misc]  # bound at once
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until every slot is served and every replica that runs follows its primary.

        Raises:
            Unavailable: They do not within the time to start.
        """
        self._wait(self._ready)

    def _ready(self) -> bool:
        leaders = 0
        for node in self.nodes:
            role, *rest = node.ask("ROLE")
            leaders += role == "master"
            if not node.says(cluster_state="ok", cluster_slots_ok=str(_SLOTS)):
                return False
            if role != "master" and rest[2] != "connected":
                return False
        return leaders == self._width

    def wait_failover(self, lost: RedisClusterNode, timeout: float = 15.0) -> RedisClusterNode:
        """Wait until another node has taken over from one that was killed or frozen.

        Returns:
            The new primary.

        Raises:
            Unavailable: None has within that many seconds.
        """
        until = SYSTEM.monotonic() + timeout
        running = [node for node in self.nodes if node is not lost and node.state == "running"]
        while True:
            leaders = [node for node in running if node.is_primary]
            if len(leaders) >= self._width and all(node.says(cluster_state="ok") for node in leaders):
                return max(leaders, key=self._epoch)
            if SYSTEM.monotonic() >= until:
                raise Unavailable(f"nobody took over from {lost.name} within {timeout:g} s")
            SYSTEM.sleep(0.05)

    @staticmethod
    def _epoch(node: RedisClusterNode) -> int:
        me = next(line.split() for line in node.ask("CLUSTER", "NODES").splitlines() if "myself" in line)
        return int(me[6])

    def flush(self) -> None:
        """Drop all data."""
        for node in self.primaries:
            node.flush()

    def heal(self) -> None:
        """Make it as new, whatever was done to it: all nodes run, all slots are served, nothing is stored."""
        try:
            for node in self.nodes:
                node.thaw()
            together([node.start for node in self.nodes])
            self.wait_ready()
            self.flush()
        except Unavailable:
            self.stop()
            self.start()

    def stop(self) -> None:
        """Stop all nodes and remove their data. Always works; may be repeated."""
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _wait(self, reached: Callable[[], bool]) -> None:
        wait_until(reached, self._start_timeout, "the cluster was not ready")
