"""A MariaDB primary with replicas, and everything that can go wrong between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from resilient.clock import SYSTEM
from resilient.errors import ConfigurationError, Unavailable
from resilient.testing.servers.group import together
from resilient.testing.servers.mariadb import MariaDbServer
from resilient.testing.servers.server import HOST

__all__ = ["MariaDbCluster", "MariaDbNode"]


class MariaDbNode(MariaDbServer):
    """One server of a `MariaDbCluster`: a `MariaDbServer` with handles on its replication."""

    @property
    def replicates(self) -> bool:
        """Whether it was told to follow another server, whatever its threads do now."""
        return bool(self.row("SHOW SLAVE STATUS"))

    def position(self) -> str:
        """The GTID position of the data it holds, for instance ``0-1-42``; empty where nothing was written yet."""
        return str(self.query("SELECT @@GLOBAL.gtid_binlog_pos")[0][0] or "")

    def stop_replication(self) -> None:
        """Stop applying: changes still arrive, and the data stay as they are. The plainest way to make it lag."""
        self.query("STOP SLAVE SQL_THREAD")

    def stop_io(self) -> None:
        """Cut the link to the primary: what has arrived is still applied, and nothing new arrives."""
        self.query("STOP SLAVE IO_THREAD")

    def start_replication(self) -> None:
        """Apply and receive again."""
        self.query("START SLAVE")

    def delay_replication(self, seconds: float) -> None:
        """Apply every change that many seconds after it was made; 0 ends the delay.

        Args:
            seconds: A whole number, since MariaDB counts no finer.

        Raises:
            ConfigurationError: It is not a whole number, or negative.
        """
        if seconds < 0 or seconds != int(seconds):
            raise ConfigurationError(f"replication is delayed by whole seconds, not by {seconds!r}")
        self.query("STOP SLAVE")
        self.query(f"CHANGE MASTER TO MASTER_DELAY = {int(seconds)}")
        self.query("START SLAVE")

    def wait_for(self, position: str, timeout: float = 10.0) -> None:
        """Wait until it has applied everything up to that GTID position.

        Raises:
            Unavailable: It has not within that many seconds.
        """
        if not position:
            return
        reached = self.query("SELECT MASTER_GTID_WAIT(%s, %s)", position, timeout, timeout=timeout + 5)[0][0]
        if reached != 0:
            raise Unavailable(f"{self.name} had not applied {position} after {timeout:g} s; it is at {self.position()}")

    def follow(self, primary: MariaDbServer) -> None:
        """Make it a read-only replica of that server, from the position it is at."""
        self.read_only = True
        self.query("SET GLOBAL read_only = 1")
        self.query("STOP SLAVE")
        # What it wrote itself as a primary counts as applied.
        self.query("SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_binlog_pos")
        self.query(
            f"CHANGE MASTER TO MASTER_HOST = '{HOST}', MASTER_PORT = {primary.port}, MASTER_USER = 'admin', "
            "MASTER_PASSWORD = 'admin', MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1, "
            "MASTER_HEARTBEAT_PERIOD = 1, MASTER_DELAY = 0"
        )
        self.query("START SLAVE")

    def lead(self) -> None:
        """Make it a writable server that follows nobody, after it has applied all it received.

        A delay set by `delay_replication` is waited out: MariaDB forgets what it received when the delay is changed.
        """
        status = self.row("SHOW SLAVE STATUS")
        if status:
            # The applier goes first: were both threads stopped, the next start would throw away what was received.
            self.query("START SLAVE SQL_THREAD")
            self.query("STOP SLAVE IO_THREAD")
            received = self.row("SHOW SLAVE STATUS").get("Gtid_IO_Pos") or ""
            self.wait_for(received, 10.0 + float(status.get("SQL_Delay") or 0))
            self.query("STOP SLAVE")
            self.query("RESET SLAVE ALL")
        self.read_only = False
        self.query("SET GLOBAL read_only = 0")


class MariaDbCluster:
    """One MariaDB primary and replicas that follow it by GTID.

    The data folder is installed once and copied, and the servers start side by side: 2 to 3 seconds on a quiet
    machine. Replication is MariaDB's own, asynchronous: a commit that was acknowledged may be missing on a replica
    that is promoted after the primary was killed.

    Args:
        replicas: How many replicas.
        template: See `MariaDbServer`.
        start_timeout: Seconds within which each server must answer after a start.

    Examples:
        >>> from resilient.testing.servers import MariaDbCluster
        >>> if MariaDbCluster.missing() is None:
        ...     with MariaDbCluster(replicas=1) as cluster:
        ...         _ = cluster.primary.query("CREATE TABLE app.t (id INT PRIMARY KEY)")
        ...         cluster.wait_caught_up()
        ...         assert cluster.replicas[0].query("SELECT COUNT(*) FROM app.t") == [(0,)]
    """

    def __init__(self, replicas: int = 2, *, template: Path | None = None, start_timeout: float = 30.0) -> None:
        if replicas < 0:
            raise ConfigurationError(f"a cluster has no {replicas} replicas")
        self.nodes: tuple[MariaDbNode, ...] = tuple(
            MariaDbNode(
                server_id=index + 1, template=template, start_timeout=start_timeout, name=f"mariadb-{index + 1}"
            )
            for index in range(replicas + 1)
        )
        self._primary = self.nodes[0]
        self._lost: set[MariaDbNode] = set()
        self._last_id = len(self.nodes)

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        return MariaDbNode.missing()

    @property
    def primary(self) -> MariaDbNode:
        """The node that takes the writes."""
        return self._primary

    @property
    def replicas(self) -> tuple[MariaDbNode, ...]:
        """The nodes that follow the primary; a former primary is not among them before `rejoin`."""
        return tuple(node for node in self.nodes if node is not self._primary and node not in self._lost)

    @property
    def url(self) -> str:
        """The primary's address, as the user ``app``."""
        return self._primary.url

    # ------------------------------------------------------------------------------------------------- its whole life

    def start(self) -> Self:
        """Start all nodes and their replication. Does nothing for nodes that run."""
        fresh = [node for node in self.nodes if node.state in {"new", "stopped"}]
        if self._primary in fresh:
            self._primary, self._lost = self.nodes[0], set()
        for node in fresh:
            node.read_only = node is not self._primary
        try:
            together([node.start for node in self.nodes])
            for node in fresh:
                if node is not self._primary:
                    node.follow(self._primary)
            self.wait_caught_up()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop all nodes and remove their data. Always works; may be repeated."""
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # ---------------------------------------------------------------------------------------------------- replication

    def wait_caught_up(self, timeout: float = 10.0) -> None:
        """Wait until every replica that runs holds all that the primary holds now.

        Raises:
            Unavailable: One has not within that many seconds.
        """
        position = self._primary.position()
        until = SYSTEM.monotonic() + timeout
        for node in self.replicas:
            if node.state == "running":
                node.wait_for(position, max(0.0, until - SYSTEM.monotonic()))

    def promote(self, index: int) -> MariaDbNode:
        """Make the replica with that index in `replicas` the primary, and let the others follow it.

        A primary that runs is made read-only first and loses nothing; it then follows the new one. One that is dead
        or frozen is left as it is: when it comes back it takes writes again, until `rejoin`.

        Returns:
            The new primary.
        """
        old, new = self._primary, self.replicas[index]
        switchover = old.state == "running"
        if switchover:
            old.read_only = True
            old.query("SET GLOBAL read_only = 1")
            new.delay_replication(0)
            new.wait_for(old.position())
        new.lead()
        self._primary = new
        self._lost = self._lost if switchover else {*self._lost, old}
        for node in self.replicas:
            if node.state == "running":
                self._follow_or_rebuild(node)
        return new

    def rejoin(self, node: MariaDbNode | None = None) -> MariaDbNode:
        """Bring a former primary (by default the one that was lost last) back as a replica.

        It is started or thawed. Where it holds writes that the new primary never saw, they are thrown away: it starts
        anew from the primary's binary log, which reaches back to the beginning.
        """
        node = node or next(iter(self._lost), None)
        if node is None or node is self._primary:
            raise ConfigurationError("there is no former primary to bring back")
        node.read_only = True
        node.thaw()
        node.start()
        self._follow_or_rebuild(node)
        self._lost.discard(node)
        return node

    def _follow_or_rebuild(self, node: MariaDbNode) -> None:
        """Make it a replica; where it holds writes that the primary lacks, or does not catch up, with new data."""
        try:
            if _contains(self._primary.position(), node.position()):
                node.follow(self._primary)
                self._wait_equal(node, 5.0)
                return
        except (Unavailable, _driver_error()):
            pass  # what is wrong with it goes with its data
        self._rebuild(node)

    def _wait_equal(self, node: MariaDbNode, timeout: float) -> None:
        """Wait until it replicates and is exactly where the primary is now."""
        until = SYSTEM.monotonic() + timeout
        target = self._primary.position()
        node.wait_for(target, timeout)
        while not _is_healthy(node.row("SHOW SLAVE STATUS"), self._primary.port):
            if SYSTEM.monotonic() >= until:
                raise Unavailable(f"{node.name} does not replicate after {timeout:g} s")
            SYSTEM.sleep(0.01)
        if not _contains(target, node.position()):
            target = self._primary.position()
            if not _contains(target, node.position()):
                raise Unavailable(f"{node.name} is at {node.position()}, which the primary at {target} never wrote")

    def _rebuild(self, node: MariaDbNode) -> None:
        node.stop()
        node.read_only = True
        # With its old number it would skip what it wrote itself in its earlier life.
        self._last_id += 1
        node.server_id = self._last_id
        node.start()
        node.follow(self._primary)
        node.wait_for(self._primary.position(), 10.0)

    # ---------------------------------------------------------------------------------------------------------- health

    def heal(self) -> None:
        """Make it as new, whatever was done to it: all nodes run and replicate, no tables, no databases ``app_…``.

        Cheap where nothing is wrong. A promoted node stays the primary. What does not help is done more thoroughly:
        a replica is rebuilt, at last the whole cluster.
        """
        try:
            self._heal_nodes()
            self._primary.drop_all()
            self._heal_replication()
        except Exception:  # noqa: BLE001 - whatever a test did to it, a new one is right
            self.stop()
            self.start()

    def _heal_nodes(self) -> None:
        for node in self.nodes:
            node.thaw()
        if any(node.state != "running" for node in self.nodes):
            together([node.start for node in self.nodes])
        for node in list(self._lost):
            self.rejoin(node)
        if self._primary.query("SELECT @@GLOBAL.read_only")[0][0]:
            self._primary.read_only = False
            self._primary.query("SET GLOBAL read_only = 0")

    def _heal_replication(self) -> None:
        for node in self.replicas:
            healthy = _is_healthy(node.row("SHOW SLAVE STATUS"), self._primary.port)
            if not healthy or not node.query("SELECT @@GLOBAL.read_only")[0][0]:
                self._follow_or_rebuild(node)
                continue
            try:
                self._wait_equal(node, 1.0)
            except Unavailable:
                node.end_connections()  # a transaction left open holds a table that is being dropped
                self._follow_or_rebuild(node)


def _is_healthy(status: dict[str, Any], port: int) -> bool:
    return (
        status.get("Slave_IO_Running") == "Yes"
        and status.get("Slave_SQL_Running") == "Yes"
        and not status.get("SQL_Delay")
        and status.get("Master_Port") == port
    )


def _contains(position: str, other: str) -> bool:
    """Whether whoever is at a GTID position has also seen another one.

    Of one domain the sequence number decides; at the same number the transaction must be the same, which the number of
    the server that wrote it tells.
    """
    have = {domain: (int(sequence), server) for domain, server, sequence in _parts(position)}
    for domain, server, sequence in _parts(other):
        mine, writer = have.get(domain, (-1, server))
        if mine < int(sequence) or (mine == int(sequence) and writer != server):
            return False
    return True


def _parts(position: str) -> list[tuple[str, str, str]]:
    parts = [part.split("-") for part in position.split(",") if part]
    return [(domain, server, sequence) for domain, server, sequence in parts]


def _driver_error() -> type[Exception]:
    """The root of the driver's errors; loaded late, since the driver belongs to an extra."""
    import pymysql

    error: type[Exception] = pymysql.err.MySQLError
    return error
