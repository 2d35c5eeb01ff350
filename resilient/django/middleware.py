"""Middleware for sync and async Django alike."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.contrib.sessions.middleware import SessionMiddleware as _SessionMiddleware
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse

from resilient import policy
from resilient.causality import Scope, Token
from resilient.django._probe import aprobe, probe, respond
from resilient.django._settings import options
from resilient.errors import ResilientError
from resilient.web import HttpError, http_error
from resilient.web._token import news, opener, read

__all__ = ["HealthMiddleware", "ScopeMiddleware", "SessionMiddleware"]

GetResponse: TypeAlias = Callable[[HttpRequest], Any]


class _Both:
    """Serves sync where what comes next is sync, and async where it is async."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        """Serve one request."""
        return self.aserve(request) if self._async else self.serve(request)

    def serve(self, request: HttpRequest) -> HttpResponse:
        """Serve one request."""
        raise NotImplementedError

    async def aserve(self, request: HttpRequest) -> HttpResponse:
        """The async face of `serve`."""
        raise NotImplementedError


class HealthMiddleware(_Both):
    """Answers ``/livez``, ``/readyz``, ``/startupz`` and ``/health`` before anything else looks at the request.

    So it does with ``/health/<name>`` for each view and group, and with ``/health/page`` and ``/health/metrics`` where
    the `Health` has them. Every other path goes on to the application.

    Put it first in ``MIDDLEWARE``: balancers name the machine's address as host and speak http, so that
    ``ALLOWED_HOSTS`` would refuse them and ``SECURE_SSL_REDIRECT`` would send them elsewhere. What is reported, and
    who may see details, is ``settings.RESILIENT["HEALTH"]`` and ``["AUTHORIZE"]``.

    Raises:
        MiddlewareNotUsed: No ``HEALTH`` is set; Django then leaves the middleware out.
    """

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)
        found = options()
        if found.health is None:
            raise MiddlewareNotUsed("settings.RESILIENT has no HEALTH")
        self._health = found.health
        self._authorize = found.authorize

    def serve(self, request: HttpRequest) -> HttpResponse:
        """Answer a probe, or pass the request on."""
        answered = probe(request, self._health, request.path_info, self._authorize)
        return self.get_response(request) if answered is None else answered

    async def aserve(self, request: HttpRequest) -> HttpResponse:
        """The async face of `serve`."""
        answered = await aprobe(request, self._health, request.path_info, self._authorize)
        return await self.get_response(request) if answered is None else answered


class ScopeMiddleware(_Both):
    """Opens the scope of each request, may bound it by a deadline, and turns this library's errors into responses.

    With the scope a user reads what they wrote. The token comes from the cookie ``resilient_token`` and the header
    ``Resilient-Token``, and goes back the same ways when the request learned something. Put it before every middleware
    that uses a database. The deadline is ``settings.RESILIENT["DEADLINE"]``; `resilient.policy.deadline.remaining`
    tells what is left of it.

    An error of this library that a view raises becomes JSON with one word, as `resilient.web.http_error` has it:
    `Unavailable` 503 with ``Retry-After``, `DeadlineExceeded` 504, `NotFound` 404, `Conflict` 409, `Refused` 403,
    `InvalidInput` 400. ``settings.RESILIENT["MAP_ERRORS"] = False`` leaves them to Django, which answers 500.
    """

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)
        found = options()
        self._open = opener(found.replicas)
        self._deadline = found.deadline
        self._map_errors = found.map_errors

    def serve(self, request: HttpRequest) -> HttpResponse:
        """Serve one request in a scope of its own."""
        brought = _brought(request)
        with self._opened(brought) as scope:
            return _told(self.get_response(request), request, scope, brought)

    async def aserve(self, request: HttpRequest) -> HttpResponse:
        """The async face of `serve`."""
        brought = _brought(request)
        with self._opened(brought) as scope:
            return _told(await self.get_response(request), request, scope, brought)

    def process_exception(self, _request: HttpRequest, error: Exception) -> HttpResponse | None:
        """The response to an error of a view; ``None`` where it is for Django. Called in both faces."""
        found = http_error(error) if self._map_errors else None
        if found is None:
            return None
        return respond(found.answer())

    @contextlib.contextmanager
    def _opened(self, brought: Token) -> Iterator[Scope]:
        with self._open(brought) as scope:
            if self._deadline is None:
                yield scope
            else:
                # Entered as a sync block in both faces: the calls below obey it, and nothing is cancelled half-way.
                with policy.deadline(self._deadline):
                    yield scope


class SessionMiddleware(_SessionMiddleware):  # type: ignore[misc]  # Django is untyped
    """Django's own, which answers 503 while the sessions' server is away.

    Put it in the place of ``django.contrib.sessions.middleware.SessionMiddleware``. Whoever asks for the session then,
    a view, ``request.user`` or a middleware, gets `resilient.errors.Unavailable`; pages that do not ask are served. A
    session that could not be saved makes the page a 503 too, since what it says was done would be forgotten.
    """

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """The response to a view that could not read its session."""
        failed = _failed(request)
        return _away(failed) if failed is not None and error is failed else None

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Save the session, and tell the cookie."""
        try:
            answered: HttpResponse = super().process_response(request, response)
        except ResilientError as error:
            if error is not _failed(request):
                raise
            return _away(error, response)
        failed = _failed(request)
        # What a middleware raises, Django has made a 500 of.
        return answered if failed is None or response.status_code != 500 else _away(failed, response)


def _failed(request: Any) -> ResilientError | None:
    """What the sessions' store has failed with in this request."""
    found: ResilientError | None = getattr(getattr(request, "session", None), "outage", None)
    return found


def _away(error: ResilientError, before: HttpResponse | None = None) -> HttpResponse:
    """A response that says so, in the place of another: what that one holds open nobody else would close."""
    # Not by its ``close``, which tells Django that the request is over.
    for close in getattr(before, "_resource_closers", ()):
        with contextlib.suppress(Exception):
            close()
    found = http_error(error) or HttpError(503, "unavailable", 1)
    return respond(found.answer())


def _brought(request: HttpRequest) -> Token:
    return read(request.META.get("HTTP_COOKIE", ""), request.META.get("HTTP_RESILIENT_TOKEN", ""))


def _told(response: HttpResponse, request: HttpRequest, scope: Scope, brought: Token) -> HttpResponse:
    for name, value in news(scope, brought, secure=request.is_secure()):
        if name == "Set-Cookie":
            response.cookies.load(value)  # beside those of the view, where tests and other middlewares look for it
        else:
            response.headers[name] = value
    return response
