"""The contract of replica sets, held against a real MariaDB cluster."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa

from resilient.storage.replicas import ReplicaSet
from resilient.testing.servers import MariaDbCluster

_UNIT = Path(__file__).parent.parent / "unit" / "replicas"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"replicas_suite_{name}", _UNIT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its classes look for their annotations
    spec.loader.exec_module(module)
    return module


_faces, _suite = _load("conftest"), _load("test_contract")
globals().update({name: test for name, test in vars(_suite).items() if name.startswith("test_")})


class MariaDbBench(_faces.Bench):
    def __init__(self, cluster: MariaDbCluster) -> None:
        self.cluster = cluster
        made = sa.create_engine(cluster.primary.url)
        _faces.Base.metadata.create_all(made)
        made.dispose()
        cluster.wait_caught_up()
        self.nodes = cluster.replicas
        self.db = ReplicaSet(cluster.primary.url, [node.url for node in self.nodes], probe_interval=0.1, timeout=3.0)
        self.all_up()

    def stop_replication(self, number: int) -> None:
        self.nodes[number].stop_replication()

    def start_replication(self, number: int) -> None:
        self.nodes[number].start_replication()

    def kill(self, number: int) -> None:
        self.nodes[number].kill()

    def restart(self, number: int) -> None:
        self.nodes[number].restart()

    def kill_primary(self) -> None:
        self.cluster.primary.kill()

    def restart_primary(self) -> None:
        self.cluster.primary.restart()

    def close(self) -> None:
        self.db.close()


@pytest.fixture
def bench(mariadb: MariaDbCluster) -> Iterator[Any]:
    """A primary and two replicas, all up and with an empty table of notes."""
    made = MariaDbBench(mariadb)
    yield made
    made.close()
