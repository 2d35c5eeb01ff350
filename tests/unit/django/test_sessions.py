"""The session engine and its middleware in the hands of Django's own test clients, sync and async."""

from __future__ import annotations

import asyncio
import io

import pytest
from django.core import checks
from django.http import FileResponse, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from resilient.django import sessions
from resilient.django.sessions import SessionStore, log_out_everywhere
from resilient.web._sessions import _key

OURS = "resilient.django.middleware.SessionMiddleware"
THEIRS = "django.contrib.sessions.middleware.SessionMiddleware"
USER = "_auth_user_id"


def login(request, user):
    request.session.cycle_key()
    request.session[USER] = user
    return HttpResponse("in")


def mine(request):
    user = request.session.get(USER)
    return HttpResponse(user, status=200 if user else 401)


async def amine(request):
    from asgiref.sync import sync_to_async

    return await sync_to_async(mine)(request)


def cart(request, item):
    request.session["cart"] = [*request.session.get("cart", []), item]
    return HttpResponse(str(request.session["cart"]))


def logout(request):
    request.session.flush()
    return HttpResponse("out")


def ended(request):
    request.session["a"] = 1
    log_out_everywhere(request.session[USER])
    return HttpResponse("done")


handed_out = []


def download(request):
    request.session["a"] = 1
    sessions.keeper().store.away = True
    handed_out.append(io.BytesIO(b"a file"))
    return FileResponse(handed_out[-1])


def public(_request):
    return HttpResponse("welcome")


urlpatterns = [
    path("login/<str:user>", login),
    path("mine", mine),
    path("amine", amine),
    path("cart/<int:item>", cart),
    path("logout", logout),
    path("ended", ended),
    path("public", public),
    path("download", download),
]


class Guard:
    """A middleware that asks for the user before the view does, as many do."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_view(self, request, view, args, kwargs):
        request.session.get(USER)


@pytest.fixture(autouse=True)
def site():
    with override_settings(
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=[OURS],
        RESILIENT={"SESSIONS": {"LOCATION": None}},
        ROOT_URLCONF=__name__,
        SESSION_ENGINE="resilient.django.sessions",
    ):
        yield


@pytest.fixture
def store():
    return sessions.keeper().store


def test_a_login_renews_the_key_and_lasts():
    """The key before it is worth nothing after it; what the session held stays."""
    browser, thief = Client(), Client()
    browser.get("/cart/1")
    before = browser.cookies["sessionid"].value
    browser.get("/login/17")
    assert browser.cookies["sessionid"].value != before
    assert browser.get("/mine").content == b"17"
    assert browser.get("/cart/2").content == b"[1, 2]"
    thief.cookies["sessionid"] = before
    assert thief.get("/mine").status_code == 401


def test_async_views_see_the_same_session():
    """Through Django's async handler and its async client."""

    async def visit():
        browser = AsyncClient()
        await browser.get("/login/17")
        return (await browser.get("/amine")).content

    assert asyncio.run(visit()) == b"17"


@pytest.mark.parametrize("guard", [False, True])
def test_a_store_that_is_away_is_a_503_whoever_asks(store, guard):
    """A view, a middleware before it, or the saving after it; other pages are served."""
    with override_settings(MIDDLEWARE=[OURS, f"{__name__}.Guard"] if guard else [OURS]):
        browser, stranger = Client(raise_request_exception=False), Client(raise_request_exception=False)
        browser.get("/login/17")
        store.away = True
        for answer in (browser.get("/mine"), browser.get("/login/18"), browser.get("/logout"), browser.get("/cart/1")):
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
            assert not answer.cookies
        assert stranger.get("/login/19").status_code == 503
        assert (browser.get("/public").status_code == 200) is not guard
        store.away = False
        assert browser.get("/mine").content == b"17"
        assert stranger.get("/mine").status_code == 401


def test_what_a_503_takes_the_place_of_is_closed():
    """The file that a view had answered with: the server closes only what it sends."""
    answer = Client().get("/download")
    assert answer.status_code == 503
    assert answer.content == b'{"error":"unavailable"}'
    assert [each.closed for each in handed_out] == [True]
    handed_out.clear()


def test_log_out_everywhere_ends_a_users_sessions():
    """All, or all but one; and of that user alone."""
    browsers = [Client() for _ in range(3)]
    stranger = Client()
    for each in browsers:
        each.get("/login/17")
    stranger.get("/login/18")
    assert log_out_everywhere(17, keep=browsers[0].cookies["sessionid"].value) == 2
    assert [each.get("/mine").status_code for each in (*browsers, stranger)] == [200, 401, 401, 200]


def test_a_session_ended_during_a_request_is_not_brought_back():
    """Django's own answer to that: the request is refused."""
    browser = Client()
    browser.get("/login/17")
    assert browser.get("/ended").status_code == 400
    assert browser.get("/mine").status_code == 401


def test_concurrent_writes_to_different_keys_are_both_kept():
    """Each writes what it has changed; Django's own engines keep the later one's."""
    made = SessionStore()
    made["a"] = made["b"] = 1
    made.save()
    one, other = SessionStore(made.session_key), SessionStore(made.session_key)
    one["a"], other["b"] = 2, 2
    one.save()
    other.save()
    assert dict(SessionStore(made.session_key).items()) == {"a": 2, "b": 2}


@override_settings(SESSION_COOKIE_AGE=1000)
def test_a_life_that_does_not_slide_is_not_made_longer_by_writing():
    """The cookie is told what is left; with ``set_expiry`` it begins anew."""
    made = SessionStore()
    made["a"] = 1
    made.save()
    read = SessionStore(made.session_key)
    assert read["a"] == 1
    read._found.left = 10.0
    assert read.get_expiry_age() == 10
    read["a"] = 2
    read.save()
    read.set_expiry(5000)
    read.save()
    assert read.get_expiry_age() == 5000
    again = SessionStore(read.session_key)
    again.load()
    assert 4990 < again._found.left <= 5000


@override_settings(SESSION_SAVE_EVERY_REQUEST=True, SESSION_COOKIE_AGE=1000)
def test_a_sliding_life_begins_anew_with_each_use():
    """For so long as the session itself was told, where it was."""
    made = SessionStore()
    made["a"] = 1
    made.set_expiry(5000)
    made.save()
    read = SessionStore(made.session_key)
    assert read["a"] == 1
    assert sessions.keeper().sliding
    assert read._found.left == 5000


@override_settings(SESSION_COOKIE_AGE=1000)
@pytest.mark.parametrize("slides", [False, True])
def test_a_life_that_was_set_before_a_login_counts_after_it(slides):
    """On the server too, where the login gives a session that was there already a new key."""
    with override_settings(SESSION_SAVE_EVERY_REQUEST=slides):
        made = SessionStore()
        made["a"] = 1
        made.save()
        read = SessionStore(made.session_key)
        assert read["a"] == 1
        read.set_expiry(300)
        read.cycle_key()
        assert left(read) <= 300
        read[USER] = "17"
        read.save()
        assert left(read) <= 300
        read.cycle_key()
        assert left(read) <= 300


def left(session):
    """Seconds for which the server keeps a session that nobody asks for."""
    found = sessions.keeper().store.load(_key(session.session_key), None)
    assert found is not None
    return found.left


class Shouting:
    """A serializer of one's own."""

    def dumps(self, value):
        return repr(value).upper().encode()

    def loads(self, raw):
        import ast

        return ast.literal_eval(raw.decode().lower())


@override_settings(SESSION_SERIALIZER=f"{__name__}.Shouting")
def test_a_serializer_of_ones_own_is_used():
    """What it writes is signed as everything is."""
    made = SessionStore()
    made["a"] = "Words"
    made.save()
    assert SessionStore(made.session_key)["a"] == "words"


def ids(found):
    return sorted(each.id for each in found)


def test_checks_tell_of_sessions_that_would_not_do():
    """Each with the id that SILENCED_SYSTEM_CHECKS takes."""
    assert ids(checks.run_checks()) == ["resilient.W002"]  # in one process only
    with override_settings(DEBUG=True):
        assert not checks.run_checks()
    with override_settings(MIDDLEWARE=[THEIRS], DEBUG=True):
        assert ids(checks.run_checks()) == ["resilient.W003"]
    with override_settings(RESILIENT={"SESSIONS": {"SLIDING": True}}, DEBUG=True):
        assert ids(checks.run_checks()) == ["resilient.W004"]
    for wrong in ({"LOCATIN": ""}, {"LOCATION": "here"}, {"NAMESPACE": "a:b"}, {"SLIDING": 1}, []):
        with override_settings(RESILIENT={"SESSIONS": wrong}):
            assert ids(checks.run_checks()) == ["resilient.E004"]
    with override_settings(SECRET_KEY="short"):
        assert "resilient.E004" in ids(checks.run_checks())


def test_sessions_are_where_their_cache_is():
    """Without an address of their own, where SESSION_CACHE_ALIAS names a cache of ours on a server."""
    from resilient.django._settings import session_options

    ours = {"BACKEND": "resilient.django.cache.Cache", "LOCATION": ["redis://127.0.0.1:1/0"]}
    with override_settings(RESILIENT={}, CACHES={"default": ours}):
        assert session_options().location == "redis://127.0.0.1:1/0"
    with override_settings(RESILIENT={}, CACHES={"default": {**ours, "LOCATION": "here"}}):
        assert session_options().location is None
