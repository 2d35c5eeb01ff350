"""The same tests as for the fakes, against a real server: what the fakes claim is what Redis does."""

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


_fixtures, _suite = _load("conftest"), _load("test_conformance")
clock, kind, at_once, database = _fixtures.clock, _fixtures.kind, _fixtures.at_once, _suite.database
globals().update({name: test for name, test in vars(_suite).items() if name.startswith("test_")})


@pytest.fixture
def store_name() -> str:
    """The one kind of store that needs a server."""
    return "redis"


@pytest.fixture
def store_url(redis_server: Any) -> str:
    """Where that server is."""
    return str(redis_server.url)
