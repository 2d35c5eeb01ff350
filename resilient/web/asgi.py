"""Mounts for any ASGI server and framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import partial
from typing import Any, TypeAlias

from resilient import policy
from resilient.causality import Token
from resilient.errors import DeadlineExceeded
from resilient.health import Health
from resilient.health.answer import Answer, aprobe, check_mount, no_such_path
from resilient.web._errors import http_error
from resilient.web._token import OpensScope, news, opener, read

__all__ = ["Middleware", "health"]

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Authorize: TypeAlias = Callable[[Mapping[str, Any]], object]


# --------------------------------------------------------------------------------------------------------- health


def health(health: Health, *, authorize: Authorize | None = None, otherwise: AsgiApp | None = None) -> AsgiApp:
    r"""The health routes as an application of their own: ``/livez``, ``/readyz``, ``/startupz`` and ``/health``.

    ``/health/<name>`` answers a view or a group by its name, and ``/health/page`` and ``/health/metrics`` are there for
    those who may see details, where the `Health` was made with ``page=True`` and ``metrics=True``.

    Args:
        health: What to report.
        authorize: Says of a connection scope whether details may be seen, by returning True, or an awaitable of it;
            asked where the `Health` was made with ``details="authorized"``.
        otherwise: An application that gets every other request, websockets and the server's lifespan; without one they
            are answered with 404. Probes are answered before it looks at their host, their login or their scheme.

    Raises:
        ConfigurationError: That is no `Health`, or ``authorize`` no function.

    Examples:
        >>> import asyncio
        >>> sent = []
        >>> async def send(message):
        ...     sent.append(message)
        >>> scope = {"type": "http", "path": "/readyz", "method": "GET", "headers": []}
        >>> asyncio.run(health(Health())(scope, None, send))
        >>> sent[0]["status"], sent[1]["body"]
        (200, b'pass\n')
    """
    check_mount(health, authorize, awaits=True)

    async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        given = None
        if scope["type"] == "http":  # alone it answers at its root; in front of another application, that one does
            path = _below(scope) or ("/health" if otherwise is None else "")
            leave = None if authorize is None else partial(authorize, scope)
            given = await aprobe(health, path, scope["method"], _header(scope, b"accept"), leave)
        if given is None and otherwise is not None:
            await otherwise(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await _respond(given or no_such_path(), scope, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    return application


def _below(scope: Mapping[str, Any]) -> str:
    """The path from where the application is mounted, whether or not the server has taken the mount's away."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    rest = path.removeprefix(root)
    return path if rest and not rest.startswith("/") else rest


async def _respond(given: Answer, scope: Mapping[str, Any], send: Send) -> None:
    await send({"type": "http.response.start", "status": given.status, "headers": _encoded(given.headers)})
    await send({"type": "http.response.body", "body": given.to(scope["method"]).body})


async def _live(receive: Receive, send: Send) -> None:
    """Tell a server that asks that there is nothing to start or to end."""
    while True:
        asked = (await receive())["type"]
        await send({"type": f"{asked}.complete"})
        if asked == "lifespan.shutdown":
            return


# ----------------------------------------------------------------------------------------------------- middleware


class Middleware:
    """Opens the scope of each request, so that a user reads what they wrote, and may bound it by a deadline.

    The token comes from the cookie ``resilient_token`` and the header ``Resilient-Token``, and goes back the same ways
    when the request learned something. A websocket's token is read when it opens, and not written back.

    Args:
        app: The application.
        replicas: The replica set whose scope is opened; without one, the scope of all.
        deadline: Seconds for one HTTP request. It is cancelled then, and answered with 504 if its response has not
            begun. Websockets are not bounded.

    Examples:
        >>> application = Middleware(health(Health()), deadline=5.0)
    """

    def __init__(self, app: AsgiApp, replicas: OpensScope | None = None, deadline: float | None = None) -> None:
        self.app = app
        self._open = opener(replicas)
        self._deadline = deadline
        if deadline is not None:
            policy.deadline(deadline)  # a wrong number is found here, not in the first request

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        brought = read(_header(scope, b"cookie"), _header(scope, b"resilient-token"))
        if scope["type"] == "websocket":
            with self._open(brought):
                await self.app(scope, receive, send)
            return
        await self._serve(scope, receive, send, brought)

    async def _serve(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, brought: Token) -> None:
        begun = False
        with self._open(brought) as opened:

            async def tell(message: Message) -> None:
                nonlocal begun
                if message["type"] == "http.response.start":
                    begun = True
                    told = news(opened, brought, secure=scope.get("scheme") == "https")
                    if told:
                        message = {**message, "headers": [*message.get("headers", ()), *_encoded(told)]}
                await send(message)

            if self._deadline is None:
                await self.app(scope, receive, tell)
                return
            try:
                async with policy.deadline(self._deadline):
                    await self.app(scope, receive, tell)
            except DeadlineExceeded as error:
                found = http_error(error)
                if found is None or begun:
                    raise
                await _respond(found.answer(), scope, send)


def _header(scope: Mapping[str, Any], name: bytes) -> str:
    """The values of one header, joined."""
    found: Iterable[bytes] = (value for key, value in scope.get("headers", ()) if key.lower() == name)
    return (b"; " if name == b"cookie" else b", ").join(found).decode("latin-1")


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
