"""What reaches a dependency is counted where it arrives."""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from resilient.errors import CircuitOpen, DeadlineExceeded, InvalidInput, Overloaded
from resilient.policy import (
    Breaker,
    Budget,
    Bulkhead,
    Deadline,
    Degraded,
    Failure,
    Fallback,
    Pipeline,
    Policy,
    RateLimit,
    Retry,
    Verdict,
)
from resilient.testing.clock import FakeClock
from resilient.web import http_error
from resilient.wire import aws

Answer = tuple[int, dict[str, str], str]
OK: Answer = (200, {}, "live")


class Origin:
    """A small HTTP server that counts what arrives, and answers what it is told to."""

    def __init__(self) -> None:
        self.arrived: list[float] = []
        self.answer: Callable[[int], Answer] = lambda _: OK
        self.slow = 0.0
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                origin.arrived.append(time.monotonic())
                number = len(origin.arrived)
                if origin.slow:
                    origin.wake.wait(origin.slow)
                status, headers, body = origin.answer(number)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())
                self.close_connection = True

            do_POST = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *_: object) -> None: ...

        self.wake = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def get(self, limit: float = 5.0) -> str:
        """Ask it over HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=limit)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            text = response.read().decode()
            if response.status != 200:
                after = response.headers.get("Retry-After")
                raise HttpError(response.status, float(after) if after else None)
            return text
        finally:
            connection.close()


class HttpError(Exception):
    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(status)
        self.status, self.retry_after = status, retry_after


def judge(error: BaseException) -> Verdict | None:
    if not isinstance(error, HttpError):
        return None
    if error.status in {429, 503}:
        return Verdict(Failure.THROTTLED, no_effect=True, retry_after=error.retry_after)
    return Verdict(Failure.UNAVAILABLE) if error.status >= 500 else Verdict(Failure.INVALID, no_effect=True)


@contextmanager
def running() -> Iterator[Origin]:
    origin = Origin()
    thread = threading.Thread(target=origin.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield origin
    finally:
        origin.wake.set()
        origin.server.shutdown()
        thread.join()
        origin.server.server_close()


@pytest.fixture
def origin() -> Iterator[Origin]:
    with running() as made:
        yield made


# ------------------------------------------------------------------------------------------------------------- P1


def page_pipeline(clock: FakeClock, **breaker: Any) -> Pipeline:
    return Pipeline(
        "page",
        Fallback(lambda error: "static copy"),
        Breaker(consecutive=5, wait=5.0, **breaker),
        classify=judge,
        clock=clock,
    )


def test_an_origin_that_is_down(origin: Origin) -> None:
    """Open within 5 failures, every answer a marked static copy, only probes arrive; back, it is closed again."""
    clock = FakeClock()
    page = page_pipeline(clock)
    assert page.call(origin.get) == "live"
    origin.answer = lambda _: (500, {}, "broken")
    answers: list[Any] = [page.call(origin.get) for _ in range(100)]
    assert all(isinstance(answer, Degraded) and answer.value == "static copy" for answer in answers)
    assert len(origin.arrived) == 1 + 5
    assert page.stats().breaker == "open"
    assert isinstance(answers[-1].error, CircuitOpen)
    for probe in range(3):  # still down: one probe for each wait, which grows
        clock.advance(6.0 * 2**probe * 1.3)
        copies: list[Any] = [page.call(origin.get) for _ in range(20)]
        assert all(isinstance(copy, Degraded) for copy in copies)
        assert len(origin.arrived) == 1 + 5 + probe + 1
    origin.answer = lambda _: OK
    clock.advance(120.0)
    assert [page.call(origin.get) for _ in range(20)] == ["live"] * 20
    assert page.stats().breaker == "closed"


def test_an_origin_that_is_gone(origin: Origin) -> None:
    """The same where nobody listens any more, from many threads: the failures that were under way, and no more."""
    clock = FakeClock()
    page = page_pipeline(clock)
    origin.server.socket.close()  # refuses from now on
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: page.call(origin.get), range(200)))
    assert all(isinstance(answer, Degraded) for answer in answers)
    assert page.breaker.state == "open"
    window = page.stats().failed
    assert 5 <= window <= 5 + 8


def test_a_slow_origin_opens_it_too(origin: Origin, limit: Callable[[float], float]) -> None:
    """Answers that take too long are a failure of their own kind; while it is open callers wait for nothing."""
    page = Pipeline(
        "slow",
        Fallback(lambda error: "static copy"),
        Breaker(min_calls=5, slow=0.05, slow_rate=0.5, wait=60.0),
        classify=judge,
    )
    origin.slow = 0.1
    for _ in range(5):
        assert page.call(origin.get) == "live"
    began = time.monotonic()
    assert all(isinstance(page.call(origin.get), Degraded) for _ in range(50))
    assert time.monotonic() - began < limit(1.0), "fifty calls of a tenth of a second would take five"
    assert len(origin.arrived) == 5


# ------------------------------------------------------------------------------------------------------------- P3


@pytest.mark.parametrize("count", [1, 3])
def test_a_dead_origin_gets_a_fifth_more(origin: Origin, count: int) -> None:
    """Retries add at most 20 %, the reserve and what was saved up, counted where they arrive, however many layers."""
    clock = FakeClock()
    layers = [
        Pipeline(f"layer {number}", Retry(attempts=4, base=0.0), Budget(burst=1.0), classify=judge, clock=clock)
        for number in range(count)
    ]
    origin.answer = lambda _: (503, {}, "busy")
    call = origin.get
    for layer in layers:
        call = functools.partial(layer.idempotent.call, call)
    calls = 300
    for _ in range(calls):
        with pytest.raises(HttpError):
            call()
        clock.advance(0.01)
    seconds, saved = calls * 0.01, 1
    assert calls < len(origin.arrived) <= calls * 1.2 + seconds + saved


def test_a_slow_dependency_does_not_slow_another(origin: Origin, limit: Callable[[float], float]) -> None:
    """Sixteen threads, two dependencies: the bulkhead of the slow one refuses, and the other is as quick as before."""
    with running() as other:
        slow = Pipeline("slow", Bulkhead(4), classify=judge)
        quick = Pipeline("quick", Bulkhead(16), classify=judge)
        origin.slow = 30.0
        refused = []

        def request(_: int) -> float:
            try:
                slow.call(origin.get, 30.0)
            except Overloaded as error:
                refused.append(error)
            began = time.monotonic()
            assert quick.call(other.get) == "live"
            return time.monotonic() - began

        with ThreadPoolExecutor(16) as threads:
            stuck = [threads.submit(request, number) for number in range(4)]
            while len(origin.arrived) < 4:
                time.sleep(0.001)
            taken = list(threads.map(request, range(60)))
            assert not any(future.done() for future in stuck)
            origin.wake.set()
            assert all(future.result() < 5.0 for future in stuck)
    assert len(refused) == 60
    assert len(origin.arrived) == 4
    assert sorted(taken)[len(taken) // 2] < limit(0.25)


@pytest.mark.parametrize(
    "policies",
    [
        (Deadline(5.0), Bulkhead(2, wait=0.05)),
        (Deadline(5.0), RateLimit(4.0, burst=2), Bulkhead(2)),
        (Fallback(lambda error: "static copy"), Deadline(5.0), Bulkhead(2, wait=0.05)),
    ],
    ids=["bulkhead", "rate limit", "fallback"],
)
def test_over_capacity_nobody_hangs(origin: Origin, policies: tuple[Policy, ...]) -> None:
    """Five times what a site takes: each has the page, a marked copy of it, or 429 with Retry-After, in time."""
    pipeline = Pipeline("site", *policies, classify=judge)

    def page(_: int) -> Answer:
        try:
            found = pipeline.call(origin.get)
        except Overloaded as error:
            told = http_error(error)
            assert told is not None
            return 429, {"Retry-After": str(told.retry_after)}, "come back later"
        return (200, {}, f"{found.value}, degraded") if isinstance(found, Degraded) else (200, {}, found)

    def visit(_: int) -> tuple[str, float, float]:
        began = time.monotonic()
        try:
            found, after = site.get(), 1.0
        except HttpError as error:
            found, after = str(error.status), error.retry_after or 0.0
        return found, after, time.monotonic() - began

    with running() as site, ThreadPoolExecutor(10) as threads:
        site.answer = page
        origin.slow = 0.2
        seen = list(threads.map(visit, range(10)))
    instead = "static copy, degraded" if isinstance(policies[0], Fallback) else "429"
    assert {answer for answer, _, _ in seen} == {"live", instead}
    assert all(1 <= after < 5 for _, after, _ in seen)
    assert max(taken for _, _, taken in seen) < 4.0


# ------------------------------------------------------------------------------------------------------------- P4


def aws_error(status: int, code: str, **headers: str) -> Answer:
    body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "no"})
    kind = {"Content-Type": "application/x-amz-json-1.0", "x-amzn-RequestId": "1"}
    return status, {**kind, **{name.replace("_", "-"): value for name, value in headers.items()}}, body


@pytest.fixture
def sqs(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    made = aws.client("sqs", endpoint=origin.url, region="eu-west-1")
    yield made
    made.close()


def send(client: Any) -> Any:
    return client.send_message(QueueUrl="http://127.0.0.1/1/q", MessageBody="x")


def test_throttled_with_400_is_retried_and_not_multiplied(origin: Origin, sqs: Any) -> None:
    """`ThrottlingException` with HTTP 400: three attempts are three requests; botocore adds none of its own."""
    origin.answer = lambda _: aws_error(400, "ThrottlingException")
    queue = Pipeline("queue", Retry(attempts=3, base=0.001), classify=aws.classify)
    with pytest.raises(botocore.exceptions.ClientError):
        queue.call(send, sqs)  # not declared idempotent: a throttled request had no effect
    assert len(origin.arrived) == 3


def test_a_ready_client_keeps_its_own_retries(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's client that retries by itself is not changed: this is what multiplies, and what the docs warn of."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    origin.answer = lambda _: aws_error(400, "ThrottlingException", Retry_After="0")
    ready = boto3.session.Session(region_name="eu-west-1").client(
        "sqs", endpoint_url=origin.url, config=Config(retries={"total_max_attempts": 2, "mode": "standard"})
    )
    queue = Pipeline("queue", Retry(attempts=2, base=0.0), classify=aws.classify)
    with pytest.raises(botocore.exceptions.ClientError):
        queue.call(send, aws.client("sqs", ready))
    assert len(origin.arrived) == 4
    ready.close()


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException", "InvalidParameterValue"])
def test_what_will_not_change_is_asked_once(origin: Origin, sqs: Any, code: str) -> None:
    """A refused or malformed request: one attempt, also where it is declared idempotent."""
    origin.answer = lambda _: aws_error(403 if "Denied" in code else 400, code)
    queue = Pipeline("queue", Retry(attempts=5, base=0.001), classify=aws.classify)
    with pytest.raises(botocore.exceptions.ClientError):
        queue.idempotent.call(send, sqs)
    assert len(origin.arrived) == 1


def test_an_ambiguous_failure_is_not_repeated_unless_declared(origin: Origin, sqs: Any) -> None:
    """An internal error may have had its effect: one attempt, and three for a call that may take effect twice."""
    origin.answer = lambda _: aws_error(500, "InternalFailure")
    queue = Pipeline("queue", Retry(attempts=3, base=0.001), classify=aws.classify)
    with pytest.raises(botocore.exceptions.ClientError):
        queue.call(send, sqs)
    assert len(origin.arrived) == 1
    with pytest.raises(botocore.exceptions.ClientError):
        queue.idempotent.call(send, sqs)
    assert len(origin.arrived) == 1 + 3


def test_retry_after_is_honoured(origin: Origin, sqs: Any) -> None:
    """The origin is never asked again before the time it named; where that is too long, it is not asked again."""
    origin.answer = lambda number: aws_error(400, "ThrottlingException", Retry_After="1") if number == 1 else OK_SENT
    queue = Pipeline("queue", Retry(attempts=3, base=0.001), classify=aws.classify)
    queue.call(send, sqs)
    first, second = origin.arrived
    assert 1.0 <= second - first < 3.0
    origin.answer = lambda _: aws_error(400, "ThrottlingException", Retry_After="60")
    with pytest.raises(botocore.exceptions.ClientError):
        queue.call(send, sqs)
    assert len(origin.arrived) == 3


OK_SENT = (
    200,
    {"Content-Type": "application/x-amz-json-1.0"},
    json.dumps({"MessageId": "1", "MD5OfMessageBody": "9dd4e461268c8034f5c8564e155c67a6"}),
)


def test_http_retry_after_within_a_deadline(origin: Origin, limit: Callable[[float], float]) -> None:
    """A 429 that asks for more time than the deadline leaves goes to the caller at once, with its hint."""
    origin.answer = lambda _: (429, {"Retry-After": "5"}, "later")
    api = Pipeline("api", Deadline(limit(1.0)), Retry(attempts=3), classify=judge)
    began = time.monotonic()
    with pytest.raises((HttpError, DeadlineExceeded)):
        api.call(origin.get)
    assert time.monotonic() - began < limit(0.5)
    assert len(origin.arrived) == 1


def test_invalid_input_is_one_attempt(origin: Origin) -> None:
    """A mistake of the caller's is not repeated, sync and async."""
    seen = []

    def wrong() -> str:
        seen.append(origin.get())
        raise InvalidInput("no such order")

    async def awrong() -> str:
        return wrong()

    api = Pipeline("api", Retry(attempts=5, base=0.001))
    with pytest.raises(InvalidInput):
        api.idempotent.call(wrong)
    with pytest.raises(InvalidInput):
        asyncio.run(api.idempotent.acall(awrong))
    assert len(origin.arrived) == 2
