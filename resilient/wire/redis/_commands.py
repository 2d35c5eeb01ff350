"""What is known of commands without asking a server: where the key stands, what only reads, how a script is named."""

from __future__ import annotations

import hashlib
from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any

__all__ = ["READS", "SLOTS", "Script", "Unparsed", "key_of", "only_reads", "plain", "slot_of"]

Argument = str | bytes | int | float

SLOTS = 16384

_OF_KEYS = {"GET", "MGET", "STRLEN", "GETRANGE", "EXISTS", "TTL", "PTTL", "TYPE", "TIME", "PING", "MEMORY", "OBJECT"}
_OF_PARTS = {"HGET", "HMGET", "HGETALL", "HLEN", "LLEN", "LRANGE", "XLEN", "XRANGE", "XREAD"}
_OF_SETS = {"SCARD", "SISMEMBER", "SMISMEMBER", "SMEMBERS"}
_OF_RANKS = {"ZSCORE", "ZMSCORE", "ZCARD", "ZCOUNT", "ZRANK", "ZREVRANK", "ZRANGE", "ZREVRANGE"}

READS = frozenset(_OF_KEYS | _OF_PARTS | _OF_SETS | _OF_RANKS)
"""Commands that change nothing, so that sending one twice is the same as sending it once."""

_OF_SERVERS = {"PING", "ECHO", "TIME", "INFO", "DBSIZE", "SCRIPT", "CONFIG", "CLIENT", "CLUSTER", "COMMAND"}
_OF_ADMINS = {"FLUSHALL", "FLUSHDB", "SCAN", "KEYS", "WAIT", "ACL", "ROLE"}
_KEYLESS = frozenset(_OF_SERVERS | _OF_ADMINS)
_KEY_AT = {"EVAL": 3, "EVALSHA": 3, "EVAL_RO": 3, "EVALSHA_RO": 3, "OBJECT": 2, "MEMORY": 2, "XINFO": 2, "XGROUP": 2}


class Script:
    """A Lua script and its name on the server.

    Args:
        source: The text. All keys it touches are passed as keys, and in a Cluster share one slot.

    Examples:
        >>> Script("return 1").sha
        'e0e1f9fabfc9d4800c877a703b823ac0578ff8db'
    """

    __slots__ = ("sha", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode()).hexdigest()  # noqa: S324 - the name Redis gives it, not a safeguard

    def named(self, keys: Sequence[Argument], args: Sequence[Argument] = ()) -> tuple[Argument, ...]:
        """The command that runs it by name, which a server may not know yet."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def whole(self, keys: Sequence[Argument], args: Sequence[Argument] = ()) -> tuple[Argument, ...]:
        """The command that brings its text along."""
        return ("EVAL", self.source, len(keys), *keys, *args)


def key_of(args: Sequence[Argument]) -> Argument | None:
    """The first key of a command; ``None`` where it has none.

    Examples:
        >>> key_of(("GET", "k")), key_of(("EVALSHA", "sha", 1, "k", "arg")), key_of(("PING",))
        ('k', 'k', None)
        >>> key_of(("XREAD", "BLOCK", 10, "STREAMS", "s", "0"))
        's'
    """
    name = args[0]
    if name in _KEYLESS:
        return None
    streams = name in {"XREAD", "XREADGROUP"}
    at = args.index("STREAMS") + 1 if streams else _KEY_AT.get(str(name), 1)
    if at == 3 and args[2] == 0:  # a script without keys
        return None
    return args[at] if at < len(args) else None


def only_reads(commands: Sequence[Sequence[Argument]]) -> bool:
    """Whether none of them changes anything.

    Examples:
        >>> only_reads([("GET", "a"), ("TTL", "a")]), only_reads([("GET", "a"), ("DEL", "a")])
        (True, False)
    """
    return READS.issuperset([args[0] for args in commands])


def slot_of(key: Argument) -> int:
    """The slot of a Cluster in which a key lives: of the part in braces, where it has one.

    Examples:
        >>> slot_of("foo"), slot_of("{foo}:wake"), slot_of("x{}y") == slot_of(b"x{}y")
        (12182, 12182, True)
    """
    raw = key if isinstance(key, bytes) else str(key).encode()
    opened = raw.find(b"{")
    if opened >= 0:
        closed = raw.find(b"}", opened + 1)
        if closed > opened + 1:
            raw = raw[opened + 1 : closed]
    return crc_hqx(raw, 0) & (SLOTS - 1)


# ------------------------------------------------------------------------------------------- replies of a ready client


class Unparsed(str):
    """The name of a command whose reply redis-py shall give back as it came.

    redis-py looks a command up, by its name in capitals, in tables of functions that turn replies into other things
    (``OK`` into ``True``, a list into a dictionary), differently from version to version. This name is found in none
    of them. In every other respect it is the text it is.
    """

    __slots__ = ()
    __eq__ = str.__eq__

    def __hash__(self) -> int:
        return ~super().__hash__()

    def upper(self) -> Unparsed:
        """The same: names are written in capitals here."""
        return self


def plain(reply: Any, name: object) -> Any:
    """A reply as the second version of the protocol gives it, whatever version a ready client speaks.

    Examples:
        >>> plain({b"a": 1.5}, "HGETALL"), plain({b"s": [[b"1-0", [b"f", b"v"]]]}, "XREAD"), plain(True, "EXISTS")
        ([b'a', b'1.5'], [[b's', [[b'1-0', [b'f', b'v']]]]], 1)
    """
    kind = type(reply)
    if reply is None or kind is bytes or kind is int:
        return reply
    if kind is dict:
        pairs = [[plain(key, ""), plain(value, "")] for key, value in reply.items()]
        return pairs if name in {"XREAD", "XREADGROUP"} else [part for pair in pairs for part in pair]
    if kind is list or kind is set:
        if reply and all(type(each) is list and len(each) == 2 and type(each[1]) is float for each in reply):
            return [plain(part, "") for member in reply for part in member]  # members with their scores
        return [plain(each, "") for each in reply]
    if kind is float:
        return repr(reply).removesuffix(".0").encode()
    if kind is bool:
        return int(reply)
    return reply
