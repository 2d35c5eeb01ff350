r"""The Flask extension: one `Resilient`, sessions, pages and assets that HTTP caches may keep, health, uploads.

    >>> from flask import Flask
    >>> from resilient.flask import Resilient, health_blueprint
    >>> from resilient.health import Health
    >>> app, health = Flask("shop"), Health()
    >>> extension = Resilient(app, health=health)
    >>> app.register_blueprint(health_blueprint(health))
    >>> app.test_client().get("/readyz").text
    'pass\n'

Needs the extra ``flask``.
"""

from resilient.errors import needs_extra

with needs_extra("flask"):
    import flask as _flask  # noqa: F401 - only to say which extra is missing

from resilient.flask._assets import Assets
from resilient.flask._blueprints import health_blueprint, uploads_blueprint
from resilient.flask._caching import http_cached
from resilient.flask._extension import Resilient, Settings, State
from resilient.flask._sessions import ServerSession, Sessions

__all__ = [
    "Assets",
    "Resilient",
    "ServerSession",
    "Sessions",
    "Settings",
    "State",
    "health_blueprint",
    "http_cached",
    "uploads_blueprint",
]
