"""Health for a function of AWS Lambda behind a load balancer, an HTTP API or its own URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from resilient.health import Health
from resilient.health.answer import Answer, asked, may_see, no_such_path, reply, wrong_method

__all__ = ["health"]

Event: TypeAlias = Mapping[str, Any]
Handler: TypeAlias = Callable[[Any, Any], Any]
Authorize: TypeAlias = Callable[[Event], object]


def health(health: Health, *, authorize: Authorize | None = None, otherwise: Handler | None = None) -> Handler:
    r"""A Lambda handler that answers the health routes.

    It understands the events of an ALB target group (single and multi-value headers), of API Gateway (both payload
    formats) and of function URLs. Between two calls a function is frozen, so nothing is run in the background; keep the
    deadline of the `Health` below the time limit of the function.

    Args:
        health: What to report.
        authorize: Says of an event whether details may be seen, by returning True; asked where the `Health` was made
            with ``details="authorized"``.
        otherwise: The function's own handler, which gets every other event, of whatever kind. Without one they are
            answered with 404.

    Examples:
        >>> handler = health(Health())
        >>> told = handler({"requestContext": {"elb": {}}, "httpMethod": "GET", "path": "/readyz", "headers": {}}, None)
        >>> told["statusCode"], told["statusDescription"], told["body"]
        (200, '200 OK', 'pass\n')
    """

    def handler(event: Any, context: Any) -> Any:
        given = _probe(health, event, authorize)
        if given is None:
            return _told(no_such_path(), event) if otherwise is None else otherwise(event, context)
        return _told(given, event)

    return handler


def _probe(health: Health, event: Any, authorize: Authorize | None) -> Answer | None:
    if not isinstance(event, Mapping):
        return None
    about = event.get("requestContext")
    http = about.get("http", {}) if isinstance(about, Mapping) else {}
    path, method = event.get("path", event.get("rawPath")), event.get("httpMethod", http.get("method"))
    if not isinstance(path, str) or not isinstance(method, str):
        return None
    question = asked(health, path, _accept(event))
    if question is None:
        return None
    if method not in {"GET", "HEAD"}:
        return wrong_method()
    details = question.form != "word" and may_see(health.details, lambda: authorize is not None and authorize(event))
    return reply(health, question, details=details)


def _accept(event: Event) -> str:
    for name, value in (event.get("headers") or {}).items():
        if name.lower() == "accept":
            return str(value)
    for name, values in (event.get("multiValueHeaders") or {}).items():
        if name.lower() == "accept":
            return ", ".join(values)
    return ""


def _told(given: Answer, event: Any) -> dict[str, Any]:
    """The response, in the form that fits where the event came from."""
    told = {
        "statusCode": given.status,
        "statusDescription": given.line,
        "isBase64Encoded": False,
        "body": given.body.decode(),
    }
    if isinstance(event, Mapping) and event.get("multiValueHeaders") is not None and event.get("headers") is None:
        return {**told, "multiValueHeaders": {name: [value] for name, value in given.headers}}
    return {**told, "headers": dict(given.headers)}
