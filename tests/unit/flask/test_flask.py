"""The extension in the hands of Flask's own test client and command runner."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask, abort

from resilient import causality, errors
from resilient.cache import Cache
from resilient.causality import Instant
from resilient.errors import ConfigurationError, Unavailable
from resilient.flask import Resilient, health_blueprint, uploads_blueprint
from resilient.health import Health, Result
from resilient.policy import deadline
from resilient.storage.objects import Bucket, UploadPolicy
from resilient.testing.s3 import FakeS3
from resilient.web import carry, http_error


def raising(error: BaseException):
    def view():
        raise error

    return view


# ------------------------------------------------------------------------------------------------------- extension


def test_one_extension_serves_several_applications():
    """Each has its own settings and parts; the extension itself holds no application."""
    extension = Resilient()
    apps = [Flask("a"), Flask("b")]
    apps[0].config["RESILIENT_DEADLINE"] = 2.0
    caches = [Cache(ttl=1), Cache(ttl=1)]
    for app, cache in zip(apps, caches, strict=True):
        extension.init_app(app, cache=cache)
    for app, cache, limit in zip(apps, caches, [2.0, None], strict=True):
        with app.app_context():
            assert (extension.cache, extension.state.settings.deadline) == (cache, limit)
            assert extension.health is None
            assert extension.replicas is None


def test_an_application_is_set_up_once():
    """A second time would open two scopes for each request."""
    app = Flask("a")
    extension = Resilient(app)
    with pytest.raises(ConfigurationError, match="already"):
        extension.init_app(app)


def test_an_application_that_was_not_set_up_says_so():
    """The error names the call that is missing."""
    with Flask("a").app_context(), pytest.raises(ConfigurationError, match="init_app"):
        _ = Resilient().cache


@pytest.mark.parametrize(
    ("key", "value"),
    [("RESILIENT_DEADLIN", 1), ("RESILIENT_DEADLINE", -1), ("RESILIENT_DEADLINE", 0), ("RESILIENT_MAP_ERRORS", "no")],
)
def test_wrong_configuration_is_found_at_once(key, value):
    """An unknown key is a typing mistake."""
    app = Flask("a")
    app.config[key] = value
    with pytest.raises(ConfigurationError):
        Resilient(app)


def test_configuration_is_read_once():
    """A later change of it has no effect."""
    app = Flask("a")
    app.config["RESILIENT_DEADLINE"] = 2.0
    Resilient(app)
    app.config["RESILIENT_DEADLINE"] = 9.0
    assert app.extensions["resilient"].settings.deadline == 2.0


# ----------------------------------------------------------------------------------------------------------- scope


@pytest.fixture
def app():
    made = Flask("shop")
    made.config["RESILIENT_DEADLINE"] = 5.0
    Resilient(made)

    @made.post("/write")
    def write():
        causality.current().observe("app", Instant(1_700_000_000.0))
        return "written"

    @made.get("/token")
    def token():
        return str(causality.current().token)

    @made.get("/left")
    def left():
        return {"left": deadline.remaining()}

    return made


def test_a_browser_brings_its_token_back(app):
    """What one request wrote, the next one of the same user knows, and a stranger does not."""
    user, stranger = app.test_client(), app.test_client()
    assert user.post("/write").status_code == 200
    assert user.get("/token").text == "1!app:t1700000000.000000"
    assert stranger.get("/token").text == ""


def test_a_request_is_bounded(app):
    """RESILIENT_DEADLINE is what the calls of one request have."""
    assert 4.0 < app.test_client().get("/left").json["left"] <= 5.0
    assert deadline.remaining() is None


def test_concurrent_requests_have_scopes_of_their_own(app):
    """Under a threaded server, with both inside a view at the same time."""
    together = threading.Barrier(2)

    @app.get("/both/<name>")
    def both(name: str):
        causality.current().observe(name, Instant(1_700_000_000.0))
        together.wait(5)
        return str(causality.current().token)

    with ThreadPoolExecutor(2) as threads:
        texts = list(threads.map(lambda name: app.test_client().get(f"/both/{name}").text, "ab"))
    assert texts == ["1!a:t1700000000.000000", "1!b:t1700000000.000000"]


def test_worker_threads_of_a_request_write_into_its_scope(app):
    """What a thread learns is in the request's token."""

    @app.get("/threads")
    def threads():
        def work(name: str) -> None:
            causality.current().observe(name, Instant(1_700_000_000.0))

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(carry(work), ["a", "b"]))
        return "done"

    response = app.test_client().get("/threads")
    assert response.headers["Resilient-Token"] == "1!a:t1700000000.000000!b:t1700000000.000000"


def test_the_scope_lasts_through_a_streamed_body(app):
    """The body is made after the view has returned."""

    @app.get("/stream")
    def stream():
        return (str(causality.current().token) for _ in range(2))

    token = "1!app:t1700000000.000000"
    assert app.test_client().get("/stream", headers={"Resilient-Token": token}).text == token * 2


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (errors.Unavailable("db.internal"), 503, "unavailable"),
        (errors.CircuitOpen("db.internal"), 503, "unavailable"),
        (errors.DeadlineExceeded("db.internal"), 504, "deadline_exceeded"),
        (errors.NotFound("db.internal"), 404, "not_found"),
        (errors.Conflict("db.internal"), 409, "conflict"),
        (errors.Refused("db.internal"), 403, "refused"),
        (errors.InvalidInput("db.internal"), 400, "invalid_input"),
    ],
)
def test_errors_become_statuses(app, error, status, word):
    """One word in the body; the text of the error stays here."""
    app.add_url_rule("/raise", view_func=raising(error))
    response = app.test_client().get("/raise")
    assert (response.status_code, response.json) == (status, {"error": word})
    found = http_error(error)
    assert found is not None
    assert (response.data, list(response.headers)) == (found.answer().body, found.answer().headers)


def test_503_says_when_to_come_back(app):
    """Retry-After, in whole seconds."""
    app.add_url_rule("/raise", view_func=raising(errors.Overloaded("x", retry_after=2.5)))
    assert app.test_client().get("/raise").headers["Retry-After"] == "3"


@pytest.mark.parametrize("error", [errors.OutcomeUnknown("x"), errors.ConfigurationError("x"), KeyError("x")])
def test_what_has_no_status_stays_a_plain_500(app, error):
    """It is an error of the program, or one that must be looked at."""
    app.add_url_rule("/raise", view_func=raising(error))
    assert app.test_client().get("/raise").status_code == 500


def test_mapping_can_be_left_out():
    """RESILIENT_MAP_ERRORS = False."""
    app = Flask("a")
    app.config["RESILIENT_MAP_ERRORS"] = False
    Resilient(app)
    app.add_url_rule("/raise", view_func=raising(Unavailable("x")))
    assert app.test_client().get("/raise").status_code == 500


@pytest.mark.parametrize("before", [True, False])
def test_a_handler_of_the_application_wins(before):
    """Whether it was registered before the extension or after."""
    app = Flask("a")
    steps = [
        lambda: app.register_error_handler(Unavailable, lambda error: ("our own page", 503)),
        lambda: Resilient(app),
    ]
    for step in steps if before else reversed(steps):
        step()
    app.add_url_rule("/raise", view_func=raising(Unavailable("x")))
    assert app.test_client().get("/raise").text == "our own page"


def test_http_errors_of_the_application_are_its_own(app):
    """abort() works as before."""
    app.add_url_rule("/teapot", view_func=lambda: abort(418))
    assert app.test_client().get("/teapot").status_code == 418


# ---------------------------------------------------------------------------------------------------------- health


def test_the_health_routes():
    """One word, JSON on /health, 503 for a failing instance, HEAD, and nothing that may be kept."""
    app, health = Flask("shop"), Health()
    app.register_blueprint(health_blueprint(health))
    client = app.test_client()
    for path in ("/livez", "/readyz", "/startupz"):
        response = client.get(path)
        assert (response.status_code, response.text) == (200, "pass\n")
        assert response.headers["Cache-Control"] == "no-store"
        assert response.mimetype == "text/plain"
    assert client.get("/health").mimetype == "application/health+json"
    assert client.get("/health").text == '{"status":"pass"}'
    assert client.head("/readyz").status_code == 200
    assert client.post("/readyz").status_code == 405
    health.drain()
    assert [client.get(path).status_code for path in ("/livez", "/readyz", "/health")] == [200, 503, 503]


@pytest.mark.parametrize(
    ("policy", "key", "seen"), [("never", "k", False), ("authorized", "k", True), ("authorized", "x", False)]
)
def test_details_are_for_those_who_may_see_them(policy, key, seen):
    """The authoriser gets Flask's request."""
    app, health = Flask("shop"), Health(details=policy)
    health.add("db", lambda: Result.ok(depth=3))
    app.register_blueprint(health_blueprint(health, authorize=lambda request: request.headers.get("X-Key") == "k"))
    assert ("checks" in app.test_client().get("/health", headers={"X-Key": key}).json) is seen


def test_two_registries_in_one_application():
    """Under prefixes and names of their own."""
    app, first, second = Flask("shop"), Health(), Health()
    second.drain()
    app.register_blueprint(health_blueprint(first), url_prefix="/a")
    app.register_blueprint(health_blueprint(second, name="second"), url_prefix="/b")
    client = app.test_client()
    assert [client.get(path).status_code for path in ("/a/readyz", "/b/readyz")] == [200, 503]


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 1)])
def test_the_command_tells_each_check(answer, code):
    """flask resilient health ends with 0 or 1."""
    app, health = Flask("shop"), Health()
    health.add("db", lambda: answer)
    Resilient(app, health=health)
    result = app.test_cli_runner().invoke(args=["resilient", "health"])
    assert result.exit_code == code
    assert "db" in result.output
    assert app.test_cli_runner().invoke(args=["resilient", "health", "--view", "live"]).exit_code == 0


def test_the_command_without_health_says_what_is_missing():
    """And ends with 2."""
    app = Flask("shop")
    Resilient(app)
    result = app.test_cli_runner().invoke(args=["resilient", "health"])
    assert result.exit_code == 2
    assert "health=" in result.output


# --------------------------------------------------------------------------------------------------------- uploads


POLICY = UploadPolicy(prefix="users/{owner}/", max_bytes=1000, content_types=["image/jpeg", "image/png"])


@pytest.fixture
def store():
    return FakeS3(buckets=["photos"])


@pytest.fixture
def uploads(store):
    """A function that makes a client whose requests are a user's."""

    def make(user: str | None, **options):
        app = Flask("shop")
        bucket = Bucket("photos", client=store, secrets=["32 random bytes, as it were"])
        app.register_blueprint(uploads_blueprint(bucket, POLICY, owner=lambda: user, **options))
        return app.test_client()

    return make


def test_an_upload_from_ticket_to_confirmation(uploads, store):
    """The browser gets a form, posts the file straight to the store and has it confirmed."""
    alice = uploads("alice")
    ticket = alice.post("/uploads", json={"filename": "a.jpg"})
    assert ticket.status_code == 201
    assert set(ticket.json) == {"url", "fields", "token", "expires_at", "key"}
    assert ticket.json["key"].startswith("users/alice/")
    assert alice.post("/uploads/confirm", json={"token": ticket.json["token"]}).status_code == 404
    assert store.post_form(ticket.json["url"], ticket.json["fields"], b"jpeg") < 300
    stored = alice.post("/uploads/confirm", json={"token": ticket.json["token"]})
    assert (stored.status_code, stored.json["size"], stored.json["content_type"]) == (200, 4, "image/jpeg")
    assert stored.json["key"] == ticket.json["key"]


def test_the_type_may_be_named(uploads):
    """Where the policy allows several; others are refused."""
    alice = uploads("alice")
    png = alice.post("/uploads", json={"filename": "a", "content_type": "image/png"})
    assert png.json["fields"]["Content-Type"] == "image/png"
    assert alice.post("/uploads", json={"filename": "a", "content_type": "text/html"}).status_code == 400


def test_nobody_gets_a_form_for_nothing(uploads):
    """Without a user 401, on both routes, as JSON like their other errors."""
    nobody = uploads(None)
    for route, body in (("/uploads", {"filename": "a.jpg"}), ("/uploads/confirm", {"token": "x"})):
        response = nobody.post(route, json=body)
        assert (response.status_code, response.json) == (401, {"error": "unauthorized"})


def test_one_users_token_is_refused_for_another(uploads, store):
    """Even where the upload is there."""
    ticket = uploads("alice").post("/uploads", json={"filename": "a.jpg"}).json
    store.post_form(ticket["url"], ticket["fields"], b"jpeg")
    response = uploads("bob").post("/uploads/confirm", json={"token": ticket["token"]})
    assert (response.status_code, response.json) == (403, {"error": "refused"})


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/uploads", {}),
        ("/uploads", {"filename": 3}),
        ("/uploads", {"filename": "a.jpg", "content_type": None}),
        ("/uploads", ["a.jpg"]),
        ("/uploads", "a.jpg"),
        ("/uploads/confirm", {}),
        ("/uploads/confirm", {"token": []}),
    ],
)
def test_wrong_bodies_are_refused(uploads, route, body):
    """400, with or without the extension."""
    assert uploads("alice").post(route, json=body).status_code == 400


def test_a_body_that_is_nested_too_deep_is_refused(uploads) -> None:
    """It is the client's mistake, and no error of the server."""
    answer = uploads("alice").post("/uploads", data=b"[" * 100_000, content_type="application/json")
    assert answer.status_code == 400


@pytest.mark.parametrize("data", [{"filename": "a.jpg"}, b'{"filename": "a.jpg"}'])
def test_a_form_of_another_site_cannot_ask(uploads, data):
    """Only JSON is taken, which a form cannot send."""
    assert uploads("alice").post("/uploads", data=data).status_code in {400, 415}


def test_the_application_hears_of_each_confirmed_object(uploads, store):
    """And may answer in its own way."""
    seen: list[str] = []

    def confirmed(stored):
        seen.append(stored.key)
        return {"ours": stored.size}, 202

    alice = uploads("alice", confirmed=confirmed)
    ticket = alice.post("/uploads", json={"filename": "a.jpg"}).json
    store.post_form(ticket["url"], ticket["fields"], b"jpeg")
    response = alice.post("/uploads/confirm", json={"token": ticket["token"]})
    assert (response.status_code, response.json, seen) == (202, {"ours": 4}, [ticket["key"]])


def test_an_owner_that_is_no_function_is_refused():
    """A fixed name would make everybody that user."""
    with pytest.raises(ConfigurationError):
        uploads_blueprint(None, POLICY, owner="alice")  # type: ignore[arg-type]


@pytest.mark.parametrize("part", [{"cache": "redis://127.0.0.1:6379"}, {"replicas": "sqlite://"}, {"health": True}])
def test_a_part_that_is_none_is_refused_where_it_is_given(part):
    """Most often an address; by the extension and by init_app, and nothing is set up."""
    app = Flask("shop")
    with pytest.raises(ConfigurationError, match=f"{next(iter(part))}="):
        Resilient(**part)
    with pytest.raises(ConfigurationError, match="write"):
        Resilient().init_app(app, **part)
    assert "resilient" not in app.extensions


def test_blueprints_refuse_what_they_cannot_serve(store):
    """No health, and bucket and policy in the wrong order."""
    bucket = Bucket("photos", client=store, secrets=["32 random bytes, as it were"])
    with pytest.raises(ConfigurationError, match="NoneType"):
        health_blueprint(None)
    with pytest.raises(ConfigurationError, match="a Bucket and an UploadPolicy"):
        uploads_blueprint(POLICY, bucket, owner=lambda: "alice")
