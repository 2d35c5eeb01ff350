"""The health routes are the same through every mount: views and groups by name, the page, the metrics."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable

import pytest
from django.test import AsyncClient, Client, override_settings
from flask import Flask

from resilient.django import health_urls
from resilient.django._settings import options
from resilient.errors import ConfigurationError
from resilient.flask import health_blueprint
from resilient.health import Health, Result
from resilient.policy import deadline
from resilient.web import asgi, awslambda, wsgi

MIDDLEWARE = "resilient.django.middleware.HealthMiddleware"


class Got(tuple[int, str, str]):  # noqa: SLOT001 - a tuple with the rest of the headers beside it
    """The status, the type and the body of an answer, with all its headers."""

    headers: dict[str, str]


def got(status: int, headers, body: str) -> Got:
    by_name = {name.lower(): value for name, value in headers}
    made = Got((status, by_name.get("content-type", ""), body))
    made.headers = by_name
    return made


Get = Callable[..., Got]


def by_wsgi(health: Health, authorize=None) -> Get:
    app = wsgi.health(health, authorize=authorize)

    def get(path: str, accept: str = "", method: str = "GET") -> Got:
        told = []
        environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "HTTP_ACCEPT": accept, "wsgi.input": io.BytesIO()}
        body = b"".join(app(environ, lambda *args: told.append(args)))
        return got(int(told[0][0][:3]), told[0][1], body.decode())

    return get


def by_asgi(health: Health, authorize=None) -> Get:
    app = asgi.health(health, authorize=authorize)

    def get(path: str, accept: str = "", method: str = "GET") -> Got:
        told = []

        async def send(message) -> None:
            told.append(message)

        headers = [(b"accept", accept.encode())]
        scope = {"type": "http", "path": path, "root_path": "", "method": method, "headers": headers}
        asyncio.run(app(scope, None, send))
        plain = [(name.decode(), value.decode()) for name, value in told[0]["headers"]]
        return got(told[0]["status"], plain, told[1]["body"].decode())

    return get


def by_lambda(health: Health, authorize=None) -> Get:
    handler = awslambda.health(health, authorize=authorize)

    def get(path: str, accept: str = "", method: str = "GET") -> Got:
        event = {"requestContext": {"elb": {}}, "httpMethod": method, "path": path, "headers": {"accept": accept}}
        told = handler(event, None)
        return got(told["statusCode"], told["headers"].items(), told["body"])

    return get


def by_flask(health: Health, authorize=None) -> Get:
    app = Flask("shop")
    app.register_blueprint(health_blueprint(health, authorize=authorize))

    def get(path: str, accept: str = "", method: str = "GET") -> Got:
        answer = app.test_client().open(path, method=method, headers={"Accept": accept})
        return got(answer.status_code, answer.headers.items(), answer.text)

    return get


class Routes:
    """A URL configuration without a file."""

    def __init__(self, patterns) -> None:
        self.urlpatterns = list(patterns)


def by_django_urls(health: Health, authorize=None) -> Get:
    def get(path: str, accept: str = "", method: str = "GET") -> Got:
        with override_settings(ROOT_URLCONF=Routes(health_urls(health, authorize=authorize))):
            answer = Client(headers={"host": "shop.example", "accept": accept}).generic(method, path)
        return got(answer.status_code, answer.headers.items(), answer.content.decode())

    return get


def by_django(health: Health, authorize=None) -> Get:
    def get(path: str, accept: str = "", method: str = "GET") -> Got:
        options = {"HEALTH": health, "AUTHORIZE": authorize}
        empty = Routes([])
        with override_settings(MIDDLEWARE=[MIDDLEWARE], RESILIENT=options, ROOT_URLCONF=empty):
            answer = Client(headers={"host": "10.0.0.7", "accept": accept}).generic(method, path)
        return got(answer.status_code, answer.headers.items(), answer.content.decode())

    return get


def by_async_django(health: Health, authorize=None) -> Get:
    def get(path: str, accept: str = "", method: str = "GET") -> Got:
        options = {"HEALTH": health, "AUTHORIZE": authorize}
        empty = Routes([])
        with override_settings(MIDDLEWARE=[MIDDLEWARE], RESILIENT=options, ROOT_URLCONF=empty):
            answer = asyncio.run(AsyncClient().generic(method, path, headers={"accept": accept}))
        return got(answer.status_code, answer.headers.items(), answer.content.decode())

    return get


MOUNTS = [by_wsgi, by_asgi, by_lambda, by_flask, by_django_urls, by_django, by_async_django]


@pytest.fixture
def health():
    made = Health(details="authorized", page=True, metrics=True)
    made.add("db", lambda: True)
    made.add("mail", lambda: Result.fail("down"))
    made.group("reading", ["db"])
    yield made
    made.close()


@pytest.mark.parametrize("mount", MOUNTS)
def test_views_and_groups_have_routes_of_their_own(health, mount):
    """A balancer that serves a part of the application asks for that part."""
    get = mount(health)
    assert get("/health/reading") == (200, "application/health+json", '{"status":"pass"}')
    assert get("/health/ready")[0] == 503
    assert get("/health/live")[0] == 200
    assert get("/health/all")[0] == 503
    assert [get(path)[0] for path in ("/health/nobody", "/health/", "/health/reading/x")] == [404, 404, 404]
    health.drain()
    assert [get(path)[0] for path in ("/health/reading", "/health/live")] == [503, 200]


@pytest.mark.parametrize("mount", MOUNTS)
def test_the_page_and_the_metrics_are_for_those_who_may_see_details(health, mount):
    """For all others there is no such path."""
    get = mount(health, lambda _: True)
    status, kind, body = get("/health/page")
    assert (status, kind, "mail" in body, "<svg" in body) == (200, "text/html; charset=utf-8", True, True)
    status, kind, body = get("/health/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'resilient_health_check_status{check="mail"} 3' in body
    assert "mail:responseTime" in json.loads(get("/health")[2])["checks"]
    for refused in (lambda _: False, None, lambda _: 1 / 0):
        other = mount(health, refused)
        assert [other(path)[0] for path in ("/health/page", "/health/metrics")] == [404, 404]
        assert other("/health")[2] == '{"status":"fail"}'


@pytest.mark.parametrize("mount", MOUNTS)
def test_the_page_and_the_metrics_are_opt_in(mount):
    """Also where everybody may see details."""
    get = mount(Health(details="always"))
    assert [get(path)[0] for path in ("/health/page", "/health/metrics")] == [404, 404]


@pytest.mark.parametrize("mount", MOUNTS)
def test_who_gets_one_word_is_not_asked_for_leave(health, mount):
    """Whoever decides on details may ask a database; a probe of liveness must not."""
    asked = []
    get = mount(health, lambda _: asked.append(1) is None)
    assert get("/livez") == (200, "text/plain; charset=utf-8", "pass\n")
    assert get("/readyz")[0] == 503
    assert asked == []
    assert get("/readyz", "application/json")[0] == 503
    assert len(asked) == 1


@pytest.mark.parametrize("mount", MOUNTS)
def test_head_is_answered_and_other_methods_are_told_what_is(health, mount):
    """HEAD has the status and the headers of GET and no body; 405 names the methods that are taken."""
    get = mount(health)
    for path in ("/livez", "/health/reading"):
        full, bare = get(path), get(path, "", "HEAD")
        assert (bare[0], bare[2], bare.headers) == (200, "", full.headers)
        refused = get(path, "", "DELETE")
        assert refused[0] == 405
        assert {"GET", "HEAD"} <= {each.strip() for each in refused.headers["allow"].split(",")}


@pytest.mark.parametrize("mount", MOUNTS)
def test_who_says_whether_details_are_seen_has_a_deadline(health, mount):
    """What it calls obeys the rest of the report's own; what hangs and does not is not for it to ask."""
    found = []
    mount(health, lambda _: found.append(deadline.remaining()))("/health")
    assert found[0] is not None
    assert 0 < found[0] <= health.deadline


# -------------------------------------------------------------------------------------------- wrong at construction


async def nobody_awaits(request) -> bool:
    return True


@pytest.mark.parametrize("mount", [wsgi.health, awslambda.health, health_blueprint, health_urls])
def test_an_async_authorize_is_refused_where_nothing_awaits_it(mount):
    """It would say no to everybody, and nobody would learn why."""
    with pytest.raises(ConfigurationError, match="async"):
        mount(Health(), authorize=nobody_awaits)
    asgi.health(Health(), authorize=nobody_awaits)


@pytest.mark.parametrize("mount", [wsgi.health, asgi.health, awslambda.health, health_blueprint, health_urls])
@pytest.mark.parametrize(("health", "authorize"), [("shop.health:health", None), (Health(), True)])
def test_what_is_no_health_and_no_function_is_refused_when_it_is_mounted(mount, health, authorize):
    """Otherwise the first probe would find it, and the instance would never get traffic."""
    with pytest.raises(ConfigurationError):
        mount(health, authorize=authorize)


def test_djangos_settings_refuse_an_async_authorize():
    """``manage.py check`` tells it."""
    with (
        override_settings(RESILIENT={"HEALTH": Health(), "AUTHORIZE": nobody_awaits}),
        pytest.raises(ConfigurationError, match="async"),
    ):
        options()
