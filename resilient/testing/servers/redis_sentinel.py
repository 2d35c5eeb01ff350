"""A Redis primary, a replica, and sentinels that replace the one by the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from resilient.errors import Unavailable
from resilient.testing.servers.group import together, wait_until
from resilient.testing.servers.redis import RedisServer
from resilient.testing.servers.server import HOST

__all__ = ["RedisSentinel"]

_SERVICE = "shop"


class _Sentinel(RedisServer):
    """One sentinel; it writes what it learns into its own file."""

    def __init__(self, watched: RedisServer, quorum: int, **rest: Any) -> None:
        super().__init__(**rest)
        self._watched = watched
        self._quorum = quorum

    def _prepare(self, directory: Path) -> None:
        lines = [
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {directory}",
            f"sentinel monitor {_SERVICE} {HOST} {self._watched.port} {self._quorum}",
            f"sentinel down-after-milliseconds {_SERVICE} 500",
            f"sentinel failover-timeout {_SERVICE} 3000",
        ]
        (directory / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def _argv(self) -> list[str]:
        return [self._program() or "redis-server", str(self.directory / "sentinel.conf"), "--sentinel"]


class RedisSentinel:
    """Two servers under the watch of sentinels; a killed primary is replaced in a second or two.

    Args:
        sentinels: How many; more than half of them decide.
        start_timeout: Seconds within which all must know each other.

    Examples:
        >>> from resilient.testing.servers import RedisSentinel
        >>> if RedisSentinel.missing() is None:
        ...     with RedisSentinel() as watched:
        ...         old = watched.primary
        ...         old.kill()
        ...         assert watched.wait_failover(old) is not old
    """

    def __init__(self, sentinels: int = 3, *, start_timeout: float = 30.0) -> None:
        self._count = sentinels
        self._start_timeout = start_timeout
        self._build()

    def _build(self) -> None:
        self.nodes: tuple[RedisServer, ...] = tuple(
            RedisServer(name=name, options={"repl-diskless-sync-delay": "0"}) for name in ("redis-a", "redis-b")
        )
        self.sentinels: tuple[RedisServer, ...] = tuple(
            _Sentinel(self.nodes[0], self._count // 2 + 1, name=f"sentinel-{number + 1}")
            for number in range(self._count)
        )

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run on this machine; ``None`` where it can."""
        return RedisServer.missing()

    @property
    def url(self) -> str:
        """Where clients find it."""
        places = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{_SERVICE}/0"

    @property
    def service(self) -> str:
        """What the sentinels call it."""
        return _SERVICE

    @property
    def primary(self) -> RedisServer:
        """The server that takes writes, as most sentinels say.

        Raises:
            Unavailable: They do not agree, or do not answer.
        """
        alive = [sentinel for sentinel in self.sentinels if sentinel.state == "running"]
        ports = [int(each.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", _SERVICE)[1]) for each in alive]
        for node in self.nodes:
            if ports.count(node.port) > self._count // 2:
                return node
        raise Unavailable("the sentinels do not agree on a primary")

    def start(self) -> Self:
        """Start all, and return when the replica follows and the sentinels know each other."""
        try:
            together([node.start for node in self.nodes])
            if not any(sentinel.state == "running" for sentinel in self.sentinels):
                leader, follower = self.nodes
                follower.command("REPLICAOF", HOST, str(leader.port))
            together([sentinel.start for sentinel in self.sentinels])
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_ready(self) -> None:
        """Wait until a failover is possible.

        Raises:
            Unavailable: It is not within the time to start.
        """
        wait_until(self._ready, self._start_timeout, "the sentinels were not ready")

    def _ready(self) -> bool:
        primary = self.primary
        replica = next(node for node in self.nodes if node is not primary)
        role, *rest = replica.ask("ROLE")
        if primary.ask("ROLE")[0] != "master" or role != "slave" or rest[1:3] != [primary.port, "connected"]:
            return False
        for sentinel in self.sentinels:
            flat = sentinel.ask("SENTINEL", "MASTER", _SERVICE)
            state = dict(zip(flat[::2], flat[1::2], strict=True))
            known = (state["num-slaves"], state["num-other-sentinels"], state["flags"])
            if known != ("1", str(self._count - 1), "master"):
                return False
            flat = sentinel.ask("SENTINEL", "REPLICAS", _SERVICE)[0]
            if dict(zip(flat[::2], flat[1::2], strict=True))["flags"] != "slave":
                return False
        return True

    def wait_failover(self, lost: RedisServer, timeout: float = 20.0) -> RedisServer:
        """Wait until the other server has taken over.

        Returns:
            The new primary.

        Raises:
            Unavailable: It has not within that many seconds.
        """

        def done() -> bool:
            primary = self.primary
            return bool(primary is not lost and primary.ask("ROLE")[0] == "master")

        wait_until(done, timeout, f"nobody took over from {lost.name}")
        return self.primary

    def flush(self) -> None:
        """Drop all data."""
        self.primary.flush()

    def heal(self) -> None:
        """Make it as new, whatever was done to it: all run, the replica follows, nothing is stored."""
        try:
            for each in (*self.nodes, *self.sentinels):
                each.thaw()
            together([each.start for each in (*self.nodes, *self.sentinels)])
            leader = self.primary
            for node in self.nodes:
                if node is not leader:  # the sentinels would do it too, in ten seconds
                    node.command("REPLICAOF", HOST, str(leader.port))
            wait_until(self._ready, 10.0, "the sentinels were not ready")
            self.flush()
        except Unavailable:
            self.stop()
            self._build()  # what sentinels have learnt they do not forget
            self.start()

    def stop(self) -> None:
        """Stop all and remove their data. Always works; may be repeated."""
        for each in (*self.sentinels, *self.nodes):
            each.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
