"""Databases and caches: each is asked through one connection that is not the application's pool's."""

from __future__ import annotations

from typing import Any, Literal

from resilient.health._core import Check

__all__ = ["redis", "sqlalchemy"]


def sqlalchemy(target: Any, *, writable: bool = False, role: Literal["primary", "replica"] | None = None) -> Check:
    """A database answers ``SELECT 1``, through one connection that is not the application's pool's.

    It costs one round trip; asking for writes or for a role costs none more.

    Args:
        target: A URL, or the application's engine, whose way to connect (TLS, credentials, ``creator``) is used.
        writable: Whether a server that takes no writes, such as a demoted primary, counts as failed
            (``read_only``). For MariaDB, MySQL, PostgreSQL and SQLite.
        role: What the server has to be; another one counts as failed (``role``). A PostgreSQL in recovery is a
            replica, and so is a MariaDB or MySQL with ``read_only``.

    Raises:
        ConfigurationError: It is an async engine, or the database cannot be asked that.

    Examples:
        >>> from sqlalchemy import create_engine
        >>> sqlalchemy(create_engine("sqlite://")).run().status.value
        'pass'
    """
    from resilient.health.checks._sql import SqlProbe
    from resilient.wire import sql

    probe = SqlProbe(target, writable=writable, role=role)
    return Check(probe.run, "datastore", "shared", dependency=True, close=probe.close, classify=sql.classify)


def redis(target: Any, *, writable: bool = False) -> Check:
    """A Redis or Valkey answers ``PING``, through one connection that is not the application's pool's.

    Of a Cluster the first node that answers is asked how the whole is: with a part of the keys out of reach it warns
    (``slots``), and where the Cluster serves nothing for that it fails (``cluster_down``). Behind Sentinels the primary
    that they name is asked.

    Args:
        target: A URL (also of a Cluster or of Sentinels), or the application's client, whose way to connect is used.
        writable: Whether a server that takes no writes, such as a demoted primary, counts as failed (``read_only``).
            A second round trip; not for a Cluster, which moves writes by itself.

    Raises:
        ConfigurationError: It is neither, an async client, or a Cluster that should be asked whether it takes writes.

    Examples:
        >>> import fakeredis
        >>> check = redis(fakeredis.FakeRedis())
        >>> check.run().status.value
        'pass'
        >>> check.close()
    """
    from resilient.health.checks._redis import probe_of
    from resilient.wire import redis as wire

    probe = probe_of(target, writable=writable)
    return Check(probe.run, "datastore", "shared", dependency=True, close=probe.close, classify=wire.classify)
