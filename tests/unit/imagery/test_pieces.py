"""The small pieces: settings, pictures, the tour's arguments and its table."""

import io
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from PIL import Image as Picture

from examples.imagery import sepia as pictures
from examples.imagery.parts import Parts
from examples.imagery.settings import Settings
from examples.imagery.tour import __main__ as tour
from examples.imagery.tour.invariants import Finding
from examples.imagery.tour.table import header, line, markdown
from examples.imagery.tour.tally import Tally
from examples.imagery.tour.users import User
from resilient.errors import ConfigurationError, InvalidInput, Unavailable


def test_settings_travel_in_the_environment():
    """What one process was told, another one reads from its environment."""
    told = Settings(
        database="sqlite:///a", replicas=("sqlite:///b",), shards={"n": "s"}, jobs="j", events="e", secret="s"
    )
    assert Settings.from_environment(told.to_environment()) == told


@pytest.mark.parametrize("environment", [{}, {"IMAGERY_SETTINGS": "{"}, {"IMAGERY_SETTINGS": "{}"}])
def test_settings_that_are_missing_or_malformed(environment):
    """The application says what it lacks instead of starting half."""
    with pytest.raises(ConfigurationError, match="IMAGERY_SETTINGS"):
        Settings.from_environment(environment)


def test_an_unknown_sabotage_is_refused():
    """A typing error must not pass for a tour that cannot fail."""
    with pytest.raises(ConfigurationError, match="delete-before-work"):
        Settings(database="d", shards={}, jobs="j", events="e", secret="s", sabotage="typo")


def test_sepia():
    """The same picture gives the same bytes, in the same size, and it is brown: red over green over blue."""
    jpeg = pictures.sample(7)
    brown = pictures.sepia(jpeg)
    assert brown == pictures.sepia(jpeg) != pictures.sepia(pictures.sample(8))
    picture = Picture.open(io.BytesIO(brown)).convert("RGB")
    assert picture.size == (320, 200)
    red, green, blue = (sum(channel.histogram()[i] * i for i in range(256)) for channel in picture.split())
    assert red > green > blue


@pytest.mark.parametrize("content", [b"", b"GIF89a" + bytes(100), pictures.sample(1)[:200]])
def test_sepia_refuses(content):
    """What is no JPEG, or half of one, is told apart from a fault of the worker."""
    with pytest.raises(InvalidInput):
        pictures.sepia(content)


def test_sepia_refuses_huge_pictures(monkeypatch):
    """A picture is refused by its size before it is unpacked."""
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(InvalidInput, match="1,000 pixels"):
        pictures.sepia(pictures.sample(1))


def test_port_in_use(capsys):
    """A port that is taken is told in one line, with status 2, before anything starts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert tour.main(["--port", str(port)]) == 2
    assert capsys.readouterr().err == f"imagery: port {port} is in use: choose another one with PORT=\n"


@pytest.mark.parametrize("port", ["abc", "0", "70000", "-1"])
def test_no_port(port, capsys, monkeypatch):
    """What is no port is told likewise."""
    monkeypatch.setenv("PORT", port)
    assert tour.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_unknown_sabotage_on_the_command_line(capsys, monkeypatch):
    """An unknown sabotage is told before anything starts."""
    monkeypatch.setenv("IMAGERY_SABOTAGE", "typo")
    assert tour.main([]) == 2
    assert "delete-before-work, no-ledger" in capsys.readouterr().err


def test_a_full_disk_is_told(capsys, monkeypatch):
    """Where a part fails and there is little room, the last line says so; few servers do."""
    monkeypatch.setattr(tour, "_visit", lambda *_: (_ for _ in ()).throw(Unavailable("no worker had an image")))
    monkeypatch.setattr(Parts, "start", lambda parts: parts.webs.append(SimpleNamespace(url="", stop=int)) or parts)
    monkeypatch.setattr(tour.shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 2**19))
    assert tour.main(["--embedded"]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first == "imagery: no worker had an image"
    assert last.endswith("has little room left: 1.5 MiB")


def test_old_python_is_told_in_one_line():
    """An older Python gets one clear line instead of a traceback."""
    source = Path(tour.__file__)
    old = "import sys; sys.version_info = (3, 10, 0, 'final', 0)"
    script = f"{old}; exec(compile(open({str(source)!r}).read(), 'm', 'exec'))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "Imagery needs Python 3.11 or newer, this is 3.10\n"


def test_table():
    """Each phase is one row, with shares of where answers came from; Markdown has the same rows."""
    tally = Tally()
    phase = tally.begin("cache killed")
    for source in ("shared", "shared", "primary", "local"):
        tally.answered("image", 0.1, source)
    tally.answered("list", 0.25, "replica-1")
    tally.failed("timeline of bob", 0.5)
    tally.retry()
    phase.recovered = "cache answers after 0.3 s"
    told = line(phase)
    assert "cache 75%, primary 25%" in told
    assert "0.50 s" in told
    assert told.split()[2:5] == ["6", "1", "1"]
    assert header().index("requests") + len("requests") == told.index(" 6 ") + 2
    text = markdown(tally.phases, {"cache": "redis-server"}, "9 of 9 held.")
    assert text.splitlines()[2].startswith(
        "| cache killed | 6 | 1 | 1 | 0.50 s | cache 75%, primary 25% | replicas 100% |"
    )
    assert text.endswith("cache: redis-server. 9 of 9 held.\n")


def test_a_user_who_meets_something_unforeseen_is_told_of(monkeypatch):
    """No simulated user ends silently: what it met breaks the tour's last invariant."""
    stop = threading.Event()

    def met(_user, image_id, stop):
        stop.set()
        raise TimeoutError("the store")

    monkeypatch.setattr(User, "_one_image", met)
    user = User("ann", [], Tally(), pause=0.0, number=1)
    user.live(stop)
    assert [each.partition(" ")[2] for each in user.unfinished] == ["of ann: TimeoutError('the store')"]


def test_findings():
    """A finding says in one line what held, or what was broken first."""
    assert str(Finding("queues are empty", [], "4 queues")) == "held    queues are empty (4 queues)"
    assert str(Finding("queues are empty", ["jobs", "dead"], "")) == "BROKEN  queues are empty: jobs and 1 more"


def test_messages_are_json():
    """What stands in the queue can be read without this library."""
    from examples.imagery.images import Job

    assert msgspec.json.decode(msgspec.json.encode(Job("i", "alice", "k"))) == {
        "image_id": "i",
        "owner": "alice",
        "source_key": "k",
    }
