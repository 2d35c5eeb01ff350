"""The filter of access logs, with the records that the servers themselves make."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from resilient.errors import ConfigurationError
from resilient.health import Health
from resilient.web import ProbeFilter, quiet_probes


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def log():
    """A function that makes a logger of a name listen, with the filter on it; all is put back at the end."""
    undone = []

    def listen(name: str, **options: object) -> Kept:
        kept, logger = Kept(), logging.getLogger(name)
        before = logger.level, logger.propagate
        logger.addHandler(kept)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        undo = quiet_probes(name, **options)
        undone.append((logger, kept, before, undo))
        return kept

    yield listen
    for logger, kept, (level, propagate), undo in undone:
        undo()
        logger.removeHandler(kept)
        logger.setLevel(level)
        logger.propagate = propagate


def gunicorn(path: str, status: int, method: str = "GET") -> None:
    from gunicorn.config import Config
    from gunicorn.glogging import Logger

    config = Config()
    config.set("accesslog", "/dev/null")
    logger = Logger(config)
    environ = {
        "REQUEST_METHOD": method,
        "RAW_URI": path,
        "PATH_INFO": path.partition("?")[0],
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    took = SimpleNamespace(seconds=0, microseconds=5)
    answer = SimpleNamespace(status=f"{status} X", sent=5, headers=[])
    handlers = list(logger.access_log.handlers)
    logger.access(answer, SimpleNamespace(headers=[]), environ, took)
    for handler in handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()
            logger.access_log.removeHandler(handler)


def uvicorn(path: str, status: int, method: str = "GET") -> None:
    line = '%s - "%s %s HTTP/%s" %d'  # as uvicorn.protocols.http.h11_impl says it
    logging.getLogger("uvicorn.access").info(line, "127.0.0.1:5", method, path, "1.1", status)


def werkzeug(path: str, status: int, method: str = "GET") -> None:
    from werkzeug.serving import WSGIRequestHandler

    handler = WSGIRequestHandler.__new__(WSGIRequestHandler)
    handler.client_address = ("127.0.0.1", 5)
    handler.command, handler.path, handler.request_version = method, path, "HTTP/1.1"
    handler.requestline = f"{method} {path} HTTP/1.1"
    handler.log_request(status, 5)


def django(path: str, status: int, method: str = "GET") -> None:
    from django.core.servers.basehttp import WSGIRequestHandler

    handler = WSGIRequestHandler.__new__(WSGIRequestHandler)
    handler.request = None
    handler.requestline = f"{method} {path} HTTP/1.1"
    handler.log_request(str(status), "5")


def plain(path: str, status: int, method: str = "GET") -> None:
    line = f'10.0.0.7 - - [now] "{method} {path} HTTP/1.1" {status} 5 "-" "kube-probe"'
    logging.getLogger("my.access").info("%s", line)


SERVERS = {
    "gunicorn.access": gunicorn,
    "uvicorn.access": uvicorn,
    "werkzeug": werkzeug,
    "django.server": django,
    "my.access": plain,
}


@pytest.mark.parametrize("name", SERVERS)
def test_only_probes_that_went_well_are_hidden(log, name):
    """A failing probe, another path, another method and the page for people stay in the log."""
    kept, say = log(name), SERVERS[name]
    for path in ("/livez", "/readyz", "/startupz", "/health", "/health/ready", "/readyz?x=1"):
        say(path, 200)
        say(path, 200, "HEAD")
    assert kept.lines == []
    say("/readyz", 503)
    say("/readyzz", 200)
    say("/", 200)
    say("/health/page", 200)
    say("/health/a/b", 200)
    say("/readyz", 200, "POST")
    say("/shop?next=/readyz", 200)
    assert len(kept.lines) == 7


@pytest.mark.parametrize("name", SERVERS)
def test_what_stands_below_health_and_is_no_probe_stays(log, name):
    """An application may have such pages too: only the views, and the groups that are named, are probes."""
    kept, say = log(name, groups=["reading"]), SERVERS[name]
    probes = [f"/health/{view}" for view in ("live", "ready", "startup", "all", "metrics", "reading")]
    for path in (*probes, "/health/reading?x=1"):
        say(path, 200)
    assert kept.lines == []
    others = ["/health/patients", "/health/7", "/health/", "/health/page", "/health/readings", "/health/ready/x"]
    for path in others:
        say(path, 200)
    assert len(kept.lines) == len(others)


def test_the_views_of_a_health_are_the_groups(log):
    """They may be handed over as they are; the page for people stays in the log."""
    health = Health()
    health.group("region")
    kept = log("my.access", groups=health.views)
    plain("/health/region", 200)
    plain("/health/page", 200)
    assert len(kept.lines) == 1


def test_groups_that_are_one_text_are_refused():
    """Each of its letters would be a group."""
    with pytest.raises(ConfigurationError):
        ProbeFilter(groups="reading")


@pytest.mark.parametrize("name", SERVERS)
def test_the_routes_may_be_mounted_elsewhere(log, name):
    """With a prefix, only the paths under it are probes."""
    kept, say = log(name, prefix="/internal/"), SERVERS[name]
    say("/internal/readyz", 200)
    assert kept.lines == []
    say("/readyz", 200)
    say("/internal", 200)
    assert len(kept.lines) == 2


def test_what_is_no_access_log_stays(log):
    """Nor does a record whose arguments do not fit its text disappear."""
    kept = log("mixed")
    logger = logging.getLogger("mixed")
    logger.info("GET /readyz was asked %d times", 200)
    logger.info("started")
    logger.info("%(a)s", {"a": 1})
    assert len(kept.lines) == 3
    broken = logging.LogRecord("mixed", logging.INFO, "", 0, "%d %d", ("x",), None)
    assert ProbeFilter().filter(broken)


def test_the_usual_loggers_are_quieted_and_left_as_they_were():
    """The four servers' loggers get the filter, and the undo takes it away."""
    names = ["gunicorn.access", "uvicorn.access", "werkzeug", "django.server"]
    before = [list(logging.getLogger(name).filters) for name in names]
    undo = quiet_probes()
    assert all(any(isinstance(each, ProbeFilter) for each in logging.getLogger(name).filters) for name in names)
    undo()
    assert [list(logging.getLogger(name).filters) for name in names] == before


@pytest.mark.parametrize("prefix", ["/internal", "/internal/", "internal", "internal/"])
def test_a_prefix_may_be_written_as_django_and_flask_write_theirs(prefix):
    """``path("internal/", …)`` and ``url_prefix="/internal"`` mean the same place."""
    record = logging.LogRecord("web", logging.INFO, "", 0, '"GET /internal/readyz HTTP/1.1" %s 5', (200,), None)
    assert not ProbeFilter(prefix).filter(record)
    assert ProbeFilter().filter(record)
