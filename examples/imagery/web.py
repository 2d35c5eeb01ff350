"""The routes. Each hands the request to `images.Images` and its result, or its error, back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask, Response, g, jsonify, request, send_from_directory

from examples.imagery import trail
from examples.imagery.images import Images, View
from examples.imagery.model import TimelineEvent
from examples.imagery.services import Services
from resilient.errors import InvalidInput, OutcomeUnknown
from resilient.flask import Resilient, health_blueprint
from resilient.health import Health, checks

__all__ = ["create_app", "make_health"]

_STATIC = Path(__file__).parent / "static"
_TIME = 2.5
"""Seconds a request may take, all waits for parts included."""


def make_health(services: Services) -> Health:
    """What the balancer and the page are told. No fault of a shared part takes a web process out."""
    health = Health(details="always", page=True, metrics=True)  # everybody here may look: it runs on one machine
    health.add("database", checks.sqlalchemy(services.db.engine))
    health.add("replicas", checks.replicas(services.db), critical=False)
    health.add("shards", checks.shards(services.shards), critical=False)
    if services.settings.redis:
        health.add("cache", checks.redis(services.settings.redis), critical=False)
    health.add("store", checks.s3(services.bucket), critical=False)
    health.add("jobs", checks.sqs(services.jobs), critical=False)
    health.add("events", checks.sqs(services.events), critical=False)
    return health


def create_app(services: Services, health: Health | None = None) -> Flask:
    """The application.

    Args:
        services: The outside world.
        health: What is told of it; by default every part is checked.
    """
    app = Flask("imagery", static_folder=str(_STATIC), static_url_path="/static")
    images = Images(services)
    health = make_health(services) if health is None else health
    app.config["RESILIENT_DEADLINE"] = _TIME
    Resilient(app, cache=services.cache, replicas=services.db, health=health)
    app.register_blueprint(health_blueprint(health))
    app.register_error_handler(OutcomeUnknown, _ask_again)
    _follow(app)
    _routes(app, images, services)
    _show(app, services, health)
    return app


# ---------------------------------------------------------------------------------------------- around each request


def _follow(app: Flask) -> None:
    """Tell with each answer where it came from."""

    @app.before_request
    def enter() -> None:
        g.follow = trail.follow()
        g.trail = g.follow.__enter__()

    @app.after_request
    def tell(response: Response) -> Response:
        source = g.pop("source", None) or g.trail.source
        if source:
            response.headers["Imagery-Source"] = source
        return response

    @app.teardown_request
    def leave(_error: BaseException | None) -> None:
        entered = g.pop("follow", None)
        if entered is not None:
            entered.__exit__(None, None, None)


def _ask_again(_error: OutcomeUnknown) -> tuple[Response, int]:
    """Nobody knows whether a commit happened. Every route here may be repeated, so asking again is right."""
    answer = jsonify(error="outcome_unknown")
    answer.headers["Retry-After"] = "1"
    return answer, 503


def _json() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise InvalidInput("the body is a JSON object")
    return body


def _told(image: View) -> dict[str, Any]:
    shown = ("id", "owner", "title", "state", "version")
    return {name: getattr(image, name) for name in shown}


def _event(happened: TimelineEvent) -> dict[str, Any]:
    shown = ("image_id", "what", "owner", "at")
    return {name: getattr(happened, name) for name in shown}


# ---------------------------------------------------------------------------------------------------------- routes


def _routes(app: Flask, images: Images, services: Services) -> None:
    @app.post("/images")
    def create() -> tuple[Response, int]:
        body = _json()
        made = images.create(body.get("id", ""), body.get("owner", ""), body.get("title", ""))
        return jsonify(_told(made)), 201

    @app.post("/images/<image_id>/upload")
    def upload(image_id: str) -> Response:
        ticket = images.ticket(image_id, request.args.get("owner"))
        return jsonify(url=ticket.url, fields=dict(ticket.fields), token=ticket.token, expires_at=ticket.expires_at)

    @app.post("/images/<image_id>/confirm")
    def confirm(image_id: str) -> Response:
        return jsonify(_told(images.confirm(image_id, _json().get("token", ""), request.args.get("owner"))))

    @app.get("/images")
    def newest() -> Response:
        return jsonify(images=[_told(each) for each in images.newest(request.args.get("owner"))])

    @app.get("/images/<image_id>")
    def view(image_id: str) -> Response:
        return jsonify(_told(images.view(image_id, request.args.get("owner"))))

    @app.get("/images/<image_id>/result")
    def result(image_id: str) -> Response:
        link = images.link(image_id, request.args.get("owner"))
        return jsonify(url=str(link), expires_at=link.expires_at)

    @app.get("/users/<owner>/timeline")
    def timeline(owner: str) -> Response:
        g.source = services.shards.shard_for(owner)
        return jsonify(shard=g.source, events=[_event(each) for each in images.timeline(owner)])

    @app.get("/timeline")
    def timelines() -> Response:
        g.source = "all shards"
        return jsonify(events=[_event(each) for each in images.timelines()])


def _show(app: Flask, services: Services, health: Health) -> None:
    @app.get("/")
    def page() -> Response:
        return send_from_directory(_STATIC, "index.html")

    @app.get("/parts")
    def parts() -> Response:
        """What the page shows of each part: its name, how it is, and a word on why."""
        report = health.ready()
        told = [
            {"name": name, "status": each.status.value, "note": each.reason or _measured(dict(each.values))}
            for name, each in report.checks.items()
            if name not in {"replicas", "shards"}
        ]
        for node in services.db.status():
            if node.role == "replica":
                lag = "lag unknown" if node.lag is None else f"{node.lag:.1f} s behind"
                status = {"up": "pass", "down": "fail"}.get(node.state, "warn")
                told.append({"name": node.name, "status": status, "note": node.state if status == "fail" else lag})
        for shard in services.shards.status(timeout=0.3):
            alive = shard.state == "up"
            note = f"{shard.buckets} buckets" if alive else "down"
            told.append({"name": f"shard {shard.name}", "status": "pass" if alive else "fail", "note": note})
        return jsonify(checks=told)


def _measured(values: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in values.items())
