"""How a causality token travels with a browser or a client, and with the work a request hands to other threads."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, ParamSpec, Protocol, TypeVar

from resilient import causality
from resilient.causality import Scope, Token

__all__ = ["COOKIE", "HEADER", "OpensScope", "carry", "news", "opener", "read"]

P = ParamSpec("P")
T = TypeVar("T")

COOKIE: Final = "resilient_token"
"""The cookie that browsers bring back."""

HEADER: Final = "Resilient-Token"
"""The header that other clients bring back; responses carry it too."""


class OpensScope(Protocol):
    """Whatever opens the scope of a request, such as a replica set."""

    def scope(self, token: Token | str | None = None) -> AbstractContextManager[Scope]:
        """Open it."""
        ...


def opener(replicas: OpensScope | None) -> Callable[[Token], AbstractContextManager[Scope]]:
    """What opens the scope of each request."""
    return causality.scope if replicas is None else replicas.scope


def read(cookies: str, header: str) -> Token:
    """The token that a request brought, by cookie, by header or both; what is malformed is ignored.

    Args:
        cookies: The request's ``Cookie`` header.
        header: The request's ``Resilient-Token`` header.

    Examples:
        >>> str(read("a=b; resilient_token=1!app:t1700000000.000000", "nonsense"))
        '1!app:t1700000000.000000'
    """
    pairs = (part.strip().partition("=") for part in cookies.split(";")) if COOKIE in cookies else ()
    found = [value.strip('"') for name, _, value in pairs if name == COOKIE]
    token = Token()
    for text in (*found[:4], header.strip()):
        token = token.merge(Token.read(text))
    return token


def news(scope: Scope, brought: Token, *, secure: bool) -> list[tuple[str, str]]:
    """The headers that hand the token back; none where the request learned nothing new.

    Args:
        scope: The request's scope.
        brought: The token it came with.
        secure: Whether it came over https; the cookie is then sent over https only.
    """
    token = scope.token
    if token is brought or token == brought:
        return []
    text = str(token)
    cookie = f"{COOKIE}={text}; Path=/; HttpOnly; SameSite=Lax"
    return [("Set-Cookie", f"{cookie}; Secure" if secure else cookie), (HEADER, text)]


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """Take the running request's scope and deadline along into a thread.

    A thread or a thread pool starts without them; `asyncio.to_thread` and Django's ``sync_to_async`` carry them by
    themselves.

    Args:
        function: What the thread will run; it may be called any number of times, at the same time too.

    Examples:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from resilient.policy import deadline
        >>> with ThreadPoolExecutor() as threads, deadline(1.5):
        ...     threads.submit(carry(deadline.remaining)).result() is not None
        True
    """
    context = contextvars.copy_context()

    def carried(*args: P.args, **kwargs: P.kwargs) -> T:
        return context.copy().run(function, *args, **kwargs)

    return carried
