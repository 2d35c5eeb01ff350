"""The app in the hands of Django's own test clients, sync and async."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.core import checks as django_checks
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path

from resilient import causality
from resilient.causality import Instant
from resilient.django import health_urls
from resilient.errors import (
    CircuitOpen,
    ConfigurationError,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from resilient.health import Health, Result
from resilient.policy import deadline
from resilient.web import http_error

HEALTH = "resilient.django.middleware.HealthMiddleware"
SCOPE = "resilient.django.middleware.ScopeMiddleware"
SECURITY = "django.middleware.security.SecurityMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"
TOKEN = "1!app:t1700000000.000000"


def write(name: str = "app") -> None:
    causality.current().observe(name, Instant(1_700_000_000.0))


def writing(request):
    write()
    return HttpResponse("written")


def telling(request):
    return HttpResponse(str(causality.current().token))


def left(request):
    return HttpResponse(str(deadline.remaining()))


async def awriting(request):
    await sync_to_async(write)()
    await asyncio.create_task(sync_to_async(write, thread_sensitive=False)("other"))
    return HttpResponse(str(causality.current().token))


class Routes:
    """A URL configuration without a file."""

    def __init__(self, patterns) -> None:
        self.urlpatterns = list(patterns)


def urls(*patterns):
    return override_settings(ROOT_URLCONF=Routes(patterns))


PATTERNS = [
    path("write", writing),
    path("token", telling),
    path("left", left),
    path("awrite", awriting),
]


# ------------------------------------------------------------------------------------------------------------- app


def test_the_app_is_called_resilient():
    """Its label is part of the contract: migrations and commands of later versions hang on it."""
    assert apps.get_app_config("resilient").name == "resilient.django"


# --------------------------------------------------------------------------------------------------------- routes


def test_the_health_routes_as_urls():
    """At the root or under a prefix."""
    health = Health()
    with urls(*health_urls(health), path("internal/", include(health_urls(health)))):
        client = Client(headers={"host": "shop.example"})
        for route in ("/livez", "/readyz", "/startupz", "/internal/readyz"):
            response = client.get(route)
            assert (response.status_code, response.content) == (200, b"pass\n")
            assert response["Cache-Control"] == "no-store"
        assert client.get("/health")["Content-Type"] == "application/health+json"
        assert client.get("/health").json() == {"status": "pass"}
        assert client.head("/readyz").status_code == 200
        assert client.post("/readyz").status_code == 405
        health.drain()
        assert [client.get(route).status_code for route in ("/livez", "/readyz")] == [200, 503]


@pytest.mark.parametrize(
    ("policy", "key", "seen"), [("never", "k", False), ("authorized", "k", True), ("authorized", "x", False)]
)
@pytest.mark.parametrize("mount", ["urls", "middleware", "async"])
def test_details_are_for_those_who_may_see_them(policy, key, seen, mount):
    """The authoriser gets Django's request, by every mount."""
    health = Health(details=policy)
    health.add("db", lambda: Result.ok(depth=3))

    def authorize(request) -> bool:
        return request.headers.get("X-Key") == "k"

    if mount == "urls":
        with urls(*health_urls(health, authorize=authorize)):
            body = Client(headers={"host": "shop.example", "x-key": key}).get("/health").json()
    else:
        options = {"HEALTH": health, "AUTHORIZE": authorize}
        with override_settings(MIDDLEWARE=[HEALTH], RESILIENT=options):
            if mount == "async":
                body = asyncio.run(AsyncClient().get("/health", headers={"x-key": key})).json()
            else:
                body = Client(headers={"x-key": key}).get("/health").json()
    assert ("checks" in body) is seen


# ------------------------------------------------------------------------------------------------------ middleware


@pytest.mark.parametrize("route", ["/livez", "/readyz", "/startupz", "/health"])
def test_a_probe_by_address_is_answered_before_all_else(route):
    """Not refused for its host, not redirected to https, not seen by anything further in."""
    strict = override_settings(
        MIDDLEWARE=[HEALTH, SECURITY, COMMON],
        SECURE_SSL_REDIRECT=True,
        RESILIENT={"HEALTH": Health()},
    )
    with strict, urls():
        assert Client(headers={"host": "10.0.0.7"}).get(route).status_code == 200
        assert Client(headers={"host": "shop.example"}).get("/token").status_code == 301
        assert Client(headers={"host": "10.0.0.7"}).get("/token").status_code == 400
        assert asyncio.run(AsyncClient().get(route)).status_code == 200
        assert asyncio.run(AsyncClient().get("/token")).status_code == 400  # its host is "testserver"


def test_by_url_alone_the_same_probe_is_refused():
    """Which is why the middleware is there."""
    with override_settings(MIDDLEWARE=[COMMON]), urls(*health_urls(Health())):
        assert Client(headers={"host": "10.0.0.7"}).get("/readyz").status_code == 400


def test_the_middleware_answers_probes_only_with_get_and_head():
    """And passes everything else on."""
    with override_settings(MIDDLEWARE=[HEALTH], RESILIENT={"HEALTH": Health()}), urls(*PATTERNS):
        client = Client(headers={"host": "shop.example"})
        assert client.post("/readyz").status_code == 405
        assert asyncio.run(AsyncClient().post("/readyz")).status_code == 405
        assert client.get("/readyz/").status_code == 404
        assert client.get("/write").content == b"written"


def test_an_async_probe_of_a_hung_check_leaves_the_loop_free():
    """Another request is served while it waits."""
    gate, health = threading.Event(), Health()
    health.add("hung", lambda: gate.wait(10) and None)

    async def story() -> list[str]:
        order: list[str] = []

        async def probe() -> None:
            response = await AsyncClient().get("/readyz")
            order.append(f"probe {response.status_code}")

        async def other() -> None:
            await asyncio.sleep(0.01)
            await AsyncClient().get("/awrite", headers={"host": "shop.example"})
            order.append("other")

        await asyncio.gather(probe(), other())
        return order

    with override_settings(MIDDLEWARE=[HEALTH, SCOPE], RESILIENT={"HEALTH": health}), urls(*PATTERNS):
        try:
            assert asyncio.run(story()) == ["other", "probe 503"]
        finally:
            gate.set()


def test_without_health_the_middleware_is_left_out():
    """Django is told that it is not used; the system check says why."""
    with override_settings(MIDDLEWARE=[HEALTH], RESILIENT={}), urls(*PATTERNS):
        assert Client(headers={"host": "shop.example"}).get("/readyz").status_code == 404


# ----------------------------------------------------------------------------------------------------------- scope


def test_a_browser_brings_its_token_back():
    """What one request wrote, the next one of the same user knows, and a stranger does not."""
    with override_settings(MIDDLEWARE=[SCOPE]), urls(*PATTERNS):
        user, stranger = Client(headers={"host": "shop.example"}), Client(headers={"host": "shop.example"})
        response = user.get("/write")
        assert response["Resilient-Token"] == TOKEN
        cookie = response.cookies["resilient_token"]
        assert (cookie.value, cookie["httponly"], cookie["samesite"], cookie["secure"]) == (TOKEN, True, "Lax", "")
        again = user.get("/token")
        assert again.content.decode() == TOKEN
        assert "resilient_token" not in again.cookies
        assert stranger.get("/token").content == b""
        assert user.get("/write", secure=True).cookies == {}  # it knew that already
        sent = stranger.get("/write", secure=True).cookies["resilient_token"]
        assert sent.OutputString() == f"resilient_token={TOKEN}; HttpOnly; Path=/; SameSite=Lax; Secure"


def test_under_asgi_threads_and_tasks_write_into_the_same_scope():
    """Through sync_to_async, in a child task too."""
    with override_settings(MIDDLEWARE=[SCOPE]), urls(*PATTERNS):
        response = asyncio.run(AsyncClient().get("/awrite", headers={"host": "shop.example"}))
        both = "1!app:t1700000000.000000!other:t1700000000.000000"
        assert response.content.decode() == both
        assert response["Resilient-Token"] == both
        sync = asyncio.run(AsyncClient().get("/write", headers={"host": "shop.example"}))
        assert sync["Resilient-Token"] == TOKEN


def test_what_is_malformed_is_ignored():
    """It came from outside."""
    with override_settings(MIDDLEWARE=[SCOPE]), urls(*PATTERNS):
        client = Client(headers={"host": "shop.example", "resilient-token": "2!nonsense"})
        client.cookies["resilient_token"] = "nonsense"
        assert client.get("/token").content == b""


def test_concurrent_requests_have_scopes_of_their_own():
    """Both inside a view at the same time; afterwards none is left."""
    together = threading.Barrier(2)

    def both(request, name):
        write(name)
        together.wait(5)
        return telling(request)

    def get(name: str) -> str:
        return Client(headers={"host": "shop.example"}).get(f"/both/{name}").content.decode()

    with override_settings(MIDDLEWARE=[SCOPE]), urls(path("both/<name>", both)), ThreadPoolExecutor(2) as threads:
        assert list(threads.map(get, "ab")) == ["1!a:t1700000000.000000", "1!b:t1700000000.000000"]
        assert list(threads.map(lambda _: causality.running(), "ab")) == [None, None]


def test_the_scope_of_a_replica_set_is_opened():
    """RESILIENT["REPLICAS"] opens it."""
    seen: list[str] = []

    class Replicas:
        def scope(self, token=None):
            seen.append(str(token))
            return causality.scope(token)

    with override_settings(MIDDLEWARE=[SCOPE], RESILIENT={"REPLICAS": Replicas()}), urls(*PATTERNS):
        Client(headers={"host": "shop.example", "resilient-token": TOKEN}).get("/token")
    assert seen == [TOKEN]


def test_a_request_is_bounded():
    """RESILIENT["DEADLINE"] is what the calls of one request have, in both faces."""
    with override_settings(MIDDLEWARE=[SCOPE], RESILIENT={"DEADLINE": 5.0}), urls(*PATTERNS):
        host = {"host": "shop.example"}
        for response in (
            Client(headers=host).get("/left"),
            asyncio.run(AsyncClient().get("/left", headers=host)),
        ):
            assert 4.0 < float(response.content) <= 5.0
    assert deadline.remaining() is None


# ---------------------------------------------------------------------------------------------------------- errors


def failing(error):
    def view(request):
        raise error

    return view


def afailing(error):
    async def view(request):
        raise error

    return view


@pytest.mark.parametrize(
    ("error", "status", "word", "retry_after"),
    [
        (Unavailable("down"), 503, "unavailable", "1"),
        (CircuitOpen("open", retry_after=4.2), 503, "unavailable", "5"),
        (DeadlineExceeded("late"), 504, "deadline_exceeded", None),
        (NotFound("none"), 404, "not_found", None),
        (Conflict("there"), 409, "conflict", None),
        (Refused("no"), 403, "refused", None),
        (InvalidInput("wrong"), 400, "invalid_input", None),
    ],
)
def test_errors_become_responses(error, status, word, retry_after):
    """In sync and async views alike, with one word; the error's own text stays here."""
    routes = urls(path("sync", failing(error)), path("async", afailing(error)))
    with override_settings(MIDDLEWARE=[SCOPE]), routes:
        host = {"host": "shop.example"}
        for response in (
            Client(headers=host).get("/sync"),
            Client(headers=host).get("/async"),
            asyncio.run(AsyncClient().get("/sync", headers=host)),
            asyncio.run(AsyncClient().get("/async", headers=host)),
        ):
            assert (response.status_code, response.json()) == (status, {"error": word})
            assert response.content == http_error(error).answer().body
            assert response.headers.get("Retry-After") == retry_after


@pytest.mark.parametrize(
    ("error", "options"),
    [(OutcomeUnknown("?"), {}), (KeyError("k"), {}), (Unavailable("down"), {"MAP_ERRORS": False})],
)
def test_other_errors_stay_those_of_django(error, options):
    """What has no status of its own is a 500, and so is everything where the application wants that."""
    with override_settings(MIDDLEWARE=[SCOPE], RESILIENT=options), urls(path("fail", failing(error))):
        client = Client(headers={"host": "shop.example"})
        with pytest.raises(type(error)):
            client.get("/fail")


# ---------------------------------------------------------------------------------------------------------- checks


MODULE_HEALTH = Health()


@pytest.mark.parametrize("named", [f"{__name__}:MODULE_HEALTH", f"{__name__}.MODULE_HEALTH"])
def test_objects_may_be_named(named, monkeypatch):
    """As module:attr, or dotted as Django's own settings are."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(MODULE_HEALTH=MODULE_HEALTH))
    with override_settings(MIDDLEWARE=[HEALTH], RESILIENT={"HEALTH": named}):
        assert Client().get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "options",
    [
        {"HELTH": Health()},
        {"HEALTH": "nowhere:health"},
        {"HEALTH": "health"},
        {"HEALTH": "resilient.health:nothing"},
        {"HEALTH": 42},
        {"AUTHORIZE": "resilient:__version__"},
        {"REPLICAS": 42},
        {"DEADLINE": -1},
        {"DEADLINE": 0},
        {"MAP_ERRORS": "no"},
        [],
    ],
)
def test_wrong_settings_are_found_by_manage_py_check(options):
    """As an error with an id, and by the middleware itself."""
    with override_settings(MIDDLEWARE=[SCOPE], RESILIENT=options):
        found = [each.id for each in django_checks.run_checks() if str(each.id).startswith("resilient.")]
        assert found == ["resilient.E001"]
        with pytest.raises(ConfigurationError):
            Client().get("/token")


@pytest.mark.parametrize(
    ("middleware", "options", "ids"),
    [
        ([], {}, []),
        ([HEALTH, SECURITY], {"HEALTH": MODULE_HEALTH}, []),
        ([SECURITY, HEALTH], {"HEALTH": MODULE_HEALTH}, ["resilient.W001"]),
        ([HEALTH], {}, ["resilient.E002"]),
    ],
)
def test_the_place_of_the_middleware_is_checked(middleware, options, ids):
    """It must be first, and have something to report."""
    with override_settings(MIDDLEWARE=middleware, RESILIENT=options):
        assert [each.id for each in django_checks.run_checks() if str(each.id).startswith("resilient.")] == ids
