"""The handler for AWS Lambda, with the events that its callers send."""

from __future__ import annotations

import json

import pytest

from resilient.health import Health, Result
from resilient.web import awslambda


def alb(path: str, method: str = "GET", *, multi: bool = False, **headers: str):
    """An event of an ALB target group, with single or multi-value headers."""
    given = {"user-agent": "ELB-HealthChecker/2.0", **headers}
    told = {"multiValueHeaders": {name: [value] for name, value in given.items()}} if multi else {"headers": given}
    about = {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/shop/1"}}
    return {
        "requestContext": about,
        "httpMethod": method,
        "path": path,
        "queryStringParameters": {},
        "body": "",
        "isBase64Encoded": False,
        **told,
    }


def rest(path: str, method: str = "GET", **headers: str):
    """An event of API Gateway, payload format 1.0."""
    about = {"httpMethod": method, "path": path, "stage": "prod"}
    return {
        "version": "1.0",
        "requestContext": about,
        "httpMethod": method,
        "path": path,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
    }


def url(path: str, method: str = "GET", **headers: str):
    """An event of API Gateway, payload format 2.0, or of a function URL."""
    about = {"http": {"method": method, "path": path, "protocol": "HTTP/1.1"}}
    return {"version": "2.0", "rawPath": path, "rawQueryString": "", "headers": headers, "requestContext": about}


def staged(path: str, method: str = "GET", **headers: str):
    """An event of API Gateway, payload format 2.0, of a stage with a name."""
    event = url(f"/prod{path}", method, **headers)
    event["requestContext"]["stage"] = "prod"
    return event


def unstaged(path: str, method: str = "GET", **headers: str):
    """The same of the default stage, which has no place in the path."""
    event = url(path, method, **headers)
    event["requestContext"]["stage"] = "$default"
    return event


EVENTS = [alb, rest, url, staged, unstaged]


@pytest.mark.parametrize("event", EVENTS)
def test_the_routes_answer_as_over_wsgi(event):
    """One word, JSON where it is asked for, 404, 405, and nothing may keep the answer."""
    handler = awslambda.health(Health())
    told = handler(event("/readyz"), None)
    assert (told["statusCode"], told["statusDescription"], told["body"]) == (200, "200 OK", "pass\n")
    assert (told["headers"]["Cache-Control"], told["isBase64Encoded"]) == ("no-store", False)
    assert handler(event("/health"), None)["body"] == '{"status":"pass"}'
    assert handler(event("/livez", Accept="application/json"), None)["body"] == '{"status":"pass"}'
    assert handler(event("/nowhere"), None)["statusCode"] == 404
    assert handler(event("/readyz", "POST"), None)["statusCode"] == 405
    json.dumps(told)  # what Lambda does with it


def test_a_stage_is_only_taken_from_where_it_stands():
    """A path that merely begins like the stage's name is one of the function's own."""
    own = awslambda.health(Health(), otherwise=lambda *_: "mine")
    event = staged("")
    for path in ("/production/readyz", "/prodreadyz", "/prod", "/readyz/prod"):
        event["rawPath"] = path
        assert own(event, None) == "mine"
    event["rawPath"] = "/readyz"  # a domain of one's own is mapped to the stage and does not name it
    assert own(event, None)["body"] == "pass\n"


@pytest.mark.parametrize("event", EVENTS)
def test_head_gets_no_body(event):
    """As over every other mount."""
    told = awslambda.health(Health())(event("/readyz", "HEAD"), None)
    assert (told["statusCode"], told["body"], told["headers"]["Content-Length"]) == (200, "", "5")


def test_a_failing_instance_answers_503():
    """With the line that an ALB wants."""
    health = Health()
    health.add("disk", lambda: False)
    told = awslambda.health(health)(alb("/readyz"), None)
    assert (told["statusCode"], told["statusDescription"]) == (503, "503 Service Unavailable")


def test_multi_value_headers_are_answered_alike():
    """A target group that sends them takes no others."""
    told = awslambda.health(Health())(alb("/livez", multi=True, accept="application/json"), None)
    assert told["multiValueHeaders"]["Content-Type"] == ["application/health+json"]
    assert "headers" not in told


@pytest.mark.parametrize(
    "event",
    [
        "text",
        None,
        [],
        {},
        {"Records": [{"body": "{}"}]},
        {"path": 1, "httpMethod": "GET"},
        {"rawPath": "/readyz", "requestContext": {"http": "GET"}},
        {"rawPath": "/readyz", "requestContext": ["http"]},
        {"rawPath": ["/readyz"], "requestContext": {"http": {"method": "GET"}, "stage": 3}},
        {"path": "/orders", "httpMethod": "GET", "headers": ["accept"], "multiValueHeaders": "accept"},
        {"path": "/orders", "httpMethod": "GET", "headers": {1: 2}, "multiValueHeaders": {"Accept": None}},
    ],
)
def test_other_events_go_to_the_functions_own_handler(event):
    """Of whatever kind they are; without one they are answered with 404."""
    seen = []
    own = awslambda.health(Health(), otherwise=lambda *given: seen.append(given) or "mine")
    assert own(event, "context") == "mine"
    assert seen == [(event, "context")]
    assert awslambda.health(Health())(event, None)["statusCode"] == 404


def test_other_paths_go_to_the_functions_own_handler():
    """And probes do not."""
    own = awslambda.health(Health(), otherwise=lambda *_: "mine")
    assert own(alb("/orders"), None) == "mine"
    assert own(alb("/readyz"), None)["body"] == "pass\n"


@pytest.mark.parametrize(("said", "seen"), [(True, True), (False, False), ("yes", False)])
def test_details_are_for_those_who_may_see_them(said, seen):
    """Whom authorize accepts by returning True."""
    health = Health(details="authorized")
    health.add("jobs", lambda: Result.warn("deep", depth=7))
    told = awslambda.health(health, authorize=lambda _: said)(alb("/health"), None)
    assert ("jobs:depth" in told["body"]) is seen
