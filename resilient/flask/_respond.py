"""An answer of this library as a response of Flask."""

from __future__ import annotations

from flask import Response

from resilient.health.answer import Answer

__all__ = ["respond"]


def respond(given: Answer) -> Response:
    """The response that says what the answer says."""
    return Response([given.body], given.status, given.headers)  # as a list: a text's length would replace the one told
