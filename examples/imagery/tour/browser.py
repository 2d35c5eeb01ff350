"""One user's browser: cookies, both web processes in turn, and the patience to ask again."""

from __future__ import annotations

import http.cookies
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import urllib3

from examples.imagery.tour.tally import Tally
from resilient.clock import SYSTEM

__all__ = ["Answer", "Browser", "Failed"]

_AGAIN = {429, 502, 503, 504}
"""Answers after which it is right to ask again: everything a user does here may be repeated."""


class Failed(Exception):
    """The user gave up."""


@dataclass(frozen=True)
class Answer:
    """An answer that is no reason to ask again.

    Args:
        status: The HTTP status.
        data: The decoded body.
        source: Where the application says it came from.
    """

    status: int
    data: Any
    source: str


class Browser:
    """Asks the application what one user wants to know.

    Args:
        webs: The addresses of the web processes.
        tally: Where it is counted.
        patience: Seconds after which the user gives up.
        first: Which web process is asked first.
    """

    def __init__(self, webs: Sequence[str], tally: Tally, *, patience: float = 12.0, first: int = 0) -> None:
        self._tally = tally
        self._patience = patience
        self._webs = itertools.islice(itertools.cycle(webs), first, None)
        self._pool = urllib3.PoolManager(num_pools=4, maxsize=2, retries=False, timeout=urllib3.Timeout(5.0))
        self._cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, body: Any = None, *, kind: str = "", patience: float | None = None) -> Answer:
        """Ask until there is an answer, or patience ends.

        Raises:
            Failed: Patience ended.
        """
        began = SYSTEM.monotonic()
        until = began + (self._patience if patience is None else patience)
        while True:
            status, answer, wait = self._once(method, path, body)
            seconds = SYSTEM.monotonic() - began
            if answer is not None:
                self._tally.answered(kind, seconds, answer.source)
                return answer
            if status >= 500 and status not in _AGAIN:
                self._tally.note(self._tally.broken, f"{method} {path}: {status}")
            if SYSTEM.monotonic() + wait >= until:
                self._tally.failed(kind or method, seconds)
                raise Failed(f"{method} {path}: {status or 'no answer'} after {seconds:.1f} s")
            self._tally.retry()
            SYSTEM.sleep(wait)

    def _once(self, method: str, path: str, body: Any) -> tuple[int, Answer | None, float]:
        """One attempt: the status, the answer if it is one, and how long to wait before the next."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        content = None if body is None else json.dumps(body).encode()
        try:
            reply = self._pool.request(method, next(self._webs) + path, body=content, headers=headers)
        except urllib3.exceptions.HTTPError:
            return 0, None, 0.3
        for cookie in reply.headers.getlist("Set-Cookie"):
            for name, morsel in http.cookies.SimpleCookie(cookie).items():
                self._cookies[name] = morsel.coded_value
        if reply.status >= 500 or reply.status in _AGAIN:
            return reply.status, None, _seconds(reply.headers.get("Retry-After"))
        data = json.loads(reply.data) if reply.data else None
        return reply.status, Answer(reply.status, data, reply.headers.get("Imagery-Source", "")), 0.0

    def upload(self, url: str, fields: dict[str, str], jpeg: bytes) -> int:
        """Send a picture straight to the store, as the form says. Returns the store's status."""
        parts: dict[str, Any] = {**fields, "file": ("upload.jpg", jpeg, "image/jpeg")}
        return int(self._pool.request("POST", url, fields=parts).status)

    def download(self, url: str) -> tuple[int, bytes]:
        """Fetch a picture by its private link."""
        reply = self._pool.request("GET", url)
        return int(reply.status), bytes(reply.data)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def _seconds(text: str | None) -> float:
    """What Retry-After asks for, at most a second: these users are in a hurry."""
    try:
        return min(1.0, max(0.1, float(text or 0.3)))
    except ValueError:
        return 0.3
