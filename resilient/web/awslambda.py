"""Health for a function of AWS Lambda behind a load balancer, an HTTP API or its own URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from resilient.health import Health
from resilient.health.answer import Answer, check_mount, no_such_path, probe

__all__ = ["health"]

Event: TypeAlias = Mapping[str, Any]
Handler: TypeAlias = Callable[[Any, Any], Any]
Authorize: TypeAlias = Callable[[Event], object]


def health(health: Health, *, authorize: Authorize | None = None, otherwise: Handler | None = None) -> Handler:
    r"""A Lambda handler that answers the health routes.

    It understands the events of an ALB target group (single and multi-value headers), of API Gateway (both payload
    formats; the name of a stage in front of the path is taken away) and of function URLs. Between two calls a function
    is frozen, so nothing is run in the background; keep the deadline of the `Health` below the time limit of the
    function.

    Args:
        health: What to report.
        authorize: Says of an event whether details may be seen, by returning True; asked where the `Health` was made
            with ``details="authorized"``.
        otherwise: The function's own handler, which gets every other event, of whatever kind. Without one they are
            answered with 404.

    Raises:
        ConfigurationError: That is no `Health`, or ``authorize`` no function, or an async one.

    Examples:
        >>> handler = health(Health())
        >>> told = handler({"requestContext": {"elb": {}}, "httpMethod": "GET", "path": "/readyz", "headers": {}}, None)
        >>> told["statusCode"], told["statusDescription"], told["body"]
        (200, '200 OK', 'pass\n')
    """
    check_mount(health, authorize)

    def handler(event: Any, context: Any) -> Any:
        request = _read(event)
        leave = None if authorize is None else partial(authorize, event)
        given = None if request is None else probe(health, *request, leave)
        if given is None and otherwise is not None:
            return otherwise(event, context)
        return _told(given or no_such_path(), event)

    return handler


def _read(event: Any) -> tuple[str, str, str] | None:
    """The path, the method and the ``Accept`` header of a request; ``None`` where the event is something else."""
    about = _mapping(_mapping(event).get("requestContext"))
    path = _mapping(event).get("path", _below_stage(event, about.get("stage")))
    method = _mapping(event).get("httpMethod", _mapping(about.get("http")).get("method"))
    return (path, method, _accept(event)) if isinstance(path, str) and isinstance(method, str) else None


def _below_stage(event: Any, stage: object) -> Any:
    """The path in payload format 2.0, which begins with the stage unless that is the default one."""
    path = _mapping(event).get("rawPath")
    if not isinstance(path, str) or stage == "$default":
        return path
    rest = path.removeprefix(f"/{stage}")
    return rest if rest.startswith("/") else path


def _accept(event: Any) -> str:
    for name, value in _mapping(_mapping(event).get("headers")).items():
        if str(name).lower() == "accept":
            return str(value)
    for name, values in _mapping(_mapping(event).get("multiValueHeaders")).items():
        if str(name).lower() == "accept":
            return ", ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)
    return ""


def _mapping(value: object) -> Mapping[Any, Any]:
    """A value where it is a mapping, and an empty one where it is not: events come in every shape."""
    return value if isinstance(value, Mapping) else {}


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
