"""The routes: a list of people, a page for each, and a form that changes it."""

from __future__ import annotations

import os

import sqlalchemy as sa
from flask import Flask, redirect, render_template_string, request, url_for
from sqlalchemy.orm import sessionmaker
from werkzeug.wrappers import Response

from examples.people.people import Base, People
from resilient.cache import Cache
from resilient.flask import Resilient

__all__ = ["create_app"]

_HEAD = """<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>People</title>
<style>:root{color-scheme:light dark}
body{font:1rem/1.5 system-ui;max-width:40rem;margin:2rem auto;padding:0 1rem}</style>
"""
_LIST = (
    _HEAD
    + """<h1>People</h1><ul>{% for each in people %}
<li><a href="{{ url_for('page', firstname=each.firstname, lastname=each.lastname) }}">{{ each.firstname }}
{{ each.lastname }}</a>{% endfor %}</ul>"""
)
_PAGE = (
    _HEAD
    + """<h1>{{ firstname }} {{ lastname }}</h1><p>{{ found.value }}</p>
<p><small>from {{ found.source }}, {{ "%.1f"|format(found.age) }} s old{{ ", stale" if found.stale }}; the cache is
{{ state }}</small><form method="post"><textarea name="about" rows="4" cols="40">{{ found.value }}</textarea>
<p><button>Save</button></form><p><a href="{{ url_for('everybody') }}">everybody</a>"""
)


def create_app(people: People | None = None) -> Flask:
    """The application.

    Args:
        people: What it shows; by default a table of some people in ``people.db``, cached on ``REDIS_URL`` or, without
            one, in this process.
    """
    shown = _connect() if people is None else people
    app = Flask("people")
    app.config["RESILIENT_DEADLINE"] = 5.0
    Resilient(app, cache=shown.cache)

    @app.get("/")
    def everybody() -> str:
        return render_template_string(_LIST, people=shown.names())

    @app.get("/<firstname>/<lastname>")
    def page(firstname: str, lastname: str) -> str:
        found, state = shown.about(firstname, lastname), shown.cache.stats().state
        return render_template_string(_PAGE, firstname=firstname, lastname=lastname, found=found, state=state)

    @app.post("/<firstname>/<lastname>")
    def save(firstname: str, lastname: str) -> Response:
        shown.tell(firstname, lastname, request.form["about"])
        return redirect(url_for("page", firstname=firstname, lastname=lastname), 303)

    return app


def _connect() -> People:
    engine = sa.create_engine(os.environ.get("DATABASE_URL", "sqlite:///people.db"))
    Base.metadata.create_all(engine)
    people = People(sessionmaker(engine), Cache(os.environ.get("REDIS_URL"), namespace="people", lease=15))
    if not people.names():
        for firstname, lastname in (("Ada", "Lovelace"), ("Grace", "Hopper"), ("Byron", "Lovelace")):
            people.tell(firstname, lastname, f"{firstname} has not been written about yet.")
    return people
