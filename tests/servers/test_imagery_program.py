"""The application's program, started, interrupted and killed: nothing of it is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.imagery.parts import Parts
from examples.imagery.services import Services
from resilient.clock import SYSTEM
from resilient.errors import Unavailable

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(300)  # each starts half a dozen processes


def test_a_start_that_fails_leaves_nothing(monkeypatch):
    """If one part cannot start, those that did are stopped."""

    def fail(_self):
        raise Unavailable("no tables")

    monkeypatch.setattr(Services, "create_tables", fail)
    parts = Parts(embedded=True)
    with pytest.raises(Unavailable, match="no tables"):
        parts.start()
    assert parts.redis.state == parts.store.state == "stopped"


@pytest.fixture
def start_tour(tmp_path):
    """Starts the tour's program with a folder of its own for everything temporary."""
    started = []

    def start(*arguments, before=()):
        command = [sys.executable, "-m", "examples.imagery.tour", "--embedded", *arguments]
        environment = {**os.environ, "TMPDIR": str(tmp_path), "PORT": "", "SERVE": ""}
        tour = subprocess.Popen([*before, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        started.append(tour)
        return tour

    yield start
    for tour in started:
        tour.kill()
        tour.wait()
        tour.stdout.close()


def assert_gone(folder, pids=()):
    """Wait until no such process runs and the folder is empty."""
    until = SYSTEM.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids) or list(folder.iterdir()):
        assert SYSTEM.monotonic() < until, [*pids, *folder.iterdir()]
        SYSTEM.sleep(0.05)


@pytest.mark.parametrize("before", [(), ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")], ids=["plain", "ignored"])
def test_ctrl_c_in_the_midst_of_the_start(start_tour, tmp_path, before):
    """Ctrl-C ends what was started so far, and says so in a line; also where the shell had it ignore SIGINT."""
    tour = start_tour(before=before)
    while "S3 and SQS" not in tour.stdout.readline():
        pass
    while not list(tmp_path.iterdir()):
        SYSTEM.sleep(0.01)
    tour.send_signal(signal.SIGINT)
    assert tour.stdout.read().endswith("Interrupted; everything is stopped.\n")
    assert tour.wait(60) == 130
    assert_gone(tmp_path)


def test_nothing_is_left_of_a_tour_that_was_killed(start_tour, tmp_path):
    """After a kill -9 of the tour itself, everything that it started ends as well."""
    tour = start_tour("--serve", "--no-tour")
    pids = []
    while len(pids) < 7:
        told = tour.stdout.readline()
        if "kill -STOP" in told:
            pids.append(int(told.split()[3].removeprefix("-")))
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    tour.kill()
    assert_gone(tmp_path, pids)
