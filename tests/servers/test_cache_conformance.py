"""The same tests as for the fakes, against real servers: what the fakes claim is what Redis, Valkey and Clusters do."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_UNIT = Path(__file__).parent.parent / "unit" / "cache"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"cache_suite_{name}", _UNIT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its classes look for their annotations
    spec.loader.exec_module(module)
    return module


_fixtures = _load("conftest")
_suites = {each.stem.rpartition("_")[2]: _load(each.stem) for each in sorted(_UNIT.glob("test_conformance_*.py"))}
clock, kind, at_once, gathered = _fixtures.clock, _fixtures.kind, _fixtures.at_once, _fixtures.gathered
database, source, table = _fixtures.database, _suites["loads"].source, _suites["writes"].table
for _each in _suites.values():
    globals().update({name: test for name, test in vars(_each).items() if name.startswith("test_")})


@pytest.fixture
def store_name() -> str:
    """The one kind of store that needs a server."""
    return "redis"


@pytest.fixture(params=["redis_server", "valkey_server", "redis_cluster"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Where that server is."""
    server: Any = request.getfixturevalue(request.param)
    return str(server.url)
