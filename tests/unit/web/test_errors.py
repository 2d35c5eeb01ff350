"""What an error means to a client."""

from __future__ import annotations

import pytest

from resilient import errors
from resilient.web import http_error


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.Unavailable, 503),
        (errors.CircuitOpen, 503),
        (errors.Overloaded, 503),
        (errors.DeadlineExceeded, 504),
        (errors.NotFound, 404),
        (errors.Conflict, 409),
        (errors.Refused, 403),
        (errors.InvalidInput, 400),
    ],
)
def test_each_kind_has_its_status(kind, status):
    """The text of the error is not part of what is told."""
    found = http_error(kind("db.internal said no"))
    assert found is not None
    assert found.status == status
    assert "internal" not in repr(found)


def test_the_body_is_one_word_as_json():
    """In every mount, with the time to come back where there is one, and nothing of the error's own text."""
    found = http_error(errors.Overloaded("db.internal said no", retry_after=2.5))
    assert found is not None
    told = found.answer()
    assert (told.line, told.body) == ("503 Service Unavailable", b'{"error":"unavailable"}')
    assert dict(told.headers) == {
        "Content-Type": "application/json",
        "Content-Length": "23",
        "Cache-Control": "no-store",
        "Retry-After": "3",
    }
    refused = http_error(errors.Refused("no"))
    assert refused is not None
    assert "Retry-After" not in dict(refused.answer().headers)


@pytest.mark.parametrize(
    "error", [errors.OutcomeUnknown("x"), errors.ConfigurationError("x"), errors.MissingExtra("a", "b"), ValueError()]
)
def test_others_have_none(error):
    """An outcome that is not known, a mistake of ours, a stranger's error: a plain 500."""
    assert http_error(error) is None


@pytest.mark.parametrize(
    ("seconds", "told"), [(None, 1), (0.0, 1), (0.2, 1), (1.0, 1), (1.1, 2), (float("inf"), 1), (float("nan"), 1)]
)
def test_retry_after_is_whole_seconds_and_never_zero(seconds, told):
    """As HTTP wants it; only 503 has it."""
    found = http_error(errors.CircuitOpen("x", retry_after=seconds))
    assert found is not None
    assert found.retry_after == told
    refused = http_error(errors.Refused("x", retry_after=seconds))
    assert refused is not None
    assert refused.retry_after is None
