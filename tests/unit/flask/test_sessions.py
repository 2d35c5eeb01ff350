"""Sessions on the server in the hands of Flask's own test client."""

from __future__ import annotations

import datetime as dt

import pytest
from flask import Flask, Response, session

from resilient.errors import ConfigurationError, InvalidInput
from resilient.flask import Resilient, Sessions
from resilient.testing import FakeClock
from resilient.web._session_stores import MemorySessions

KEY = "a secret for tests"


def make(store=None, *, extension=True, **options):
    """An application with a login, a page for users only, and one that needs no session."""
    app = Flask("shop")
    app.secret_key = KEY
    sessions = Sessions(store, **options)
    if extension:
        Resilient(app, sessions=sessions)
    else:
        app.session_interface = sessions

    @app.post("/login/<int:user>")
    def login(user):
        session["user_id"] = user
        return "in"

    @app.post("/logout")
    def logout():
        session.clear()
        return "out"

    @app.get("/mine")
    def mine():
        return (str(session["user_id"]), 200) if "user_id" in session else ("who are you?", 401)

    @app.post("/cart/<int:item>")
    def cart(item):
        session.setdefault("cart", []).append(item)
        return str(session["cart"])

    @app.post("/renew")
    def renew():
        session.rotate()
        return "renewed"

    @app.post("/everywhere")
    def everywhere():
        return str(sessions.log_out_everywhere(session["user_id"], keep_this=True))

    @app.get("/public")
    def public():
        return "welcome"

    return app


def cookie(browser):
    found = browser.get_cookie("session")
    return None if found is None else found.value


@pytest.fixture
def store():
    return MemorySessions()


def test_a_login_lasts_and_a_logout_ends_it(store):
    """On the server too: the old cookie is worth nothing then."""
    app = make(store)
    browser, thief = app.test_client(), app.test_client()
    assert browser.get("/mine").status_code == 401
    browser.post("/login/17")
    assert browser.get("/mine").text == "17"
    thief.set_cookie("session", cookie(browser))
    assert thief.get("/mine").text == "17"
    browser.post("/logout")
    assert cookie(browser) is None
    assert thief.get("/mine").status_code == 401


def test_two_applications_with_one_store_are_one_site(store):
    """Log in at one, and be known at the other."""
    browser, other = make(store).test_client(), make(store).test_client()
    browser.post("/login/17")
    other.set_cookie("session", cookie(browser))
    assert other.get("/mine").text == "17"


def test_the_id_changes_at_the_login_and_when_it_is_asked_for(store):
    """What it holds stays."""
    browser = make(store).test_client()
    browser.post("/cart/1")
    seen = [cookie(browser)]
    for path in ("/login/17", "/renew", "/login/18"):
        browser.post(path)
        seen.append(cookie(browser))
    assert len(set(seen)) == 4
    assert browser.post("/cart/2").text == "[1, 2]"
    stale = make(store).test_client()
    for each in seen[:-1]:
        stale.set_cookie("session", each)
        assert stale.get("/mine").status_code == 401


def test_a_change_within_a_value_is_kept_and_an_unchanged_session_sends_no_cookie(store):
    """Without a word of ``session.modified``."""
    browser = make(store).test_client()
    assert "Set-Cookie" in browser.post("/cart/1").headers
    answer = browser.post("/cart/2")
    assert answer.text == "[1, 2]"
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Vary"] == "Cookie"
    assert browser.post("/cart/3").text == "[1, 2, 3]"


def test_log_out_everywhere_but_here(store):
    """The other browsers of the user, and no others."""
    app = make(store)
    browsers = [app.test_client() for _ in range(3)]
    stranger = app.test_client()
    stranger.post("/login/18")
    for each in browsers:
        each.post("/login/17")
    assert browsers[0].post("/everywhere").text == "2"
    assert [each.get("/mine").status_code for each in (*browsers, stranger)] == [200, 401, 401, 200]


@pytest.mark.parametrize("extension", [True, False])
def test_a_store_that_is_away_is_a_503_and_never_a_login_page(store, extension):
    """Neither "logged in" nor "who are you?"; pages that do not ask for the session are served."""
    app = make(store, extension=extension)
    browser, stranger = app.test_client(), app.test_client()
    browser.post("/login/17")
    store.away = True
    for answer in (browser.get("/mine"), browser.post("/login/18"), browser.post("/logout")):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert "Set-Cookie" not in answer.headers
    assert stranger.post("/login/19").status_code == 503
    assert browser.get("/public").text == "welcome"
    store.away = False
    assert browser.get("/mine").text == "17"
    assert stranger.get("/mine").status_code == 401


def test_what_a_503_takes_the_place_of_is_closed(store):
    """A file, or what a query streams: the server closes only what it sends."""
    app, closed = make(store), []

    class Rows:
        def __iter__(self):
            yield "row"

        def close(self):
            closed.append(True)

    @app.get("/rows")
    def rows():
        session["a"] = 1
        store.away = True
        return Response(Rows())

    answer = app.test_client().get("/rows")
    assert answer.status_code == 503
    assert answer.text == '{"error":"unavailable"}'
    assert closed == [True]


def test_a_session_ended_during_a_request_is_not_brought_back(store):
    """What the request has changed is dropped, and its cookie is worth nothing."""
    app = make(store)

    @app.post("/slow")
    def slow():
        session["a"] = 1
        app.session_interface.keeper(app).log_out_everywhere(17)
        return "done"

    browser = app.test_client()
    browser.post("/login/17")
    answer = browser.post("/slow")
    assert answer.text == "done"
    assert "Set-Cookie" not in answer.headers
    assert browser.get("/mine").status_code == 401


@pytest.mark.parametrize("change", [False, True])
def test_a_request_beside_a_login_does_not_take_its_cookie_away(store, change):
    """The one that is answered last was sent with the id before the login: it was at work, or came too late."""
    app = make(store)

    @app.post("/beside")
    def beside():
        if change:
            session["seen"] = True
        browser.post("/login/17")
        return str("user_id" in session)

    browser = app.test_client()
    browser.post("/cart/1")
    before = cookie(browser)
    late = app.test_client()
    late.set_cookie("session", before)
    answers = [late.post("/beside"), late.get("/mine"), late.post("/logout")]
    assert [answer.text for answer in answers] == ["False", "who are you?", "out"]
    assert not any("Set-Cookie" in answer.headers for answer in answers)
    assert browser.get("/mine").text == "17"


def test_a_fixed_life_ends_in_use_and_a_sliding_one_after_it():
    """A day after the login, or a day after the last page."""
    for slides, expected in ((False, 401), (True, 200)):
        clock = FakeClock()
        browser = make(MemorySessions(clock=clock), life=86_400, sliding=slides, clock=clock).test_client()
        browser.post("/login/17")
        for _ in range(23):
            clock.advance(3600)
            assert browser.get("/mine").status_code == 200
        clock.advance(3600)
        assert browser.get("/mine").status_code == expected


def test_the_cookie_is_as_the_application_says():
    """Its name, its path, who sees it; for a permanent session with an end, which moves where it slides."""
    app = make(sliding=True)
    app.config.update(SESSION_COOKIE_NAME="sid", SESSION_COOKIE_SAMESITE="Lax", SESSION_COOKIE_SECURE=True)

    @app.post("/stay")
    def stay():
        session.permanent = True
        return "here"

    browser = app.test_client()
    said = browser.post("/stay", base_url="https://shop.example").headers["Set-Cookie"]
    assert said.startswith("sid=")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(said.split("; "))
    assert "Expires=" in said
    assert "Expires=" in browser.get("/mine", base_url="https://shop.example").headers["Set-Cookie"]


def test_a_session_that_becomes_permanent_gives_its_cookie_an_end():
    """Also where it was begun by another page, and its id stays; once is enough."""
    app = make()

    @app.post("/stay/<int:stays>")
    def stay(stays):
        session.permanent = bool(stays)
        return "here"

    browser = app.test_client()
    assert "Expires=" not in browser.post("/cart/1").headers["Set-Cookie"]
    before = cookie(browser)
    assert "Expires=" in browser.post("/stay/1").headers["Set-Cookie"]
    assert cookie(browser) == before
    assert "Set-Cookie" not in browser.post("/stay/1").headers
    assert "Expires=" not in browser.post("/stay/0").headers["Set-Cookie"]


def test_an_application_without_a_secret_is_told_so():
    """At the first request, since the secret may be set after the extension."""
    app = make()
    app.secret_key = None
    app.testing = True
    with pytest.raises(ConfigurationError, match="SECRET_KEY"):
        app.test_client().get("/mine")


@pytest.mark.parametrize("wrong", [{"life": 0}, {"life": "1h"}, {"timeout": 0}, {"connect_timeout": "x"}])
def test_wrong_times_are_refused_where_they_are_written(wrong):
    """And not at the first request."""
    with pytest.raises(ConfigurationError, match=r"is a positive number of seconds, not"):
        Sessions(**wrong)


def test_a_life_may_be_said_as_flask_says_it():
    """By a timedelta."""
    app = Flask("shop")
    app.secret_key = "a secret for tests"
    assert Sessions(life=dt.timedelta(days=1)).keeper(app).life == 86_400


def test_a_field_that_cannot_be_kept_is_named(store):
    """With what to keep instead."""
    app = make(store)
    app.testing = True

    @app.get("/object")
    def keep():
        session["user"] = object()
        return "kept"

    with pytest.raises(InvalidInput, match=r"the session's field 'user' .*; keep plain values"):
        app.test_client().get("/object")


def test_what_are_no_sessions_is_refused():
    """An address instead of the object that is made with it."""
    with pytest.raises(ConfigurationError, match="sessions="):
        Resilient(Flask("shop"), sessions="redis://127.0.0.1:6379/0")
