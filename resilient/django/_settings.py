"""``settings.RESILIENT``: read when it is needed, and read again when a test changes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any

from django import conf
from django.core.signals import setting_changed

from resilient import policy
from resilient.arguments import is_name
from resilient.errors import ConfigurationError
from resilient.health import Health

__all__ = ["CACHE", "Options", "SessionOptions", "options", "session_options"]

_KNOWN = ("AUTHORIZE", "DEADLINE", "HEALTH", "MAP_ERRORS", "REPLICAS", "SESSIONS")
_KNOWN_OF_SESSIONS = ("CONNECT_TIMEOUT", "LOCATION", "NAMESPACE", "SLIDING", "TIMEOUT")
CACHE = "resilient.django.cache.Cache"
"""What ``CACHES`` calls the backend."""


@dataclass(frozen=True, slots=True)
class Options:
    """What ``settings.RESILIENT`` says. Objects may be given themselves or written ``module:attr``.

    Args:
        health: ``HEALTH``: what `resilient.django.middleware.HealthMiddleware` reports.
        authorize: ``AUTHORIZE``: says of a request whether the details of health may be seen, by returning True.
        replicas: ``REPLICAS``: whose scope each request opens.
        deadline: ``DEADLINE``: seconds that the calls of one request may take together.
        map_errors: ``MAP_ERRORS``: whether errors of this library become responses with a fitting status.
    """

    health: Health | None = None
    authorize: Callable[[Any], object] | None = None
    replicas: Any = None
    deadline: float | None = None
    map_errors: bool = True


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What ``settings.RESILIENT["SESSIONS"]`` says of the session engine.

    Args:
        location: ``LOCATION``: the address of the server; by default that of the cache ``SESSION_CACHE_ALIAS``, where
            it is one of ours. Without any, sessions live in this process.
        namespace: ``NAMESPACE``: what the sessions' keys begin with there.
        sliding: ``SLIDING``: whether each use makes a session live on; by default ``SESSION_SAVE_EVERY_REQUEST``.
        limits: ``CONNECT_TIMEOUT`` and ``TIMEOUT`` in seconds, by their names in `resilient.cache.Cache`.
    """

    location: str | None = None
    namespace: str = "django"
    sliding: bool = False
    limits: Mapping[str, Any] = field(default_factory=dict)


def session_options() -> SessionOptions:
    """Read the settings of sessions. Raises ConfigurationError."""
    given = (getattr(conf.settings, "RESILIENT", None) or {}).get("SESSIONS", {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            "RESILIENT['SESSIONS'] is a dict", advice="write {'LOCATION': 'redis://127.0.0.1:6379/0'}"
        )
    unknown = sorted(map(str, set(given) - set(_KNOWN_OF_SESSIONS)))
    if unknown:
        raise ConfigurationError(
            f"RESILIENT['SESSIONS'] has unknown keys: {', '.join(unknown)}",
            advice=f"known are {', '.join(_KNOWN_OF_SESSIONS)}",
        )
    location, namespace = given.get("LOCATION", _cache_location()), given.get("NAMESPACE", "django")
    sliding = given.get("SLIDING", conf.settings.SESSION_SAVE_EVERY_REQUEST)
    if location is not None and (not isinstance(location, str) or "://" not in location):
        raise ConfigurationError("RESILIENT['SESSIONS']['LOCATION'] is an address, such as redis://127.0.0.1:6379/0")
    if not is_name(namespace):
        raise ConfigurationError("RESILIENT['SESSIONS']['NAMESPACE'] is a word of letters, digits, '_', '-' and '.'")
    if not isinstance(sliding, bool):
        raise ConfigurationError("RESILIENT['SESSIONS']['SLIDING'] is True or False")
    limits = {key.lower(): given[key] for key in ("CONNECT_TIMEOUT", "TIMEOUT") if key in given}
    return SessionOptions(location, namespace, sliding, limits if location else {})


def _cache_location() -> str | None:
    """Where the cache of sessions is, if it is on a server and one of ours."""
    cache = conf.settings.CACHES.get(conf.settings.SESSION_CACHE_ALIAS, {})
    given: Any = cache.get("LOCATION", "")
    location = given[0] if isinstance(given, list | tuple) and len(given) == 1 else given
    ours = cache.get("BACKEND") == CACHE and isinstance(location, str) and "://" in location
    return str(location) if ours else None


@lru_cache(maxsize=1)
def options() -> Options:
    """Read the settings. Raises ConfigurationError."""
    given = getattr(conf.settings, "RESILIENT", {})
    if not isinstance(given, Mapping):
        raise ConfigurationError("settings.RESILIENT is a dict")
    unknown = sorted(set(given) - set(_KNOWN))
    if unknown:
        raise ConfigurationError(
            f"settings.RESILIENT has unknown keys: {', '.join(map(str, unknown))}",
            advice=f"known are {', '.join(_KNOWN)}",
        )
    found = {key: _found(key, given.get(key)) for key in ("HEALTH", "AUTHORIZE", "REPLICAS")}
    if found["HEALTH"] is not None and not isinstance(found["HEALTH"], Health):
        raise ConfigurationError(f"RESILIENT['HEALTH'] is a {type(found['HEALTH']).__name__}, not a Health")
    if found["AUTHORIZE"] is not None and not callable(found["AUTHORIZE"]):
        raise ConfigurationError("RESILIENT['AUTHORIZE'] is no function")
    if inspect.iscoroutinefunction(found["AUTHORIZE"]):
        advice = "write a plain function; under ASGI it is asked on a thread"
        raise ConfigurationError("RESILIENT['AUTHORIZE'] is async, and nothing awaits it", advice=advice)
    if found["REPLICAS"] is not None and not hasattr(found["REPLICAS"], "scope"):
        raise ConfigurationError("RESILIENT['REPLICAS'] is no replica set")
    deadline = given.get("DEADLINE")
    if deadline is not None and policy.deadline(deadline).seconds == 0:
        raise ConfigurationError("RESILIENT['DEADLINE'] is more than 0 seconds, or None for no limit")
    map_errors = given.get("MAP_ERRORS", True)
    if not isinstance(map_errors, bool):
        raise ConfigurationError("RESILIENT['MAP_ERRORS'] is True or False")
    return Options(found["HEALTH"], found["AUTHORIZE"], found["REPLICAS"], deadline, map_errors)


def _found(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    module, _, attribute = value.replace(":", ".").rpartition(".")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"RESILIENT[{key!r}] names {value!r}, which is not there") from error


def _changed(*, setting: str, **_: object) -> None:
    if setting == "RESILIENT":
        options.cache_clear()


setting_changed.connect(_changed)
