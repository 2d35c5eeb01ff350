"""Routes that are ready to be registered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from flask import Blueprint, Request, Response, abort, jsonify, request

from resilient.errors import ConfigurationError, Conflict, InvalidInput, NotFound, Refused
from resilient.flask._respond import respond
from resilient.health import Health
from resilient.health.answer import PATHS, check_mount, no_such_path, probe
from resilient.web import HttpError, http_error

if TYPE_CHECKING:
    from resilient.storage.objects import Bucket, UploadPolicy

__all__ = ["health_blueprint", "uploads_blueprint"]

Reply: TypeAlias = tuple[Response, int]


def health_blueprint(
    health: Health, *, authorize: Callable[[Request], object] | None = None, name: str = "health"
) -> Blueprint:
    """The health routes: ``/livez``, ``/readyz``, ``/startupz`` and ``/health``.

    The first three answer with one word, or as JSON to who asks for it; ``/health`` answers as
    ``application/health+json``. 200 means that traffic is welcome, 503 that it is not. ``/health/<name>`` answers a
    view or a group by its name, and ``/health/page`` and ``/health/metrics`` are there for those who may see details,
    where the `Health` was made with ``page=True`` and ``metrics=True``.

    Args:
        health: What to report.
        authorize: Says of a request whether details may be seen, by returning True; asked where the `Health` was made
            with ``details="authorized"``.
        name: The blueprint's name.

    Raises:
        ConfigurationError: That is no `Health`, or ``authorize`` no function, or an async one.

    Examples:
        >>> from flask import Flask
        >>> app = Flask("shop")
        >>> app.register_blueprint(health_blueprint(Health()), url_prefix="/internal")
        >>> app.test_client().get("/internal/health").text
        '{"status":"pass"}'
    """
    check_mount(health, authorize)
    blueprint = Blueprint(name, __name__)
    for path in PATHS:
        blueprint.add_url_rule(path, path[1:], _view(health, path, authorize), methods=["GET"])
    blueprint.add_url_rule("/health/<which>", "which", _view(health, "/health/", authorize), methods=["GET"])
    return blueprint


def _view(health: Health, path: str, authorize: Callable[[Request], object] | None) -> Callable[..., Response]:
    def view(which: str = "") -> Response:
        leave = None if authorize is None else partial(authorize, request)
        given = probe(health, path + which, request.method, request.headers.get("Accept", ""), leave)
        return respond(given or no_such_path())

    return view


# -------------------------------------------------------------------------------------------------------- uploads


class _Owner(Protocol):
    def __call__(self) -> str | None: ...


def uploads_blueprint(
    bucket: Bucket,
    policy: UploadPolicy,
    *,
    owner: _Owner,
    confirmed: Callable[[Any], Any] | None = None,
    name: str = "uploads",
) -> Blueprint:
    """Routes that let a browser upload straight to the bucket: ``POST /uploads`` and ``POST /uploads/confirm``.

    ``POST /uploads`` takes ``{"filename": "a.jpg"}`` (and ``content_type``, where the policy allows several) and
    answers 201 with a ticket: ``url``, ``fields``, ``token``, ``expires_at`` and ``key``. The browser posts the file
    there, then the token to ``POST /uploads/confirm``, which answers with ``key``, ``size``, ``content_type`` and
    ``etag`` of what it found in the bucket.

    Both take JSON only, so that a form of another site cannot use them.

    Args:
        bucket: Where uploads go.
        policy: What may be uploaded.
        owner: Returns the id of the request's user, or ``None`` where nobody is logged in; those get 401 with
            ``{"error": "unauthorized"}``. One user's
            token is refused for another.
        confirmed: Called with each confirmed object; what it returns, if anything, is the response instead.
        name: The blueprint's name.

    Raises:
        ConfigurationError: An argument is none of its kind.

    Examples:
        >>> from flask import Flask
        >>> from resilient.storage.objects import Bucket, UploadPolicy
        >>> from resilient.testing.s3 import FakeS3
        >>> photos = Bucket("photos", client=FakeS3(buckets=["photos"]), secrets=["32 random bytes"])
        >>> policy = UploadPolicy(prefix="users/{owner}/", max_bytes=1000, content_types=["image/jpeg"])
        >>> app = Flask("shop")
        >>> app.register_blueprint(uploads_blueprint(photos, policy, owner=lambda: "alice"))
        >>> app.test_client().post("/uploads", json={"filename": "a.jpg"}).status_code
        201
    """
    if not hasattr(bucket, "presign_post") or not hasattr(policy, "max_bytes"):
        raise ConfigurationError(
            f"uploads take a Bucket and an UploadPolicy, not a {type(bucket).__name__} and a {type(policy).__name__}",
            advice="write uploads_blueprint(bucket, policy, owner=...)",
        )
    if not callable(owner):
        raise ConfigurationError("owner= is a function that returns the id of the request's user, or None")
    blueprint = Blueprint(name, __name__)

    @blueprint.post("/uploads")
    def begin() -> Reply:
        user, body = _user(owner), _body()
        kind = _text(body, "content_type") if "content_type" in body else None
        ticket = bucket.presign_post(policy, owner=user, filename=_text(body, "filename"), content_type=kind)
        answer = {"url": ticket.url, "fields": dict(ticket.fields), "token": ticket.token}
        return jsonify(**answer, expires_at=ticket.expires_at, key=ticket.key), 201

    @blueprint.post("/uploads/confirm")
    def confirm() -> Any:
        user, body = _user(owner), _body()
        stored = bucket.confirm(_text(body, "token"), owner=user)
        said = confirmed(stored) if confirmed is not None else None
        if said is not None:
            return said
        found = {"key": stored.key, "size": stored.size, "content_type": stored.content_type, "etag": stored.etag}
        return jsonify(**found), 200

    for kind in (InvalidInput, NotFound, Refused, Conflict):
        blueprint.register_error_handler(kind, _refuse)
    return blueprint


def _user(owner: _Owner) -> str:
    user = owner()
    if user is None:
        abort(respond(HttpError(401, "unauthorized").answer()))
    return user


def _body() -> dict[str, Any]:
    try:
        body = request.get_json()  # other content types: 415 or, with Flask below 2.1, 400
    except RecursionError:
        raise InvalidInput("the body is nested too deep") from None
    if not isinstance(body, dict):
        raise InvalidInput("the body is a JSON object")
    return body


def _text(body: dict[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str):
        raise InvalidInput(f"{field} is missing or no text")
    return value


def _refuse(error: Exception) -> Response:
    found = http_error(error)
    if found is None:
        raise error
    return respond(found.answer())
