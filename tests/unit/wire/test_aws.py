"""Clients for S3 and SQS: time limits and error classes."""

import os
import socket
import threading
import time
from email.utils import formatdate

import boto3
import pytest
from botocore import exceptions as boto
from botocore.config import Config

from resilient.errors import (
    ConfigurationError,
    Conflict,
    DeadlineExceeded,
    NotFound,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from resilient.policy import Failure, deadline
from resilient.wire import aws


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")


@pytest.fixture
def silent():
    """A server that takes connections and never answers; counts them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = []

        def accept():
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", taken
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in taken:
            each.close()


@pytest.fixture
def make():
    """Makes clients that are closed after the test."""
    made = []

    def client(*arguments, **options):
        made.append(aws.client(*arguments, **options))
        return made[-1]

    yield client
    for each in made:
        each.close()


def took(function):
    begun = time.monotonic()
    function()
    return time.monotonic() - begun


def test_a_frozen_server_is_waited_for_only_as_long_as_the_deadline_has_left(make, silent):
    """The deadline reaches the socket, in time, though the client's own limit is far beyond."""
    client = make("s3", endpoint=silent[0], region="eu-west-1", timeout=30)

    def ask():
        with deadline(0.2), pytest.raises(boto.ReadTimeoutError):
            client.head_object(Bucket="b", Key="k")

    assert 0.1 < took(ask) < 1.5


def test_nothing_is_sent_when_no_time_is_left(make, silent):
    """A deadline that has passed costs no connection."""
    client = make("s3", endpoint=silent[0], region="eu-west-1")
    with deadline(0.01):
        time.sleep(0.02)
        with pytest.raises(DeadlineExceeded):
            client.head_object(Bucket="b", Key="k")
    assert silent[1] == []


def test_a_client_tries_once_within_its_own_limit(make, silent):
    """Retrying is the business of the policies; without a deadline the client's limit holds."""
    client = make("s3", endpoint=silent[0], region="eu-west-1", timeout=0.2)

    def ask():
        with pytest.raises(boto.ReadTimeoutError):
            client.head_object(Bucket="b", Key="k")

    assert took(ask) < 1.5
    assert len(silent[1]) == 1


def test_an_announced_wait_prolongs_the_limit(make, silent):
    """A long poll may take its time, and the deadline bounds it all the same."""
    client = make("sqs", endpoint=silent[0], region="eu-west-1", timeout=0.2)

    def poll(limit):
        with aws.waiting(0.5), deadline(limit), pytest.raises(boto.ReadTimeoutError):
            client.receive_message(QueueUrl=f"{silent[0]}/1/q")

    assert took(lambda: poll(10)) > 0.6
    assert took(lambda: poll(0.3)) < 0.6


def test_a_ready_client_is_taken_as_it_is():
    """Its own limits stand, and it tells them."""
    given = boto3.session.Session(region_name="eu-west-1").client("sqs", config=Config(read_timeout=7))
    assert aws.client("sqs", given) is given
    assert aws.read_limit(given) == 7
    assert aws.read_limit(aws.client("sqs", region="eu-west-1")) is None
    assert aws.read_limit(object()) is None
    given.close()


def test_a_missing_region_is_told():
    """When the client is made, not at the first call."""
    with pytest.raises(ConfigurationError, match="region"):
        aws.client("sqs")


def test_a_forked_child_makes_connections_of_its_own(make, silent):
    """The pools are emptied in a child: it cannot write into its parent's sockets."""
    client = make("s3", endpoint=silent[0], region="eu-west-1", timeout=0.2)
    with pytest.raises(boto.ReadTimeoutError):
        client.head_object(Bucket="b", Key="k")
    pools = client._endpoint.http_session._manager.pools
    assert len(pools) == 1
    child = os.fork()
    if child == 0:
        os._exit(len(pools))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def answer(code, status=400, headers=None):
    meta = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    return boto.ClientError({"Error": {"Code": code}, "ResponseMetadata": meta}, "Op")


@pytest.mark.parametrize(
    ("error", "failure", "no_effect", "becomes"),
    [
        (answer("ThrottlingException"), Failure.THROTTLED, True, Unavailable),
        (answer("SlowDown", 503), Failure.THROTTLED, True, Unavailable),
        (answer("com.amazonaws.sqs#RequestThrottled"), Failure.THROTTLED, True, Unavailable),
        (answer("whatever", 429), Failure.THROTTLED, True, Unavailable),
        (answer("RequestTimeout"), Failure.TIMEOUT, True, Unavailable),
        (answer("AccessDenied", 403), Failure.AUTH, True, Refused),
        (answer("403", 403), Failure.AUTH, True, Refused),
        (answer("ExpiredToken"), Failure.AUTH, True, Refused),
        (answer("PreconditionFailed", 412), Failure.CONFLICT, True, Conflict),
        (answer("InternalError", 500), Failure.UNAVAILABLE, False, OutcomeUnknown),
        (answer("ServiceUnavailable", 503), Failure.UNAVAILABLE, True, Unavailable),
        (answer("NoSuchKey", 404), Failure.PERMANENT, True, NotFound),
        (answer("404", 404), Failure.PERMANENT, True, NotFound),
        (answer("AWS.SimpleQueueService.NonExistentQueue"), Failure.PERMANENT, True, NotFound),
        (answer("InvalidParameterValue"), Failure.INVALID, True, Refused),
        (boto.EndpointConnectionError(endpoint_url="x"), Failure.UNAVAILABLE, True, Unavailable),
        (boto.ConnectTimeoutError(endpoint_url="x"), Failure.TIMEOUT, True, Unavailable),
        (boto.ReadTimeoutError(endpoint_url="x"), Failure.TIMEOUT, False, OutcomeUnknown),
        (boto.ConnectionClosedError(endpoint_url="x"), Failure.TRANSIENT, False, OutcomeUnknown),
        (boto.HTTPClientError(error="x"), Failure.TRANSIENT, False, OutcomeUnknown),
        (boto.NoCredentialsError(), Failure.AUTH, True, Refused),
        (boto.ParamValidationError(report="x"), Failure.INVALID, True, Refused),
    ],
)
def test_errors_have_classes(error, failure, no_effect, becomes):
    """By code before status: AWS throttles with 400. A lost answer to a write leaves the outcome unknown."""
    verdict = aws.classify(error)
    assert (verdict.failure, verdict.no_effect) == (failure, no_effect)
    with pytest.raises(becomes), aws.translated("Op", effect=True):
        raise error
    if becomes is OutcomeUnknown:
        with pytest.raises(Unavailable), aws.translated("Op"):
            raise error


def test_a_hint_to_wait_is_kept_and_foreign_errors_are_left_alone():
    """Retry-After goes into the verdict and the error; what is not botocore's passes through."""
    assert aws.classify(answer("SlowDown", 503, {"retry-after": "7"})).retry_after == 7
    with pytest.raises(Unavailable) as caught, aws.translated("Op"):
        raise answer("SlowDown", 503, {"retry-after": "7"})
    assert caught.value.retry_after == 7
    assert aws.classify(ValueError()) is None
    with pytest.raises(ValueError, match="mine"), aws.translated("Op"):
        raise ValueError("mine")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"x-amz-retry-after": "1500"}, 1.5),
        ({"x-amz-retry-after": "1500", "retry-after": "7"}, 1.5),
        ({"x-amz-retry-after": "soon", "retry-after": "7"}, 7),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Wed, 21 Oct 20155555 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_a_hint_has_several_forms(headers, seconds):
    """Seconds, a date, or AWS's own header of milliseconds, which comes first; anything else is none."""
    assert aws.classify(answer("SlowDown", 503, headers)).retry_after == seconds


def test_a_hint_that_is_a_date_ahead():
    """It is what is left until then."""
    headers = {"retry-after": formatdate(time.time() + 90, usegmt=True)}
    assert 60 < aws.classify(answer("SlowDown", 503, headers)).retry_after <= 90


@pytest.mark.parametrize("limits", [{"read_timeout": None}, {"connect_timeout": None}])
def test_a_ready_client_that_could_wait_for_ever_is_refused(limits):
    """boto3's clients have limits unless somebody takes them away, and says here that it was meant."""
    ready = boto3.session.Session(region_name="eu-west-1").client("sqs", config=Config(**limits))
    with pytest.raises(ConfigurationError, match="unbounded=True"):
        aws.client("sqs", ready)
    assert aws.client("sqs", ready, unbounded=True) is ready
    ready.close()
