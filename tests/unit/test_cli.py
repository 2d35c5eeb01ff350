"""The ``resilient`` command: what it says, and how it ends."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import resilient
from resilient.cli import main

MODULE = """
from resilient.health import Health, Result
from resilient.storage.shards import ShardMap, ShardSet

good, bad = Health(), Health()
good.add("db", lambda: Result.ok(depth=3))
bad.add("db", lambda: False)
shards = ShardSet({"a": "sqlite:///a.db", "b": "sqlite:///b.db"})
shards.create(ShardMap.hashed(["a", "b"], buckets=16))
nested = type("Nested", (), {"health": good})


def __getattr__(name):
    if name == "late":
        raise RuntimeError("the settings\\nare not there")
    raise AttributeError(name)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with modules to name; what is imported from it is forgotten afterwards."""
    (tmp_path / "cli_target.py").write_text(MODULE)
    (tmp_path / "cli_broken.py").write_text("import a_module_that_is_not_installed\n")
    (tmp_path / "cli_wrong.py").write_text("1 / 0\n")
    (tmp_path / "cli_lines.py").write_text("raise ValueError('one\\ntwo')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    found = sys.modules.pop("cli_target", None)
    if found is not None:
        found.shards.close()
        for health in (found.good, found.bad):
            health.close()


# ---------------------------------------------------------------------------------------------------------- health


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["cli_target:good"], 0),
        (["cli_target:nested.health"], 0),
        (["cli_target:bad"], 1),
        (["cli_target:bad", "--view", "live"], 0),
    ],
)
def test_the_checks_of_a_health_are_run_here(folder, capsys, arguments, code):
    """0 where traffic is welcome, 1 where it is not, with a line for each check."""
    assert main(["health", *arguments]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("pass" if code == 0 else "fail")
    assert ("db" in "".join(lines[1:])) is ("--view" not in arguments)


def test_a_question_that_nobody_knows_ends_with_2(folder, capsys):
    """With the questions that there are; every view and group may be asked."""
    assert main(["health", "cli_target:good", "--view", "all"]) == 0
    assert main(["health", "cli_target:good", "--view", "nonsense"]) == 2
    assert "startup" in capsys.readouterr().err


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        status = int(self.path[1:])
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/200")
        self.end_headers()
        self.wfile.write(b"some\x1b[31m words\n")

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 2), (500, 2), (302, 2)])
def test_a_url_is_asked(url, capsys, monkeypatch, status, code):
    """503 is a health route that says no; anything else is no health route. Redirects and proxies are not followed."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert main(["health", f"{url}/{status}"]) == code
    told = capsys.readouterr()
    assert told.out == f"{status} some [31m words\n"
    assert bool(told.err) is (code == 2)


def test_a_url_names_its_view_itself(url, capsys):
    """A view beside it is refused in words: it could only be ignored."""
    assert main(["health", f"{url}/200", "--view", "live"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "/health/live" in told.err


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:1/readyz", "ftp://127.0.0.1/x", "http://", "http://[", "file:///"]
)
def test_what_cannot_be_asked_is_one_line(target, capsys):
    """Nobody listens, or it is no such URL."""
    assert main(["health", target]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)


def test_a_server_that_hangs_is_not_waited_for(capsys):
    """Two seconds by default, or as said."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert main(["health", f"http://127.0.0.1:{server.getsockname()[1]}/", "--timeout", "0.1"]) == 2
    assert "timed out" in capsys.readouterr().err


def test_a_server_that_dribbles_is_not_waited_for(capsys):
    """The seconds are for the whole answer: a byte now and then buys no more."""
    import socket
    import threading
    import time

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def dribble() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n")
                while not ended.wait(0.02):
                    link.sendall(b"x")

        thread = threading.Thread(target=dribble)
        thread.start()
        began = time.monotonic()
        assert main(["health", f"http://127.0.0.1:{server.getsockname()[1]}/", "--timeout", "0.2"]) == 2
        assert time.monotonic() - began < 5
        ended.set()
        thread.join()
    assert "timed out" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_time_that_is_none_is_told(capsys, seconds):
    """Before anybody is asked."""
    assert main(["health", "http://127.0.0.1:1/", f"--timeout={seconds}"]) == 2
    assert "is no time" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("cli_target", "write module:attr"),
        ("cli_target:", "write module:attr"),
        ("localhost:8000", "as in http://localhost:8000"),
        ("10.0.0.7:8000/readyz", "as in http://10.0.0.7:8000/readyz"),
        (":good", "write module:attr"),
        ("cli_nowhere:good", "there is no module 'cli_nowhere'"),
        ("cli_nowhere.deep:good", "there is no module 'cli_nowhere.deep'"),
        ("cli_target:nothing", "has no 'nothing'"),
        ("cli_target:shards", "is a ShardSet, not a Health"),
        ("cli_broken:good", "needs 'a_module_that_is_not_installed'"),
        ("cli_wrong:good", "ZeroDivisionError"),
        ("cli_lines:good", "cannot be imported: ValueError: one two"),
        ("cli_target:late", "cli_target:late cannot be read: RuntimeError: the settings are not there"),
    ],
)
def test_a_wrong_target_is_told_in_one_line(folder, capsys, target, said):
    """Not found, not there, of another kind, not importable: each has its own line, and the command ends with 2."""
    assert main(["health", target]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


@pytest.mark.parametrize("arguments", [[], ["queue"], ["shards"], ["nonsense"], ["health"]])
def test_wrong_arguments_end_with_2(arguments, capsys):
    """With the usage."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: resilient" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ shards and queues


def test_the_layout_of_shards_is_shown(folder, capsys):
    """Which shard holds how many buckets."""
    assert main(["shards", "layout", "cli_target:shards"]) == 0
    told = capsys.readouterr().out
    assert "16 buckets" in told
    assert "a: 8" in told
    assert main(["shards", "layout", "cli_target:good"]) == 2


def test_a_consumer_is_run(folder, capsys, monkeypatch):
    """Until it ends by itself, with what it did."""
    pytest.importorskip("boto3")
    from resilient.queue import Consumer, MemoryStore, Queue
    from resilient.testing.sqs import FakeSqs

    sqs = FakeSqs()
    queue = Queue(sqs.create_queue(QueueName="jobs")["QueueUrl"], client=sqs)
    for number in range(3):
        queue.send({"number": number})
    seen: list[object] = []

    def handle(body: dict) -> None:
        seen.append(body["number"])

    (folder / "cli_jobs.py").write_text("consumer = None\n")
    import importlib

    sys.path.insert(0, str(folder))
    module = importlib.import_module("cli_jobs")
    monkeypatch.setattr(module, "consumer", Consumer(queue, handle, idempotency=MemoryStore()))
    assert main(["queue", "run", "cli_jobs:consumer", "--until-empty"]) == 0
    assert "handled=3" in capsys.readouterr().out
    assert sorted(seen) == [0, 1, 2]
    assert main(["queue", "run", "cli_target:good"]) == 2
    del sys.modules["cli_jobs"]


def test_the_command_itself(folder):
    """As it is installed: the version, and a module of the current folder."""
    run = [sys.executable, "-c", "import sys; from resilient.cli import main; sys.exit(main())"]
    told = subprocess.run([*run, "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"resilient {resilient.__version__}\n"
    told = subprocess.run([*run, "health", "cli_target:good"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("ready: pass")


def test_the_module_is_the_command():
    """``python -m resilient.cli`` asks too, and does not end with 0 for want of anything to do."""
    command = [sys.executable, "-m", "resilient.cli", "health", "http://127.0.0.1:1/readyz"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (2, "")
    assert "no answer" in told.stderr
