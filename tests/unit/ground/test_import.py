"""Importing the package: quick, alone, and with clear words where something is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import resilient

QUIET = """
import sys, time
before = set(sys.modules)
begun = time.process_time()
import resilient
took = time.process_time() - begun
tops = {name.partition('.')[0] for name in set(sys.modules) - before}
print(took, *sorted(tops - set(sys.stdlib_module_names)))
"""


def run(code: str, *flags: str) -> str:
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_no_other_package() -> None:
    """`import resilient` loads nothing but the standard library and itself."""
    _, *packages = run(QUIET).split()
    assert packages == ["resilient"]


def test_import_is_quick() -> None:
    """`import resilient` costs less than 30 ms of processor time (the best of five fresh interpreters)."""
    assert min(float(run(QUIET).split()[0]) for _ in range(5)) < 0.030


@pytest.mark.parametrize("name", sorted(set(resilient.__all__) - {"__version__"}))
def test_front_door_names_exist(name: str) -> None:
    """Each name at the front door is the same object as in its room, and dir() shows it."""
    value = getattr(resilient, name)
    assert getattr(sys.modules[resilient._HOMES[name]], name) is value
    assert name in dir(resilient)


def test_front_door_is_complete() -> None:
    """What is exported is what can be loaded."""
    assert set(resilient.__all__) == {*resilient._HOMES, "__version__"}


def test_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails like any other attribute."""
    with pytest.raises(AttributeError, match="no attribute 'Cahce'"):
        resilient.Cahce  # noqa: B018 - the look-up is the point


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("resilient.storage.replicas", "sqlalchemy", "sql"),
        ("resilient.storage.shards", "sqlalchemy", "sql"),
        ("resilient.flask", "flask", "flask"),
        ("resilient.django", "django", "django"),
        ("resilient.events.opentelemetry", "opentelemetry", "otel"),
        ("resilient.events.prometheus", "prometheus_client", "prometheus"),
    ],
)
def test_a_missing_extra_is_named(module: str, library: str, extra: str) -> None:
    """Where an optional library is missing, the error names the extra that brings it."""
    code = f"""
import sys
sys.modules[{library!r}] = None
from resilient.errors import MissingExtra
try:
    import {module}
except MissingExtra as error:
    print(error.extra, error)
"""
    said = run(code)
    assert said.startswith(extra + " ")
    assert f"resilient-patterns[{extra}]" in said


def test_policies_load_only_the_base_dependencies() -> None:
    """`resilient.policy` needs no extra, and loads tenacity only when something has failed."""
    code = "import sys; from resilient.policy import *; print('tenacity' in sys.modules, 'redis' in sys.modules)"
    assert run(code).split() == ["False", "False"]
