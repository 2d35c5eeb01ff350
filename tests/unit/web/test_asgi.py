"""The ASGI mounts: health as an application, and the middleware of the scope."""

from __future__ import annotations

import asyncio
import json

import pytest

from resilient import causality
from resilient.causality import Instant
from resilient.errors import ConfigurationError, DeadlineExceeded
from resilient.health import Health
from resilient.policy import deadline
from resilient.web import asgi


async def aget(app, path: str = "/", *, method: str = "GET", scheme: str = "http", root: str = "", **headers: str):
    """Serve one request; returns the status, the headers and the body."""
    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(dict(message))

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "root_path": root, "method": method, "scheme": scheme, "headers": raw}
    await app(scope, receive, send)
    start = sent[0]
    return start["status"], dict(start["headers"]), b"".join(each.get("body", b"") for each in sent[1:])


def get(app, path: str = "/", **arguments: str):
    return asyncio.run(aget(app, path, **arguments))


async def reply(send, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


async def writing(scope, receive, send) -> None:
    causality.current().observe("app", Instant(1_700_000_000.0))
    await reply(send, b"written")


async def telling(scope, receive, send) -> None:
    await reply(send, str(causality.current().token).encode())


# ---------------------------------------------------------------------------------------------------------- health


def test_the_routes_answer_as_over_wsgi():
    """One word, JSON, 404, 405, HEAD, and a prefix in either form."""
    app = asgi.health(Health())
    status, headers, body = get(app, "/readyz")
    assert (status, body, headers[b"cache-control"]) == (200, b"pass\n", b"no-store")
    assert json.loads(get(app, "/health")[2]) == {"status": "pass"}
    assert get(app, "/readyz", accept="application/json")[1][b"content-type"] == b"application/health+json"
    assert get(app, "/admin")[0] == 404
    assert get(app, "/readyz", method="POST")[0] == 405
    assert get(app, "/readyz", method="HEAD")[::2] == (200, b"")
    assert get(app, "/internal/readyz", root="/internal")[0] == 200
    assert get(app, "/health", root="/health")[0] == 200


def test_in_front_of_an_application_probes_are_answered_and_all_else_passed_on():
    """Its root, its websockets and its lifespan are its own; a mount's path that only looks alike is not taken away."""
    seen = []

    async def strict(scope, receive, send) -> None:
        seen.append(scope.get("path", scope["type"]))
        if scope["type"] == "http":
            await reply(send, b"theirs")

    app = asgi.health(Health(), otherwise=strict)
    assert [get(app, path)[2] for path in ("/readyz", "/", "", "/x")] == [b"pass\n", b"theirs", b"theirs", b"theirs"]
    asyncio.run(app({"type": "lifespan"}, None, None))
    asyncio.run(app({"type": "websocket", "path": "/readyz", "headers": []}, None, None))
    assert seen == ["/", "", "/x", "lifespan", "/readyz"]
    assert get(asgi.health(Health()), "/readyz", root="/r")[0] == 200


def test_a_draining_instance_answers_503():
    """And stays alive."""
    health = Health()
    health.drain()
    assert [get(asgi.health(health), path)[0] for path in ("/readyz", "/livez")] == [503, 200]


async def _yes(scope) -> bool:
    return True


async def _broken(scope) -> bool:
    raise KeyError("user")


@pytest.mark.parametrize(
    ("authorize", "seen"), [(None, False), (lambda scope: True, True), (_yes, True), (_broken, False)]
)
def test_details_are_for_those_who_may_see_them(authorize, seen):
    """The authoriser may be async."""
    health = Health(details="authorized")
    health.add("db", lambda: True)
    assert ("checks" in json.loads(get(asgi.health(health, authorize=authorize), "/health")[2])) is seen


def test_a_server_that_starts_and_ends_the_application_is_answered():
    """The lifespan protocol, and a websocket that has no business here."""
    sent: list[str] = []
    asked = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive():
        return {"type": next(asked)}

    async def send(message) -> None:
        sent.append(message["type"])

    app = asgi.health(Health())
    asyncio.run(app({"type": "lifespan"}, receive, send))
    asyncio.run(app({"type": "websocket", "path": "/readyz", "headers": []}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


# ----------------------------------------------------------------------------------------------------------- scope


def test_a_write_hands_a_token_back():
    """By cookie and header, Secure over https."""
    status, headers, _ = get(asgi.Middleware(writing), scheme="https")
    assert status == 200
    assert headers[b"resilient-token"] == b"1!app:t1700000000.000000"
    cookie = headers[b"set-cookie"].decode()
    assert cookie == "resilient_token=1!app:t1700000000.000000; Path=/; HttpOnly; SameSite=Lax; Secure"


@pytest.mark.parametrize("how", ["cookie", "resilient_token"])
def test_the_token_comes_in_by_cookie_or_header(how):
    """And is not sent back where nothing was learned."""
    token = "1!app:t1700000000.000000"
    value = f"resilient_token={token}" if how == "cookie" else token
    _, headers, body = get(asgi.Middleware(telling), **{how: value})
    assert body.decode() == token
    assert b"set-cookie" not in headers


def test_what_is_malformed_is_ignored():
    """It came from outside."""
    status, headers, body = get(asgi.Middleware(telling), cookie="resilient_token=\xff", resilient_token="2!x")
    assert (status, body) == (200, b"")
    assert b"set-cookie" not in headers


def test_tasks_and_threads_of_the_request_write_into_its_scope():
    """Child tasks and asyncio.to_thread see the same scope object."""

    async def app(scope, receive, send) -> None:
        def write(name: str) -> None:
            causality.current().observe(name, Instant(1_700_000_000.0))

        async def child() -> None:
            write("task")

        await asyncio.gather(asyncio.create_task(child()), asyncio.to_thread(write, "thread"))
        await telling(scope, receive, send)

    assert get(asgi.Middleware(app))[2] == b"1!task:t1700000000.000000!thread:t1700000000.000000"


def test_concurrent_requests_do_not_see_each_others_scopes():
    """Two requests interleaved on one loop."""

    async def app(scope, receive, send) -> None:
        causality.current().observe(scope["path"][1:], Instant(1_700_000_000.0))
        await asyncio.sleep(0.01)
        await telling(scope, receive, send)

    async def both():
        return await asyncio.gather(*(aget(asgi.Middleware(app), path) for path in ("/a", "/b")))

    assert [body for _, _, body in asyncio.run(both())] == [
        b"1!a:t1700000000.000000",
        b"1!b:t1700000000.000000",
    ]


def test_a_websocket_reads_its_token():
    """When it opens; the lifespan passes by."""
    seen: list[str] = []

    async def app(scope, receive, send) -> None:
        found = causality.running()
        seen.append("none" if found is None else str(found.token))

    token = "1!app:t1700000000.000000"
    mounted = asgi.Middleware(app)
    asyncio.run(mounted({"type": "websocket", "headers": [(b"resilient-token", token.encode())]}, None, None))
    asyncio.run(mounted({"type": "lifespan"}, None, None))
    assert seen == [token, "none"]


# -------------------------------------------------------------------------------------------------------- deadline


def test_a_request_is_cancelled_at_its_deadline():
    """And answered with 504 where its response has not begun."""
    cancelled: list[bool] = []

    async def app(scope, receive, send) -> None:
        assert deadline.remaining() is not None
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    status, headers, body = get(asgi.Middleware(app, deadline=0.05))
    assert (status, headers[b"content-type"], body) == (504, b"application/json", b'{"error":"deadline_exceeded"}')
    assert cancelled == [True]


def test_a_response_that_has_begun_is_not_replaced():
    """The error goes to the server."""

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(30)

    with pytest.raises(DeadlineExceeded):
        get(asgi.Middleware(app, deadline=0.05))


def test_a_wrong_deadline_is_found_when_it_is_mounted():
    """Not in the first request."""
    with pytest.raises(ConfigurationError):
        asgi.Middleware(telling, deadline=-1)
