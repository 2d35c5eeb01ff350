"""What the tests here share: other projects' sources as they were released, and a run of their tests."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KEPT = ROOT / ".suites"
"""Where the sources are kept; nothing of it is in the repository."""


@dataclass(frozen=True)
class Outcome:
    """What a run of their tests ended in, by the tests' names."""

    passed: frozenset[str]
    failed: frozenset[str]
    skipped: frozenset[str]
    seconds: float
    output: str

    def __str__(self) -> str:
        return (
            f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped in {self.seconds:.0f} s"
        )

    @property
    def routed(self) -> dict[str, int]:
        """What our plugin counted, in the last line that it wrote; empty where it was not loaded."""
        lines = [line for line in self.output.splitlines() if line.startswith("routed: ")]
        parts = lines[-1].split()[1:] if lines else []
        return {key: int(value) for key, value in (part.split("=") for part in parts)}

    @property
    def failures(self) -> dict[str, int]:
        """How many cases of each test failed; their classes' names without the server's version."""
        return dict(Counter(re.sub(r"(_\d+)+(?=\.)|\[.*", "", name, flags=re.DOTALL) for name in self.failed))


RAN: list[str] = []
"""A row of the table at the end for each run."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of what ran, as the pages show it."""
    if RAN:
        head = ["", "## Tests of others", "", "| tests of | what | entries | passed | skipped | failed |"]
        terminalreporter.write("\n".join([*head, "|---|---|---|---:|---:|---:|", *RAN, ""]) + "\n")


def _row(folder: Path, arguments: tuple[str, ...], url: str | None, outcome: Outcome) -> str:
    project = str(folder.relative_to(KEPT)).partition(os.sep)[0].replace("_", ".")
    what = "all"
    if "-k" in arguments:
        what = f"`-k '{arguments[arguments.index('-k') + 1]}'`"
    where = {None: "-", "": "in the process"}.get(url, "on a server")
    return f"| {project} | {what} | {where} | {len(outcome.passed)} | {len(outcome.skipped)} | {len(outcome.failed)} |"


@pytest.fixture(scope="session")
def source() -> Callable[[str], Path]:
    """The source distribution of an installed package, in the version that is installed, unpacked."""
    return _source


def _source(name: str) -> Path:
    version = importlib.metadata.version(name)
    folder = KEPT / f"{re.sub('[-.]', '_', name.lower())}-{version}"  # as archives of source are named
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as temporary:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
            got = subprocess.run(
                [*pip, "--no-binary", name, "--dest", temporary, f"{name}=={version}"],
                capture_output=True,
                text=True,
                check=False,
            )
            archives = list(Path(temporary).glob("*.tar.gz"))
            if len(archives) != 1:
                pytest.fail(f"the source of {name} {version} could not be downloaded:\n{got.stderr}", pytrace=False)
            with tarfile.open(archives[0]) as archive:
                archive.extractall(KEPT, filter="data")
    return folder


@pytest.fixture
def run_theirs(tmp_path: Path) -> Callable[..., Outcome]:
    """Runs tests of theirs in a process of their own: ``run_theirs(folder, *arguments, **variables)``."""

    def run(folder: Path, *arguments: str, **variables: str) -> Outcome:
        report = tmp_path / "report.xml"
        ours = {"PYTEST_ADDOPTS", "PYTHONWARNINGS", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"}
        environment = {key: value for key, value in os.environ.items() if key not in ours}
        environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", **variables}
        options = ["-q", "--tb=short", "--maxfail=0", "-p", "no:cacheprovider", "-p", "no:resilient"]
        started = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=1800,
        )
        seconds = time.monotonic() - started
        assert process.returncode in {0, 1}, process.stdout[-5000:]  # 1: tests failed; more: they did not run
        outcome = Outcome(*_sorted(report), seconds, process.stdout)
        told = re.sub(r"//\w+:\w+@[\d.:]+", "//…", " ".join(arguments)).replace(f"{KEPT}{os.sep}", "")
        sys.stdout.write(f"{folder.name}: {told}\n  {outcome} {outcome.routed or ''}\n")
        RAN.append(_row(folder, arguments, variables.get("FACE_URL"), outcome))
        for name, count in sorted(outcome.failures.items()):
            sys.stdout.write(f"  failed: {name}, {count} cases\n")
        return outcome

    return run


def _sorted(report: Path) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    passed, failed, skipped = set(), set(), set()
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        kinds = {child.tag for child in case}
        (failed if kinds & {"failure", "error"} else skipped if "skipped" in kinds else passed).add(name)
    return frozenset(passed - failed), frozenset(failed), frozenset(skipped)
