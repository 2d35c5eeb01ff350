"""What tells the faces of other libraries from the cache's own: a life without end, and their own errors. Pure."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

from resilient.cache import Cache
from resilient.errors import ConfigurationError, InvalidInput

__all__ = ["FOREVER", "MISSING", "options_of", "seconds_of", "their_errors"]

FOREVER: Final = 10 * 365 * 86_400.0
"""Seconds for which what "never expires" is kept. The cache itself knows no entry without an end, so that one policy of
eviction fits all of them; ten years outlive the server."""

MISSING: Any = type("Missing", (), {"__repr__": lambda _: "MISSING", "__bool__": lambda _: False, "__slots__": ()})()
"""What stands for a value where there is none; ``None`` is a value."""

_FIXED = {"clock", "target", "ttl"}
_ADDRESS = {"db", "host", "password", "port", "socket_path", "ssl", "unix_socket_path", "url", "username"}
"""What other libraries are told a server's address by."""


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    """The arguments of a cache that a face takes."""
    return frozenset(inspect.signature(Cache).parameters) - _FIXED


def seconds_of(timeout: float | None) -> float:
    """The life of a value, as the cache takes it.

    Args:
        timeout: Seconds; ``None`` is without end.

    Returns:
        Seconds; 0 where the value is not to be kept at all.

    Examples:
        >>> seconds_of(1.5), seconds_of(-1), seconds_of(None) == FOREVER
        (1.5, 0.0, True)
    """
    return FOREVER if timeout is None else min(max(0.0, float(timeout)), FOREVER)


def options_of(target: Any, given: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """The arguments of the cache behind a face: signed pickle, exact lives, and what the user says instead.

    What lives in this process nobody else can write, so that any secret does for it.

    Raises:
        ConfigurationError: An argument is named that there is not, or that is the face's own; or values on a server
            have no secret.

    Examples:
        >>> options_of("redis://127.0.0.1:6379/0", {"codec": "safe"}, "shop")
        {'namespace': 'shop', 'codec': 'safe', 'jitter': 0.0}
    """
    known = _known()
    wrong = sorted(set(given) - known)
    if wrong:
        part = _ADDRESS & {each.lower() for each in wrong}
        advice = "the address is one text: redis://user:password@host:6379/0; " if part else ""
        raise ConfigurationError(
            f"no option is called {wrong[0]!r} here", advice=f"{advice}there are: {', '.join(sorted(known))}"
        )
    options: dict[str, Any] = {"namespace": namespace, "codec": "pickle", "jitter": 0.0, **given}
    if options["codec"] == "pickle" and not options.get("secret"):
        if target is not None:
            raise ConfigurationError(
                "values are written as pickle, which runs whatever it reads, so that they must be signed",
                advice="pass secret='...', the same in every process, or codec='safe' where values are plain",
            )
        options["secret"] = secrets.token_bytes(32)
    return options


@contextmanager
def their_errors() -> Iterator[None]:
    """A value that cannot be written raises what its own methods, or pickle, have raised: callers wait for that."""
    try:
        yield
    except InvalidInput as error:
        if isinstance(error.__cause__, Exception):
            raise error.__cause__ from None
        raise
