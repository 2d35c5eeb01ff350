"""Real servers for tests and demonstrations: started from the machine's programs, broken on purpose, always stopped.

Every server listens on 127.0.0.1, on a free port, with its data in a temporary folder. Used as a context manager it is
started at the beginning and stopped at the end; it also ends when the interpreter ends, and when the interpreter is
killed.

    >>> from resilient.testing.servers import RedisServer
    >>> if RedisServer.missing() is None:
    ...     with RedisServer() as redis:
    ...         redis.freeze()   # open connections, no answers
    ...         redis.thaw()
    ...         redis.kill()     # connection refused
    ...         _ = redis.restart()

All have ``start``, ``stop``, ``kill``, ``freeze``, ``thaw``, ``restart``, ``heal``, ``pid``, ``port``, ``url``; the
class method ``missing`` says why a server cannot run on this machine.
"""

from __future__ import annotations

from resilient.testing.servers.cluster import MariaDbCluster, MariaDbNode
from resilient.testing.servers.group import together
from resilient.testing.servers.gunicorn import Gunicorn
from resilient.testing.servers.haproxy import HAProxy
from resilient.testing.servers.mariadb import MariaDbServer
from resilient.testing.servers.moto import MotoServer
from resilient.testing.servers.postgres import PostgresServer
from resilient.testing.servers.process import Process
from resilient.testing.servers.proxy import TcpProxy
from resilient.testing.servers.redis import EmbeddedRedis, RedisServer, ValkeyServer
from resilient.testing.servers.redis_cluster import RedisCluster, RedisClusterNode
from resilient.testing.servers.redis_sentinel import RedisSentinel
from resilient.testing.servers.server import Server, free_port

__all__ = [
    "EmbeddedRedis",
    "Gunicorn",
    "HAProxy",
    "MariaDbCluster",
    "MariaDbNode",
    "MariaDbServer",
    "MotoServer",
    "PostgresServer",
    "Process",
    "RedisCluster",
    "RedisClusterNode",
    "RedisSentinel",
    "RedisServer",
    "Server",
    "TcpProxy",
    "ValkeyServer",
    "free_port",
    "together",
]
