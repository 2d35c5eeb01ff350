"""The servers that the pages talk to, at whatever ports are free here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resilient.testing.servers import EmbeddedRedis, MotoServer, RedisServer


@pytest.fixture(scope="session")
def addresses() -> Iterator[dict[str, str]]:
    """What the pages write, and where it is really served for this run."""
    redis = RedisServer() if RedisServer.missing() is None else EmbeddedRedis()
    with redis, MotoServer() as moto:
        yield {"redis://127.0.0.1:6379": redis.url.removesuffix("/0"), "http://127.0.0.1:5000": moto.url}
