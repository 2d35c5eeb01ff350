"""Run as a script: moto's S3 and SQS on the given port of 127.0.0.1.

Two things differ from moto's own command. Calls to SQS are made one at a time, since moto's queues are not safe under
threads (one message goes to two receivers, a dictionary changes while it is walked); a waiting receive is therefore
answered by asking again and again without waiting (a queue's own default wait is not looked at). And the server
says nothing for each request.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server import werkzeug_app
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple

from resilient.clock import SYSTEM

_QUIET: tuple[type[BaseException], ...] = (BrokenPipeError, ConnectionResetError)


class OneAtATime:
    """A WSGI application that serialises what is said to SQS."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._turn = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not environ.get("HTTP_X_AMZ_TARGET", "").startswith("AmazonSQS."):
            return self._app(environ, start_response)  # type: ignore[no-any-return] # a WSGI answer
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if not environ["HTTP_X_AMZ_TARGET"].endswith(".ReceiveMessage"):
            status, headers, answer = self._ask(environ, body)
        else:
            status, headers, answer = self._receive(environ, body)
        start_response(status, headers)
        return [answer]

    def _receive(self, environ: dict[str, Any], body: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
        request = json.loads(body or b"{}")
        until = SYSTEM.monotonic() + float(request.get("WaitTimeSeconds") or 0)
        body = json.dumps({**request, "WaitTimeSeconds": 0}).encode()
        while True:
            reply = self._ask(environ, body)
            if not reply[0].startswith("200") or json.loads(reply[2] or b"{}").get("Messages"):
                return reply
            if SYSTEM.monotonic() >= until or _is_gone(environ):
                return reply
            SYSTEM.sleep(0.02)

    def _ask(self, environ: dict[str, Any], body: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
        reply: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: object = None) -> None:
            reply[:] = [status, headers]

        copy = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        with self._turn:
            answer = self._app(copy, start_response)
            content = b"".join(answer)
            if hasattr(answer, "close"):
                answer.close()
        return reply[0], reply[1], content


def _is_gone(environ: dict[str, Any]) -> bool:
    """Whether the caller hung up: a message must not be handed to someone who is no longer there."""
    connection = environ.get("werkzeug.socket")
    if connection is None:
        return False
    try:
        connection.setblocking(False)
        try:
            return bool(connection.recv(1, 2) == b"")  # 2 is MSG_PEEK
        finally:
            connection.setblocking(True)
    except BlockingIOError:
        return False
    except OSError:
        return True


# moto's own handler keeps underscores in the names of metadata; older versions of moto had none.
_Handler: Any = getattr(werkzeug_app, "MotoRequestHandler", WSGIRequestHandler)


class QuietHandler(_Handler):  # type: ignore[misc] # which base it is depends on moto's version
    """Says nothing per request, and nothing of callers who hung up."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print nothing."""

    def run_wsgi(self) -> None:
        """Answer, unless the caller is gone."""
        try:
            super().run_wsgi()
        except _QUIET:
            self.close_connection = True


def main(port: int) -> None:
    """Serve until killed."""
    os.environ["MOTO_PORT"] = str(port)
    app = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", port, OneAtATime(app), threaded=True, request_handler=QuietHandler)


if __name__ == "__main__":
    main(int(sys.argv[1]))
