import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from resilient.policy import Fallback, Pipeline, Retry

ROOT = Path(__file__).resolve().parents[3]

TYPED = """
from collections.abc import Callable, Coroutine
from typing import Any, Never, assert_type

from resilient.policy import Breaker, Calls, Degraded, Fallback, Pipeline, Policy, Retry


def load(number: int) -> str: ...
async def aload(number: int) -> str: ...
async def substitute(error: Exception) -> bytes: ...


plain = Pipeline("plain", Retry(), Breaker(), classify=None)
marked = Pipeline("marked", Fallback(lambda error: 0), Retry())
bare = Pipeline("bare", Fallback(lambda error: 0, mark=False), Retry())
later = Pipeline("later", Fallback(substitute))
policies: list[Policy] = [Retry()]

assert_type(plain, Pipeline[Never])
assert_type(plain.call(load, 1), str)
assert_type(plain.idempotent.call(load, 1), str)
assert_type(marked.call(load, 1), str | Degraded[int])
assert_type(marked.idempotent.call(load, 1), str | Degraded[int])
assert_type(marked.with_options(attempts=1).call(load, 1), str | Degraded[int])
assert_type(bare.call(load, 1), str | int)
assert_type(Pipeline("unknown", *policies), Pipeline[Any])

assert_type(plain(load)(1), str)
assert_type(marked(load)(1), str | Degraded[int])


async def main() -> None:
    assert_type(await plain.acall(aload, 1), str)
    assert_type(await later.acall(aload, 1), str | Degraded[bytes])
    assert_type(await plain(aload)(1), str)
    assert_type(await later.idempotent(aload)(1), str | Degraded[bytes])


def takes_any(calls: Calls[object]) -> None: ...
def takes_plain(pipeline: Pipeline) -> None: ...


takes_any(plain)
takes_any(marked)
takes_plain(plain)
"""


@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_type_checker_knows_what_a_call_returns(tmp_path):
    """A call returns its function's type, and where there is a fallback, also what that may give instead."""
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "wrong.py").write_text(TYPED + "takes_plain(marked)\nlength: str = marked.call(load, 1)\n")
    # A cache of its own, which the checks of the whole project do not touch: the first run takes ten times as long.
    cache = ROOT / ".mypy_cache" / "tests-of-types"
    # What the bodies of the library's functions hold is looked at elsewhere.
    options = ["--strict", "--no-error-summary", "--disable-error-code=empty-body", "--follow-imports=silent"]
    options.append(f"--cache-dir={cache}")
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(tmp_path / "typed.py"), str(tmp_path / "wrong.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = ran.stdout.splitlines()
    assert len(complaints) == 2, ran.stdout + ran.stderr
    assert all("wrong.py" in each for each in complaints)


def test_the_parameter_means_nothing_at_run_time():
    """A pipeline may be made with its parameter spelt out."""
    assert Pipeline[int]("x", Fallback(lambda error: 1, mark=False), Retry()).call(len, "abc") == 3
