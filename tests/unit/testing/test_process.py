"""A process is what its handles say, and nothing of it outlives its owner, however the owner ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from resilient.errors import ConfigurationError, DeadlineExceeded, Unavailable
from resilient.testing.servers import Process, Server, free_port
from resilient.testing.servers.process import guard

SLEEPER = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(600)"]


def alive(pid):
    """Whether a process exists and is not a zombie that nobody has buried yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition, timeout=10.0):
    """Wait for what another process does; it has no event to await."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)


def test_its_states_follow_its_life():
    """new, running, frozen, running, ended, running, stopped; stop may be repeated."""
    process = Process(SLEEPER)
    assert process.state == "new"
    with pytest.raises(Unavailable):
        _ = process.pid
    process.start()
    first = process.pid
    assert process.start().pid == first
    process.freeze()
    assert process.state == "frozen"
    assert Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    process.thaw()
    process.thaw()
    assert process.state == "running"
    process.kill()
    assert process.state == "ended"
    assert not alive(first)
    process.restart()
    assert process.pid != first
    process.stop()
    process.stop()
    assert process.state == "stopped"


def test_a_frozen_process_is_stopped_in_no_time():
    """A process that cannot hear SIGTERM does not make stop wait."""
    process = Process(SLEEPER).start()
    process.freeze()
    begun = time.monotonic()
    process.stop()
    assert time.monotonic() - begun < 2
    assert not alive(process.pid)


def test_only_what_runs_can_be_frozen():
    """Freezing what is not there is a mistake in the test, and is said."""
    with pytest.raises(ConfigurationError):
        Process(SLEEPER).freeze()


def test_a_deaf_process_is_killed_after_its_grace(monkeypatch):
    """SIGTERM is given its time, and then SIGKILL ends what ignored it."""
    monkeypatch.setattr(Process, "stop_grace", 0.2)
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    process = Process([sys.executable, "-S", "-c", deaf]).start()
    until(lambda: "up" in process.output())
    begun = time.monotonic()
    process.stop()
    assert 0.2 <= time.monotonic() - begun < 3


def test_its_children_end_with_it():
    """kill reaches everything the process has started, though none of it is our child."""
    parent = f"import subprocess, time; print(subprocess.Popen({SLEEPER!r}).pid, flush=True); time.sleep(600)"
    with Process([sys.executable, "-S", "-c", parent]) as process:
        until(lambda: "up" in process.output())
        grandchild = int(process.output().split()[0])
        assert alive(grandchild)
        process.kill()
        until(lambda: not alive(grandchild))


def test_wait_tells_the_exit_status():
    """A process that ends by itself is seen to have ended, with status and output; one that does not is reported."""
    with Process([sys.executable, "-c", "import sys; print('bye'); sys.exit(3)"]) as process:
        assert process.wait(20) == 3
        assert process.state == "ended"
        assert process.output() == "bye\n"
    with Process(SLEEPER) as process, pytest.raises(DeadlineExceeded):
        process.wait(0.05)
    with pytest.raises(Unavailable):
        Process(SLEEPER).wait(0)


def test_its_folder_outlives_a_kill_and_not_a_stop():
    """The folder is kept for restart and removed by stop; output is gathered over all starts."""
    with Process(SLEEPER) as process:
        folder = process.directory
        until(lambda: process.output() == "up\n")
        process.kill()
        assert folder.is_dir()
        process.restart()
        until(lambda: process.output() == "up\nup\n")
    assert not folder.exists()
    assert process.output() == ""


def test_its_environment(monkeypatch, tmp_path):
    """Variables are added, and removed where the value is None; cwd is where it runs."""
    monkeypatch.setenv("HARNESS_GONE", "1")
    show = "import os; print(os.environ.get('HARNESS_NEW'), os.environ.get('HARNESS_GONE'), os.getcwd())"
    command = [sys.executable, "-c", show]
    with Process(command, env={"HARNESS_NEW": "2", "HARNESS_GONE": None}, cwd=tmp_path) as process:
        process.wait(20)
        assert process.output() == f"2 None {tmp_path}\n"


class Broken(Server):
    """A server that ends, or never answers."""

    def __init__(self, code, **options):
        super().__init__(**options)
        self.code = code

    def _argv(self):
        return [sys.executable, "-S", "-c", self.code]

    def _probe(self):
        raise ConnectionRefusedError


def test_a_server_that_ends_at_once_is_reported_with_its_words():
    """The error holds what the server printed, and nothing is left running."""
    server = Broken("import sys; print('no space left'); sys.exit(1)")
    with pytest.raises(Unavailable, match="ended before it answered:\nno space left"):
        server.start()
    assert server.state == "ended"
    server.stop()


def test_a_server_that_never_answers_is_reported_and_ended():
    """The wait has an end, and so has the process."""
    server = Broken("import time; time.sleep(600)", start_timeout=0.2)
    with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"):
        server.start()
    assert not alive(server.pid)
    server.stop()


def test_a_server_that_cannot_run_here_says_so():
    """Starting what the machine lacks names what is missing."""

    class Absent(Broken):
        @classmethod
        def missing(cls):
            return "no such program"

    with pytest.raises(ConfigurationError, match="cannot run here: no such program"):
        Absent("").start()


def test_free_ports_lie_below_those_of_outgoing_connections():
    """No client's own port can sit on a server's port while the server is down."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if low > 16_100:
        assert all(15_000 <= free_port() < low for _ in range(50))


def run_owner(body, **options):
    """Start a Python that owns a process and prints its number; returns the owner and that number."""
    code = "import sys, os, time, signal\nfrom resilient.testing.servers import Process\n"
    code += f"process = Process({SLEEPER!r}).start()\nprint(process.pid, process.directory, flush=True)\n"
    owner = subprocess.Popen(
        [sys.executable, "-c", code + textwrap.dedent(body)], stdout=subprocess.PIPE, text=True, **options
    )
    pid, folder = owner.stdout.readline().split()
    return owner, int(pid), Path(folder)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "raise RuntimeError('a bug')",
        "sys.exit(5)",
        "del process",
        "os._exit(0)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "process.freeze(); os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_nothing_outlives_its_owner(body):
    """However the interpreter ends, also by kill -9, the process ends and its folder goes."""
    owner, pid, folder = run_owner(body, stderr=subprocess.DEVNULL)
    with owner:
        owner.wait(20)
    until(lambda: not alive(pid) and not folder.exists())


def test_interrupt_does_not_reach_the_process_but_ends_it():
    """Ctrl-C goes to the owner, which then ends what it owns; also where these tests run with SIGINT ignored."""
    body = "signal.signal(signal.SIGINT, signal.default_int_handler); print(flush=True); time.sleep(600)"
    owner, pid, folder = run_owner(body, stderr=subprocess.DEVNULL, start_new_session=True)
    with owner:
        owner.stdout.readline()  # it listens now
        os.killpg(owner.pid, signal.SIGINT)
        owner.wait(20)
    until(lambda: not alive(pid) and not folder.exists())


def test_a_process_begun_while_its_owner_dies_is_found():
    """Between its start and its registration a process is known by its mark alone."""
    body = "from resilient.testing.servers.process import guard\nguard.drop('group', process.pid)\nos._exit(0)"
    owner, pid, _ = run_owner(body)
    with owner:
        owner.wait(20)
    until(lambda: not alive(pid))


def test_a_forked_child_leaves_its_parents_processes_alone():
    """A child of fork neither stops them at its end nor keeps the guard from seeing the parent's end."""
    body = """
    child = os.fork()
    if child == 0:
        process.stop()
        print(process.state, flush=True)
        sys.exit(0)
    os.waitpid(child, 0)
    os.kill(process.pid, 0)
    print("still there", flush=True)
    sleeper = os.fork()
    if sleeper == 0:
        time.sleep(600)
    print(sleeper, flush=True)
    os._exit(0)
    """
    owner, pid, folder = run_owner(body)
    with owner:
        assert owner.stdout.readline() == "stopped\n"
        assert owner.stdout.readline() == "still there\n"
        orphan = int(owner.stdout.readline())
        try:
            owner.wait(20)
            until(lambda: not alive(pid) and not folder.exists())
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_the_guard_forgets_what_was_stopped():
    """A stopped process's number may belong to someone else later, so it must be off the list."""
    process = Process(SLEEPER).start()
    assert process in guard._processes
    process.stop()
    assert process not in guard._processes
