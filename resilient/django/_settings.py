"""``settings.RESILIENT``: read when it is needed, read again when a test changes it, checked by ``manage.py check``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from django import conf
from django.core import checks
from django.core.signals import setting_changed

from resilient import policy
from resilient.errors import ConfigurationError
from resilient.health import Health

__all__ = ["Options", "options", "problems"]

_KNOWN = ("AUTHORIZE", "DEADLINE", "HEALTH", "MAP_ERRORS", "REPLICAS")
_HEALTH_MIDDLEWARE = "resilient.django.middleware.HealthMiddleware"


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


def problems(**_: object) -> list[checks.CheckMessage]:
    """What is wrong with the settings, for ``manage.py check``."""
    try:
        options()
    except ConfigurationError as error:
        return [checks.Error(error.message, hint=error.advice, id="resilient.E001")]
    middleware = list(getattr(conf.settings, "MIDDLEWARE", ()))
    if _HEALTH_MIDDLEWARE not in middleware:
        return []
    found: list[checks.CheckMessage] = []
    if options().health is None:
        hint = "set RESILIENT['HEALTH'] to a resilient.health.Health, or to where it is: 'module:attr'"
        found.append(checks.Error("HealthMiddleware has nothing to report", hint=hint, id="resilient.E002"))
    if middleware[0] != _HEALTH_MIDDLEWARE:
        hint = "put it first, or probes may be refused for their host or redirected to https"
        found.append(checks.Warning("HealthMiddleware is not the first middleware", hint=hint, id="resilient.W001"))
    return found
