"""Other projects' tests of their own cache backends and sessions, with ours in their place (see faces/).

Each suite comes from the project's source distribution, in the version that is installed here.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resilient.testing.servers import RedisServer

HERE = Path(__file__).resolve().parent
FACES = HERE / "faces"
ROOT = HERE.parent.parent

NAMES = {"cachelib": "cachelib", "django": "Django", "dogpile": "dogpile.cache", "flask_caching": "Flask-Caching"}
QUICK = {
    # Those that wait for an end by the clock, or work for seconds, are left to the whole run.
    "django": "not expir and not touch and not timeout",
    "cachelib": "not expiration",
    "dogpile": "not threaded and not expire",
    "flask_caching": "not timeout",
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server for the entries; where there is none the test is skipped, or fails in CI."""
    if (missing := RedisServer.missing()) is not None:
        pytest.skip(f"missing server: {missing}")
    with RedisServer() as server:
        yield server.url


@pytest.fixture
def run_face(source: Callable[..., Path], run_theirs: Callable) -> Callable:
    """Lays our adapter into the folder of their tests, and runs it there: ``run_face("django", url)``."""

    def run(face: str, url: str, *arguments: str):
        folder = source(NAMES[face]) / "tests"
        adapter = shutil.copy(FACES / f"ours_{face}.py", folder / f"test_ours_{face}.py")
        path = ":".join(map(str, (ROOT, HERE, FACES, folder)))
        return run_theirs(folder, *arguments, str(adapter), PYTHONPATH=path, FACE_URL=url)

    return run


PASSED = {"django": 116, "cachelib": 60, "dogpile": 51, "flask_caching": 13}
"""How many tests there are at least, of the versions that were installed when this was written."""

NOT_OURS = {
    # A server makes room by its own policy: Django leaves these out for its own backend of Redis, too.
    "server": {"test_cull", "test_zero_cull", "test_cull_delete_when_store_empty"},
    "process": set[str](),
}


@pytest.mark.parametrize("face", sorted(QUICK))
def test_a_short_selection(face: str, run_face: Callable) -> None:
    """What takes no waiting, with entries in the process: for every change."""
    outcome = run_face(face, "", "-k", QUICK[face])
    assert not outcome.failed
    assert len(outcome.passed) >= PASSED[face] // 2


@pytest.mark.parametrize("where", ["process", "server"])
@pytest.mark.parametrize("face", sorted(PASSED))
def test_the_whole_suite(face: str, where: str, run_face: Callable, request: pytest.FixtureRequest) -> None:
    """All their tests of a backend pass with ours, in the process and on a server."""
    outcome = run_face(face, "" if where == "process" else request.getfixturevalue("url"))
    assert not outcome.failed
    assert len(outcome.passed) >= PASSED[face]
    assert {name.rpartition(".")[2] for name in outcome.skipped} <= NOT_OURS[where]


def test_flask_caching_with_our_backend_beneath(source: Callable[..., Path], run_theirs: Callable) -> None:
    """Their tests of decorators, memoizing and views pass with our backend in the place of SimpleCache."""
    folder = source("Flask-Caching")
    path = ":".join(map(str, (ROOT, HERE, FACES, folder / "tests")))
    asked = [f"tests/{name}.py" for name in ("test_cache", "test_memoize", "test_view")]
    # test_cache_unlink asks their own Redis backend for a command of Redis.
    options = ["-p", "flask_caching_swap", "-k", "not test_cache_unlink or if_not"]
    outcome = run_theirs(folder, *options, *asked, PYTHONPATH=path)
    assert not outcome.failed
    assert len(outcome.passed) >= 116
