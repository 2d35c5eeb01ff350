"""Addresses of servers: one, a Cluster, or the primary that sentinels name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

from resilient.errors import ConfigurationError, needs_extra

with needs_extra("redis"):
    import redis.connection

__all__ = ["Address", "Place", "single"]

Place = tuple[str, int]
"""A host and a port; ("", 0) is the socket file that the address names."""

_FORM = re.compile(r"(redis|valkey)(s?)(?:\+(cluster|sentinel))?://([^/?#]*)/?([^?#]*)(\?[^#]*)?")
_ADVICE = (
    "write redis://host:6379/0, rediss://..., unix://..., redis+cluster://host:6379,host:6380 or "
    "redis+sentinel://host:26379,host:26380/service/0; for Valkey too"
)


def _wrong() -> ConfigurationError:
    return ConfigurationError("this is no address of a Redis server", advice=_ADVICE)


@dataclass(frozen=True)
class Address:
    """What a URL says. Its text form holds no password.

    Examples:
        >>> Address.parse("redis+cluster://:secret@a:7000,b:7001")
        Address(kind='cluster', places=(('a', 7000), ('b', 7001)), way='tcp', service='')
        >>> Address.parse("redis+sentinel://a,b:26380/shop/1").options["db"]
        1
    """

    kind: Literal["server", "cluster", "sentinel"]
    places: tuple[Place, ...]
    way: Literal["tcp", "tls", "unix"]
    service: str = ""
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    """Arguments for connections to the servers, without host and port."""
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)
    """The same for connections to the sentinels."""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL.

        Raises:
            ConfigurationError: It is none, or says something that cannot be.
        """
        try:
            return cls._parse(url)
        except (ValueError, TypeError) as error:
            raise _wrong() from error

    @classmethod
    def _parse(cls, url: str) -> Address:
        if url.startswith("unix://"):
            return cls("server", (("", 0),), "unix", "", _options(url))
        found = _FORM.fullmatch(url)
        if found is None:
            raise _wrong()
        _, secure, kind, authority, path, query = found.groups("")
        user, at, hosts = authority.rpartition("@")
        service, slash, database = path.partition("/") if kind == "sentinel" else ("", "", path)
        if kind == "sentinel" and not service:
            raise _wrong()
        base = f"redis{secure}://{user}{at}"
        options = {}
        places = []
        for host in hosts.split(","):
            options = _options(f"{base}{host}/{database if kind != 'sentinel' or slash else ''}{query}")
            port = 26379 if kind == "sentinel" else 6379
            places.append((options.pop("host", "localhost"), options.pop("port", port)))
        if kind == "cluster" and options.get("db"):
            raise ConfigurationError("a Cluster has one database, number 0")
        if kind == "" and len(places) > 1:
            raise _wrong()
        sentinels = {
            name.removeprefix("sentinel_"): options.pop(name)
            for name in ("sentinel_username", "sentinel_password")
            if name in options
        }
        if secure:
            sentinels |= {name: value for name, value in options.items() if name.startswith("ssl_")}
        way: Literal["tcp", "tls"] = "tls" if secure else "tcp"
        return cls(kind or "server", tuple(places), way, unquote(service), options, sentinels)  # type: ignore[arg-type]  # the pattern knows the kinds


def _options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]  # redis-py has no types here
    options.pop("connection_class", None)
    if options.get("decode_responses"):
        raise ConfigurationError(
            "this address asks for answers as text, and entries are bytes", advice="leave out decode_responses"
        )
    return options


def single(url: str) -> str:
    """The address of a single server in the words of redis-py.

    Raises:
        ConfigurationError: It is none, or names a Cluster or sentinels.
    """
    if Address.parse(url).kind != "server":
        raise ConfigurationError("this address names several servers, and here one is wanted")
    return re.sub(r"^valkey(s?)://", r"redis\1://", url)
