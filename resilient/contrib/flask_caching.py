"""The cache as a backend of Flask-Caching.

    app.config["CACHE_TYPE"] = "resilient.contrib.flask_caching.ResilientCache"
    app.config["CACHE_REDIS_URL"] = "redis://127.0.0.1:6379/0"

Needs ``Flask-Caching``, and the extra ``redis`` for a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask

from resilient.contrib.cachelib import ResilientCache as _Plain
from resilient.errors import ConfigurationError, MissingExtra

try:
    from flask_caching.backends.base import BaseCache
except ImportError as error:
    raise MissingExtra("Flask-Caching", "flask_caching") from error

__all__ = ["ResilientCache"]

_PARTS = ("CACHE_REDIS_HOST", "CACHE_REDIS_SENTINELS", "CACHE_REDIS_CLUSTER")
"""How Flask-Caching's own backends are told where a server is."""


class ResilientCache(_Plain, BaseCache):
    """A backend for ``CACHE_TYPE``; what it does is told at `resilient.contrib.cachelib.ResilientCache`.

    Of the configuration it reads ``CACHE_REDIS_URL`` (without it values live in this process), ``CACHE_KEY_PREFIX``,
    ``CACHE_DEFAULT_TIMEOUT``, ``CACHE_THRESHOLD`` (how many values an in-process cache holds) and ``CACHE_OPTIONS``,
    which are further arguments. Values are signed with the application's ``SECRET_KEY`` where ``CACHE_OPTIONS`` names
    no ``secret``.

    Raises:
        ConfigurationError: An option is wrong, values on a server have no secret, or a host is named by itself.
    """

    @classmethod
    def factory(cls, app: Flask, config: Mapping[str, Any], args: list[Any], kwargs: dict[str, Any]) -> ResilientCache:
        """What Flask-Caching calls."""
        target = config.get("CACHE_REDIS_URL")
        parts = [key for key in _PARTS if config.get(key)]
        if not target and not args and parts:
            raise ConfigurationError(
                f"{parts[0]} is set, and no CACHE_REDIS_URL: each process would keep its own values",
                advice="write CACHE_REDIS_URL = 'redis://user:password@host:6379/0'",
            )
        options = {"namespace": "flask", **kwargs}
        if config.get("CACHE_KEY_PREFIX"):
            options.setdefault("key_prefix", config["CACHE_KEY_PREFIX"])
        if not target and config.get("CACHE_THRESHOLD"):
            options.setdefault("size", config["CACHE_THRESHOLD"])
        if options.get("codec", "pickle") == "pickle" and app.secret_key:
            old = app.config.get("SECRET_KEY_FALLBACKS") or ()
            options.setdefault("secret", [app.secret_key, *old])
        return cls(*args, **options) if args else cls(target or None, **options)
