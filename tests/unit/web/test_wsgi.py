"""The WSGI mounts: health as an application, and the middleware of the scope."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from resilient import causality
from resilient.causality import Instant, Token
from resilient.errors import ConfigurationError, DeadlineExceeded
from resilient.health import Health, Result
from resilient.policy import deadline
from resilient.web import carry, wsgi


class Response:
    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = int(status[:3])
        self.all = headers
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body


def get(app, path: str = "/", *, checked: bool = True, **environ: str) -> Response:
    """Serve one request as a server would, by the book."""
    env: dict = {"PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "", **environ}
    setup_testing_defaults(env)
    started: list = []
    body = (validator(app) if checked else app)(env, lambda *args: started.append(args) or (lambda _: None))
    try:
        content = b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    return Response(started[-1][0], started[-1][1], content)


def writing(environ, start_response):
    """An application that commits something."""
    causality.current().observe("app", Instant(1_700_000_000.0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"written"]


def telling(environ, start_response):
    """An application that tells the token it came with."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(causality.current().token).encode()]


# ---------------------------------------------------------------------------------------------------------- health


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
def test_the_probe_routes_answer_with_one_word(path):
    """200 and pass, which nobody may keep."""
    response = get(wsgi.health(Health()), path)
    assert (response.status, response.body) == (200, b"pass\n")
    assert response.headers["cache-control"] == "no-store"


def test_in_front_of_an_application_probes_are_answered_and_all_else_passed_on():
    """Before it looks at hosts, logins or schemes; its root is its own."""
    seen = []

    def strict(environ, start_response):
        seen.append(environ["PATH_INFO"])
        start_response("400 Bad Request", [("Content-Type", "text/plain")])
        return [b"this host is not trusted"]

    app = wsgi.health(Health(), otherwise=strict)
    assert [get(app, path).status for path in ("/readyz", "/health", "/", "", "/health/page", "/x")] == [200, 200] + [
        400
    ] * 4
    assert seen == ["/", "", "/health/page", "/x"]


def test_a_failing_instance_answers_503():
    """On every route that asks for readiness."""
    health = Health()
    health.add("db", lambda: False)
    app = wsgi.health(health)
    assert [get(app, path).status for path in ("/livez", "/readyz", "/startupz", "/health")] == [200, 503, 503, 503]


def test_json_comes_on_health_or_on_demand():
    """/health is application/health+json; the other routes are where the client asks for it."""
    app = wsgi.health(Health())
    for response in (get(app, "/health"), get(app, "/readyz", HTTP_ACCEPT="application/health+json")):
        assert response.headers["content-type"] == "application/health+json"
        assert json.loads(response.body) == {"status": "pass"}


def test_other_paths_and_methods_are_refused():
    """404 and 405."""
    app = wsgi.health(Health())
    assert get(app, "/admin").status == 404
    assert get(app, "/readyz", REQUEST_METHOD="POST").status == 405
    head = get(app, "/readyz", REQUEST_METHOD="HEAD", checked=False)
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(("policy", "said", "seen"), [("never", True, False), ("authorized", True, True)])
def test_details_are_for_those_who_may_see_them(policy, said, seen):
    """The authoriser gets the environ."""
    health, asked = Health(details=policy), []
    health.add("db", lambda: Result.ok(depth=3))
    app = wsgi.health(health, authorize=lambda environ: asked.append(environ["PATH_INFO"]) or said)
    assert ("checks" in json.loads(get(app, "/health").body)) is seen
    assert bool(asked) is seen
    assert "checks" not in json.loads(get(wsgi.health(health), "/health").body)


# ----------------------------------------------------------------------------------------------------------- scope


def test_a_write_hands_a_token_back():
    """By cookie, which scripts cannot read, and by header."""
    response = get(wsgi.Middleware(writing))
    assert response.headers["resilient-token"] == "1!app:t1700000000.000000"
    assert response.headers["set-cookie"] == "resilient_token=1!app:t1700000000.000000; Path=/; HttpOnly; SameSite=Lax"


def test_over_https_the_cookie_stays_on_https():
    """Secure, when the request was."""
    response = get(wsgi.Middleware(writing), **{"wsgi.url_scheme": "https"})
    assert response.headers["set-cookie"].endswith("; Secure")


@pytest.mark.parametrize("how", ["HTTP_COOKIE", "HTTP_RESILIENT_TOKEN"])
def test_the_token_comes_in_by_cookie_or_header(how):
    """And is not sent back where nothing was learned."""
    token = "1!app:t1700000000.000000"
    response = get(wsgi.Middleware(telling), **{how: f"a=b; resilient_token={token}" if "COOKIE" in how else token})
    assert response.body.decode() == token
    assert "set-cookie" not in response.headers
    assert "resilient-token" not in response.headers


def test_cookie_and_header_are_merged():
    """Whichever knows more of a database."""
    response = get(
        wsgi.Middleware(telling),
        HTTP_COOKIE="resilient_token=1!a:t1700000005.000000!b:t1700000001.000000",
        HTTP_RESILIENT_TOKEN="1!a:t1700000002.000000!b:t1700000009.000000",
    )
    assert response.body == b"1!a:t1700000005.000000!b:t1700000009.000000"


@pytest.mark.parametrize("text", ["nonsense", "2!a:t1", "1!a:t" + "9" * 3000, "1!\xff:t1.000000", "=", ";;;"])
def test_what_is_malformed_is_ignored(text):
    """It came from outside: reads start afresh, and the request is served."""
    response = get(wsgi.Middleware(telling), HTTP_COOKIE=f"resilient_token={text}", HTTP_RESILIENT_TOKEN=text)
    assert (response.status, response.body) == (200, b"")
    assert "set-cookie" not in response.headers


def test_requests_do_not_see_each_others_scopes():
    """Two requests at the same time on two threads; nothing is left behind on either."""
    together = threading.Barrier(2)

    def app(environ, start_response):
        causality.current().observe(environ["PATH_INFO"][1:], Instant(1_700_000_000.0))
        together.wait(5)
        return telling(environ, start_response)

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda path: get(wsgi.Middleware(app), path).body, ["/a", "/b"])
        assert (first, second) == (b"1!a:t1700000000.000000", b"1!b:t1700000000.000000")
        assert list(threads.map(lambda _: causality.running(), range(2))) == [None, None]


def test_a_streamed_body_is_made_inside_the_scope():
    """Whatever thread makes it, and though other requests run between its pieces."""

    def app(environ, start_response):
        def pieces():
            with contextlib.closing(io.BytesIO()):
                yield str(causality.current().token).encode()
                yield b" " + str(deadline.remaining() is not None).encode()

        start_response("200 OK", [("Content-Type", "text/plain")])
        return pieces()

    served = wsgi.Middleware(app, deadline=5)
    env: dict = {"HTTP_RESILIENT_TOKEN": "1!app:t1700000000.000000"}
    setup_testing_defaults(env)
    body = iter(served(env, lambda *_: None))
    get(served)
    with ThreadPoolExecutor(2) as threads:
        assert threads.submit(next, body).result() == b"1!app:t1700000000.000000"
        assert threads.submit(next, body).result() == b" True"
        assert threads.submit(next, body, None).result() is None
    body.close()


def test_a_body_left_open_is_cleaned_up():
    """A server that forgets to close it leaves nothing that complains."""

    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"a"
        yield b"b"

    env: dict = {}
    setup_testing_defaults(env)
    body = wsgi.Middleware(app, deadline=5)(env, lambda *_: None)
    assert next(iter(body)) == b"a"
    del body
    assert causality.running() is None
    assert deadline.remaining() is None


def test_a_file_goes_to_the_server_as_it_is():
    """So that the server can send it by its own means."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"file"))

    env: dict = {"wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(env)
    assert isinstance(wsgi.Middleware(app)(env, lambda *_: None), FileWrapper)


def test_the_scope_of_a_replica_set_is_opened():
    """replicas= opens the scope instead, with the token the request brought."""
    seen: list[Token] = []

    class Replicas:
        def scope(self, token=None):
            seen.append(token)
            return causality.scope(token)

    get(wsgi.Middleware(telling, replicas=Replicas()), HTTP_RESILIENT_TOKEN="1!app:t1700000000.000000")
    assert [str(token) for token in seen] == ["1!app:t1700000000.000000"]


def test_work_on_another_thread_writes_into_the_same_scope():
    """carry() takes the request's scope and deadline along."""

    def app(environ, start_response):
        def work() -> float | None:
            causality.current().observe("app", Instant(1_700_000_000.0))
            return deadline.remaining()

        with ThreadPoolExecutor(4) as threads:
            assert all(threads.map(carry(lambda _: work()), range(8)))
        return telling(environ, start_response)

    response = get(wsgi.Middleware(app, deadline=5))
    assert response.headers["resilient-token"] == "1!app:t1700000000.000000"


# -------------------------------------------------------------------------------------------------------- deadline


def test_a_request_that_ends_by_its_deadline_is_504():
    """Where its response has not begun."""

    def app(environ, start_response):
        deadline.check()
        raise AssertionError("the deadline has passed")

    late = get(wsgi.Middleware(app, deadline=0))
    assert (late.status, late.headers["content-type"], late.body) == (
        504,
        "application/json",
        b'{"error":"deadline_exceeded"}',
    )


def test_a_response_that_has_begun_is_not_replaced():
    """The error goes to the server, which breaks the connection off."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        deadline.check()

    with pytest.raises(DeadlineExceeded):
        get(wsgi.Middleware(app, deadline=0), checked=False)


def test_other_errors_pass_through():
    """The middleware answers for deadlines only, and leaves no scope behind."""

    def app(environ, start_response):
        raise KeyError("x")

    with pytest.raises(KeyError):
        get(wsgi.Middleware(app, deadline=5), checked=False)
    assert causality.running() is None


def test_a_wrong_deadline_is_found_when_it_is_mounted():
    """Not in the first request."""
    with pytest.raises(ConfigurationError):
        wsgi.Middleware(telling, deadline=-1)
