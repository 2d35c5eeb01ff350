"""The extension object, which holds nothing of any application: that is in ``app.extensions["resilient"]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from flask import Flask, Response, current_app

from resilient import policy
from resilient.errors import ConfigurationError
from resilient.flask._commands import group
from resilient.flask._respond import respond
from resilient.health import Health
from resilient.web import http_error, wsgi
from resilient.web._errors import MAPPED
from resilient.web._token import OpensScope

__all__ = ["Resilient", "Settings", "State"]

_PREFIX = "RESILIENT_"


@dataclass(frozen=True, slots=True)
class Settings:
    """What an application's configuration says, read once by `Resilient.init_app`.

    Args:
        deadline: ``RESILIENT_DEADLINE``: seconds that the calls of one request may take together; ``None``: no limit.
        map_errors: ``RESILIENT_MAP_ERRORS``: whether errors of this library become responses with a fitting status.
    """

    deadline: float | None = None
    map_errors: bool = True

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Settings:
        """Read and check the keys that begin with ``RESILIENT_``. Raises ConfigurationError."""
        known = {f"{_PREFIX}{name.upper()}": name for name in cls.__slots__}
        unknown = sorted(key for key in config if key.startswith(_PREFIX) and key not in known)
        if unknown:
            raise ConfigurationError(
                f"the configuration has unknown keys: {', '.join(unknown)}", advice=f"known are {', '.join(known)}"
            )
        found = cls(**{name: config[key] for key, name in known.items() if key in config})
        if found.deadline is not None and policy.deadline(found.deadline).seconds == 0:
            raise ConfigurationError("RESILIENT_DEADLINE is more than 0 seconds, or None for no limit")
        if not isinstance(found.map_errors, bool):
            raise ConfigurationError("RESILIENT_MAP_ERRORS is True or False")
        return found


@dataclass(frozen=True, slots=True)
class State:
    """What the extension keeps for one application, in ``app.extensions["resilient"]``.

    Args:
        settings: Its settings.
        cache: The cache given to `Resilient`.
        replicas: The replica set given to `Resilient`.
        health: The health given to `Resilient`.
        sessions: The sessions given to `Resilient`.
        assets: The assets given to `Resilient`.
    """

    settings: Settings
    cache: Any = None
    replicas: Any = None
    health: Health | None = None
    sessions: Any = None
    assets: Any = None


class Resilient:
    """Opens a scope for each request, may bound it by a deadline, and turns this library's errors into responses.

    One object serves any number of applications. In each request a user reads what they wrote before (see
    `resilient.web.wsgi.Middleware`), whichever replica answers.

    Errors become JSON with one word: `Unavailable` 503 with ``Retry-After``, `DeadlineExceeded` 504, `NotFound` 404,
    `Conflict` 409, `Refused` 403, `InvalidInput` 400. ``RESILIENT_MAP_ERRORS = False`` leaves them alone; a handler of
    the application's own for one of them always wins.

    Args:
        app: An application to set up at once; else call `init_app`.
        cache: A `resilient.cache.Cache`, found again as ``Resilient.cache``.
        replicas: A `resilient.storage.replicas.ReplicaSet`, whose scope each request opens.
        health: A `resilient.health.Health`, for ``flask resilient health``. Its routes are mounted with
            `health_blueprint`.
        sessions: A `Sessions`, which becomes the application's ``session_interface``.
        assets: An `Assets`, which serves them and gives templates ``asset_url``.

    Raises:
        ConfigurationError: The application was set up before, a part is none, or a ``RESILIENT_*`` key is unknown or
            wrong.

    Examples:
        >>> from flask import Flask
        >>> resilient = Resilient()
        >>> app = Flask("shop")
        >>> app.config["RESILIENT_DEADLINE"] = 2.0
        >>> resilient.init_app(app)
        >>> app.extensions["resilient"].settings.deadline
        2.0
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        cache: Any = None,
        replicas: OpensScope | None = None,
        health: Any = None,
        sessions: Any = None,
        assets: Any = None,
    ) -> None:
        self._cache = cache
        self._replicas = replicas
        self._health = health
        self._sessions = sessions
        self._assets = assets
        _check_parts(cache, replicas, health, sessions, assets)
        if app is not None:
            self.init_app(app)

    def init_app(
        self,
        app: Flask,
        *,
        cache: Any = None,
        replicas: OpensScope | None = None,
        health: Health | None = None,
        sessions: Any = None,
        assets: Any = None,
    ) -> None:
        """Set up an application. Parts given here are for this application, instead of those of the extension."""
        if "resilient" in app.extensions:
            raise ConfigurationError(f"the application {app.name!r} is set up already")
        state = State(
            Settings.read(app.config),
            cache or self._cache,
            replicas or self._replicas,
            health or self._health,
            sessions or self._sessions,
            assets or self._assets,
        )
        _check_parts(state.cache, state.replicas, state.health, state.sessions, state.assets)
        app.extensions["resilient"] = state
        if state.sessions is not None:
            app.session_interface = state.sessions
        if state.assets is not None:
            state.assets.init_app(app)
        mounted: Any = wsgi.Middleware(app.wsgi_app, replicas=state.replicas, deadline=state.settings.deadline)
        app.wsgi_app = mounted  # type: ignore[method-assign]  # Flask's documented way to add a middleware
        if state.settings.map_errors:
            taken = app.error_handler_spec[None][None]
            for kind in MAPPED:
                if kind not in taken:
                    app.register_error_handler(kind, _told)
        app.cli.add_command(group)

    @property
    def state(self) -> State:
        """What belongs to the running application. Raises ConfigurationError where it was not set up."""
        found = current_app.extensions.get("resilient")
        if found is None:
            raise ConfigurationError(
                f"the application {current_app.name!r} is not set up", advice="call Resilient.init_app(app)"
            )
        return cast("State", found)

    @property
    def cache(self) -> Any:
        """The running application's cache."""
        return self.state.cache

    @property
    def replicas(self) -> Any:
        """The running application's replica set."""
        return self.state.replicas

    @property
    def health(self) -> Health | None:
        """The running application's health."""
        return self.state.health

    @property
    def sessions(self) -> Any:
        """The running application's `Sessions`; ``None`` where it was given none."""
        return self.state.sessions

    @property
    def assets(self) -> Any:
        """The running application's `Assets`; ``None`` where it was given none."""
        return self.state.assets


def _check_parts(cache: Any, replicas: Any, health: Any, sessions: Any, assets: Any) -> None:
    """Refuse what is no such part, most often an address instead of the object that is made with it."""
    for name, part, needed, made in (
        ("cache", cache, "lazy", "Cache(url)"),
        ("replicas", replicas, "scope", "ReplicaSet(url, [url])"),
        ("health", health, "report", "Health()"),
        ("sessions", sessions, "open_session", "Sessions(url)"),
        ("assets", assets, "url_for", "Assets(folder)"),
    ):
        if part is not None and not hasattr(part, needed):
            raise ConfigurationError(
                f"{name}= of the Flask extension is a {type(part).__name__}", advice=f"write {name}={made}"
            )


def _told(error: Exception) -> Response:
    found = http_error(error)
    if found is None:
        raise error
    return respond(found.answer())
