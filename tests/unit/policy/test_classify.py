import errno
import socket
import ssl

import pytest

from resilient import errors
from resilient.policy import Failure, Pipeline, Retry, Verdict, classify


@pytest.mark.parametrize(
    ("error", "failure", "no_effect"),
    [
        (ConnectionRefusedError(), Failure.UNAVAILABLE, True),
        (OSError(errno.ECONNREFUSED, "refused"), Failure.UNAVAILABLE, True),
        (OSError(errno.EHOSTUNREACH, "no route"), Failure.UNAVAILABLE, True),
        (OSError(errno.ENETDOWN, "down"), Failure.UNAVAILABLE, False),
        (OSError(errno.ETIMEDOUT, "late"), Failure.TIMEOUT, False),
        (socket.gaierror(socket.EAI_NONAME, "who"), Failure.UNAVAILABLE, True),
        (ConnectionResetError(errno.ECONNRESET, "reset"), Failure.TRANSIENT, False),
        (BrokenPipeError(), Failure.TRANSIENT, False),
        (EOFError(), Failure.TRANSIENT, False),
        (ssl.SSLError(), Failure.TRANSIENT, False),
        (ssl.SSLCertVerificationError(), Failure.AUTH, True),
        (TimeoutError(), Failure.TIMEOUT, False),
        (PermissionError(), Failure.AUTH, True),
        (FileNotFoundError(), Failure.INVALID, False),
        (ValueError(), Failure.INVALID, False),
        (ZeroDivisionError(), Failure.INVALID, False),
        (NotImplementedError(), Failure.INVALID, False),
        (errors.Unavailable("x"), Failure.UNAVAILABLE, True),
        (errors.CircuitOpen("x"), Failure.UNAVAILABLE, True),
        (errors.Overloaded("x"), Failure.THROTTLED, True),
        (errors.DeadlineExceeded("x"), Failure.TIMEOUT, False),
        (errors.OutcomeUnknown("x"), Failure.TRANSIENT, False),
        (errors.Conflict("x"), Failure.CONFLICT, True),
        (errors.NotFound("x"), Failure.PERMANENT, True),
        (errors.InvalidInput("x"), Failure.INVALID, True),
        (errors.ConfigurationError("x"), Failure.INVALID, True),
        (errors.Refused("x"), Failure.AUTH, True),
    ],
)
def test_default_table(error, failure, no_effect):
    """Each known error has one meaning, and no effect is claimed only where none is possible."""
    assert classify.default(error) == Verdict(failure, no_effect)


def test_unknown_errors_are_not_guessed():
    """An error of somebody else's, and an OSError that says nothing, are not known here."""

    class Theirs(Exception): ...

    assert classify.default(Theirs()) is None
    assert classify.default(RuntimeError()) is None
    assert classify.default(OSError(errno.ENOSPC, "full")) is None


def test_retry_after_is_taken_from_the_error():
    """A hint on our own errors reaches the verdict."""
    assert classify.default(errors.Unavailable("x", retry_after=7)).retry_after == 7


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        (("transient",), "write Failure.TRANSIENT"),
        ((Failure.THROTTLED, 2.0), "write retry_after= for seconds"),
        ((Failure.THROTTLED, None), "write retry_after= for seconds"),
        ((Failure.THROTTLED, True, "5"), "for the text of a header"),
        ((Failure.THROTTLED, True, True), "for the text of a header"),
    ],
)
def test_a_verdict_that_means_nothing_is_refused(fields, advice):
    """With what to write instead: a text for seconds, or seconds in the place of a yes or no."""
    with pytest.raises(errors.ConfigurationError, match=advice):
        Verdict(*fields)


@pytest.mark.parametrize("hint", ["5", True, None, [1]])
def test_a_hint_that_is_no_number_is_none(hint):
    """An error of somebody else's may call anything ``retry_after``."""
    error = TimeoutError()
    error.retry_after = hint
    assert classify.default(error).retry_after is None


def test_table_takes_the_nearest_class():
    """A special class wins over its base, whatever the order."""
    judge = classify.table({Exception: Failure.INVALID, OSError: Verdict(Failure.TIMEOUT, no_effect=True)})
    assert judge(ConnectionError()) == Verdict(Failure.TIMEOUT, no_effect=True)
    assert judge(KeyError()) == Verdict(Failure.INVALID)
    assert judge(KeyboardInterrupt()) is None


@pytest.mark.parametrize("entries", [{"x": Failure.TRANSIENT}, {int: Failure.TRANSIENT}, {OSError: "transient"}])
def test_table_refuses_what_means_nothing(entries):
    """A table with a wrong entry is refused when it is made."""
    with pytest.raises(errors.ConfigurationError, match=r"no exception class|neither a Failure"):
        classify.table(entries)


def test_chain_refuses_what_cannot_judge():
    """Only callables judge."""
    with pytest.raises(errors.ConfigurationError, match="no classifier"):
        classify.chain([Failure.TRANSIENT])


def test_users_classifiers_are_asked_first(clock):
    """A pipeline asks its own classifiers, in order, before the built-in table."""

    class Busy(Exception): ...

    first = classify.table({Busy: Verdict(Failure.THROTTLED, no_effect=True)})
    second = classify.table({Busy: Failure.INVALID, ValueError: Verdict(Failure.TRANSIENT, no_effect=True)})
    pipeline = Pipeline("x", Retry(attempts=2), classify=[first, second], clock=clock)
    tries = []

    def fails(error):
        tries.append(error)
        raise error

    for error, expected in ((Busy(), 2), (ValueError(), 2), (KeyError(), 1), (ConnectionRefusedError(), 2)):
        tries.clear()
        with pytest.raises(type(error)):
            pipeline.call(fails, error)
        assert len(tries) == expected, error
