"""Mounts for any WSGI server and framework."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from resilient import policy
from resilient.causality import Scope, Token
from resilient.errors import DeadlineExceeded
from resilient.health import Health
from resilient.health.answer import Answer, check_mount, no_such_path, probe
from resilient.web._errors import http_error
from resilient.web._token import OpensScope, news, opener, read

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
else:
    StartResponse = WSGIApplication = WSGIEnvironment = Any

__all__ = ["Middleware", "health"]

Authorize: TypeAlias = Callable[[Mapping[str, Any]], object]


# --------------------------------------------------------------------------------------------------------- health


def health(
    health: Health, *, authorize: Authorize | None = None, otherwise: WSGIApplication | None = None
) -> WSGIApplication:
    r"""The health routes as an application of their own: ``/livez``, ``/readyz``, ``/startupz`` and ``/health``.

    ``/health/<name>`` answers a view or a group by its name, and ``/health/page`` and ``/health/metrics`` are there for
    those who may see details, where the `Health` was made with ``page=True`` and ``metrics=True``.

    Args:
        health: What to report.
        authorize: Says of a request's environ whether details may be seen, by returning True; asked where the `Health`
            was made with ``details="authorized"``.
        otherwise: An application that gets every other request; without one they are answered with 404. Probes are
            answered before it looks at their host, their login or their scheme.

    Raises:
        ConfigurationError: That is no `Health`, or ``authorize`` no function, or an async one.

    Examples:
        >>> started = []
        >>> application = health(Health())
        >>> application({"PATH_INFO": "/readyz", "REQUEST_METHOD": "GET"}, lambda *args: started.append(args))
        [b'pass\n']
        >>> started[0][0]
        '200 OK'
    """
    check_mount(health, authorize)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Alone it answers at its root; in front of another application, that one does.
        path = environ.get("PATH_INFO") or ("/health" if otherwise is None else "")
        leave = None if authorize is None else partial(authorize, environ)
        given = probe(health, path, environ["REQUEST_METHOD"], environ.get("HTTP_ACCEPT", ""), leave)
        if given is None and otherwise is not None:
            return otherwise(environ, start_response)
        return _respond(given or no_such_path(), environ, start_response)

    return application


def _respond(given: Answer, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response(given.line, given.headers)
    return [given.to(environ["REQUEST_METHOD"]).body]


# ----------------------------------------------------------------------------------------------------- middleware


class Middleware:
    """Opens the scope of each request, so that a user reads what they wrote, and may bound it by a deadline.

    The token comes from the cookie ``resilient_token`` and the header ``Resilient-Token``, and goes back the same ways
    when the request learned something. What it learns after its response has begun (in a streamed body) is not told.

    Args:
        app: The application.
        replicas: The replica set whose scope is opened; without one, the scope of all.
        deadline: Seconds that the calls of one request may take together. A request that ends by it is answered with
            504, if its response has not begun.

    Examples:
        >>> from wsgiref.simple_server import demo_app
        >>> application = Middleware(demo_app, deadline=5.0)
    """

    def __init__(self, app: WSGIApplication, replicas: OpensScope | None = None, deadline: float | None = None) -> None:
        self.app = app
        self._open = opener(replicas)
        self._deadline = deadline
        if deadline is not None:
            policy.deadline(deadline)  # a wrong number is found here, not in the first request

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        brought = read(environ.get("HTTP_COOKIE", ""), environ.get("HTTP_RESILIENT_TOKEN", ""))
        # A context of the request's own, in which its body is made too, whatever thread asks for the next piece. It is
        # copied with the scope and the deadline open, so that nothing is left to close when a server forgets to.
        bound = contextlib.nullcontext() if self._deadline is None else policy.deadline(self._deadline)
        with self._open(brought) as scope, bound:
            context = contextvars.copy_context()
        start = _Start(start_response, scope, brought, secure=environ.get("wsgi.url_scheme") == "https")
        try:
            body = context.run(self.app, environ, start)
        except DeadlineExceeded as error:
            found = http_error(error)
            if found is None or self._deadline is None or start.begun:
                raise
            return _respond(found.answer(), environ, start_response)
        if isinstance(body, list | tuple) or _is_file(body, environ):
            return body  # nothing of the application runs any more
        return _Body(body, context)


class _Start:
    """The server's ``start_response`` with the token added at the last moment."""

    def __init__(self, start_response: StartResponse, scope: Scope, brought: Token, *, secure: bool) -> None:
        self._start_response = start_response
        self._scope = scope
        self._brought = brought
        self._secure = secure
        self.begun = False

    def __call__(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
        self.begun = True
        told = news(self._scope, self._brought, secure=self._secure)
        return self._start_response(status, [*headers, *told], *exc_info)


class _Body:
    """A body that is still to be made: each piece inside the request's context."""

    def __init__(self, body: Iterable[bytes], context: contextvars.Context) -> None:
        self._body = body
        self._context = context
        self._pieces: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._pieces is None:
            self._pieces = self._context.run(iter, self._body)
        return self._context.run(next, self._pieces)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            self._context.run(close)


def _is_file(body: object, environ: Mapping[str, Any]) -> bool:
    """Whether the server sends this body by itself, perhaps faster than piece by piece."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)
