"""A database with one user, and two caches that hold it as it is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from accounts import Base, User
from sqlalchemy.orm import Session

from resilient.cache import Cache
from resilient.testing import FakeClock
from resilient.testing.cache import MemoryCache


@pytest.fixture
def engine(tmp_path: Any) -> Iterator[sa.Engine]:
    """A database with one user."""
    made = sa.create_engine(f"sqlite:///{tmp_path}/app.db")

    @sa.event.listens_for(made, "connect")
    def _own_transactions(raw: Any, _: Any) -> None:
        raw.isolation_level = None  # savepoints of SQLite need BEGIN to be sent by hand

    @sa.event.listens_for(made, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    Base.metadata.create_all(made)
    with Session(made) as session:
        session.add(User(id=17, name="old"))
        session.commit()
    yield made
    made.dispose()


@pytest.fixture
def cache(clock: FakeClock) -> MemoryCache:
    """A cache that holds the user as it is in the database."""
    made = MemoryCache(namespace="shop", ttl=300, lease=10, jitter=0.0, clock=clock)
    made.set("user:17", "old")
    return made


@pytest.fixture
def other(cache: MemoryCache) -> Cache:
    """The cache of another process."""
    return Cache(cache.store, namespace="shop", ttl=300, lease=10, jitter=0.0, clock=cache.clock)
