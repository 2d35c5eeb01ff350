"""Commands into bytes and bytes into replies; with hiredis where it is installed, else with redis-py's own parser."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from resilient.errors import needs_extra
from resilient.wire.redis._commands import Argument

with needs_extra("redis"):
    import redis.exceptions

hiredis: Any
try:
    hiredis = importlib.import_module("hiredis")
except ImportError:  # redis-py does without it too, slower
    hiredis = None

__all__ = ["ROOM", "UNFINISHED", "new_reader", "pack", "pack_any", "pack_many", "refined"]

_OF_CLUSTERS: dict[str, Callable[[str], Exception]] = {
    "MOVED": redis.exceptions.MovedError,
    "ASK": redis.exceptions.AskError,
    "CLUSTERDOWN": redis.exceptions.ClusterDownError,
    "TRYAGAIN": redis.exceptions.TryAgainError,
    "MASTERDOWN": redis.exceptions.MasterDownError,
}

ROOM = 65_536
"""Bytes that a connection reads at once, into room of its own, since to make some for each reply takes time. More is no
faster, and each connection keeps them."""
UNFINISHED = False
"""What a reader says when the reply is not all there: no reply of the protocol's second version is ``False``."""


def new_reader(connection: Any) -> Any | None:
    """A reader of replies that names errors as that connection does; ``None`` without hiredis."""
    if hiredis is None:
        return None
    parser = connection._parser  # noqa: SLF001 - it has redis-py's table of errors
    if "MOVED" in parser.EXCEPTION_CLASSES:
        return hiredis.Reader(replyError=parser.parse_error)
    return hiredis.Reader(replyError=lambda text: refined(parser.parse_error(text)))


def refined(error: Exception) -> Exception:
    """An error of a Cluster under its own name, which redis-py before 5.1 gives it only in clients of Clusters.

    Examples:
        >>> type(refined(redis.exceptions.ResponseError("MOVED 3999 127.0.0.1:6381"))).__name__
        'MovedError'
    """
    word, _, rest = str(error).partition(" ")
    kind = _OF_CLUSTERS.get(word) if type(error) is redis.exceptions.ResponseError else None
    return error if kind is None else kind(rest)


def _pack(args: Sequence[Argument]) -> bytes:
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        if isinstance(arg, bytes):
            raw = arg
        elif isinstance(arg, str):
            raw = arg.encode()
        elif type(arg) is int or type(arg) is float:
            raw = repr(arg).encode()
        else:
            raise TypeError(type(arg).__name__)
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


pack_any: Callable[[Any], bytes] = getattr(hiredis, "pack_command", _pack)
"""A command as `pack` gives it. Raises TypeError where that raises an error of redis-py."""


def pack(args: Sequence[Argument]) -> bytes:
    r"""A command as it goes over the wire.

    Raises:
        redis.DataError: An argument is neither text, bytes nor a number.

    Examples:
        >>> pack(("GET", "k"))
        b'*2\r\n$3\r\nGET\r\n$1\r\nk\r\n'
    """
    try:
        return pack_any(tuple(args))
    except TypeError as error:
        kinds = ", ".join(type(arg).__name__ for arg in args)
        raise redis.exceptions.DataError(f"a command is made of text, bytes and numbers, not of {kinds}") from error


def pack_many(commands: Iterable[Sequence[Argument]]) -> bytes:
    """Several commands, one after the other."""
    return b"".join(map(pack, commands))
