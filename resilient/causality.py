"""What one user has seen: position tokens, and the scope that collects them.

A *position* says how far a database had come. A *token* holds one position for each database that a user has written
to or read from; it travels with the user (cookie, header, message attribute), and a read that names it must not be
served by a copy that is further behind. A *scope* collects the token of one request. It is an object in a context
variable, so that worker threads and tasks started by the request write into the same one.

Tokens come back from clients, so parsing bounds everything. A forged token can only make reads fall back to the
primary.
"""

from __future__ import annotations

import contextvars
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Self

from resilient import events
from resilient.arguments import is_name
from resilient.errors import InvalidInput
from resilient.runtime import fork_safe_lock

__all__ = ["Gtid", "Instant", "Position", "Scope", "ScopeMissing", "Token", "current", "running", "scope"]

_MAX_TEXT = 2048
_MAX_NAMES = 64
_GTID = re.compile(r"(\d{1,10})-(\d{1,10})-(\d{1,20})")


# ------------------------------------------------------------------------------------------------------ positions


@dataclass(frozen=True, slots=True)
class Instant:
    """A position told by the wall clock: everything committed up to that moment.

    Right as far as the clocks of the processes that compare them agree; the fallback where a database tells no better.

    Args:
        at: Seconds since 1970-01-01 UTC.
    """

    kind: ClassVar[str] = "t"
    at: float

    def covers(self, other: Position) -> bool:
        """Whether a copy at this position holds everything that was there at the other."""
        return isinstance(other, Instant) and self.at >= other.at

    def merge(self, other: Position) -> Position:
        """The later of both."""
        return self if self.covers(other) else other

    def __str__(self) -> str:
        return f"{self.at:.6f}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` wrote. Raises InvalidInput."""
        if not re.fullmatch(r"\d{1,12}\.\d{6}", text):
            raise InvalidInput("a position is not a time")
        return cls(float(text))


@dataclass(frozen=True, slots=True)
class Gtid:
    """A MariaDB GTID position: for each replication domain, the server that wrote last and its sequence number.

    Positions are compared by sequence number in each domain: after a failover the server part changes and the numbers
    go on.

    Args:
        domains: Domain id to (server id, sequence number).

    Examples:
        >>> Gtid.parse("0-1-42").covers(Gtid.parse("0-2-41"))
        True
    """

    kind: ClassVar[str] = "g"
    domains: Mapping[int, tuple[int, int]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "domains", MappingProxyType(dict(self.domains)))

    def __hash__(self) -> int:
        return hash(frozenset(self.domains.items()))

    def covers(self, other: Position) -> bool:
        """Whether a copy at this position holds everything that was there at the other."""
        return isinstance(other, Gtid) and all(
            domain in self.domains and self.domains[domain][1] >= sequence
            for domain, (_, sequence) in other.domains.items()
        )

    def merge(self, other: Position) -> Position:
        """The later of both in each domain."""
        if not isinstance(other, Gtid):
            return other
        merged = dict(self.domains)
        for domain, (server, sequence) in other.domains.items():
            if domain not in merged or merged[domain][1] < sequence:
                merged[domain] = (server, sequence)
        return Gtid(merged)

    def __str__(self) -> str:
        return "/".join(f"{domain}-{server}-{number}" for domain, (server, number) in sorted(self.domains.items()))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``0-1-42``; several domains are divided by ``/`` or, as the server writes it, by a comma."""
        domains: dict[int, tuple[int, int]] = {}
        for part in filter(None, re.split(r"[/,]", text)):
            match = _GTID.fullmatch(part.strip())
            if match is None:
                raise InvalidInput("a position is not a MariaDB GTID")
            domain, server, sequence = map(int, match.groups())
            domains[domain] = (server, sequence)
        return cls(domains)


Position = Instant | Gtid
"""How far a database had come. Further kinds join with the databases that are supported."""

_KINDS: Mapping[str, type[Instant | Gtid]] = {each.kind: each for each in (Instant, Gtid)}


# --------------------------------------------------------------------------------------------------------- tokens


@dataclass(frozen=True, slots=True)
class Token:
    """One position for each database, by its name. An immutable value.

    Args:
        positions: Database name to position.

    Examples:
        >>> token = Token.parse("1!app:t1700000000.000000")
        >>> token = token.advance("app", Instant(1700000001.5))
        >>> str(token)
        '1!app:t1700000001.500000'
        >>> bool(Token())
        False
    """

    positions: Mapping[str, Position] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", MappingProxyType(dict(self.positions)))

    def __hash__(self) -> int:
        return hash(frozenset(self.positions.items()))

    def __bool__(self) -> bool:
        return bool(self.positions)

    def get(self, name: str) -> Position | None:
        """The position for a database, or ``None``."""
        return self.positions.get(name)

    def advance(self, name: str, position: Position) -> Token:
        """This token with one database at least at that position."""
        known = self.positions.get(name)
        return Token({**self.positions, name: position if known is None else known.merge(position)})

    def merge(self, other: Token) -> Token:
        """The later of both for each database."""
        merged = self
        for name, position in other.positions.items():
            merged = merged.advance(name, position)
        return merged

    def __str__(self) -> str:
        """Text of printable ASCII that fits a cookie, a header and a message attribute; empty for an empty token."""
        if not self.positions:
            return ""
        return "1!" + "!".join(f"{name}:{at.kind}{at}" for name, at in sorted(self.positions.items()))

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read what ``str`` wrote.

        Raises:
            InvalidInput: It is no token, is longer than 2,048 characters or names more than 64 databases.
        """
        if not text:
            return cls()
        version, *parts = text[: _MAX_TEXT + 1].split("!")
        if len(text) > _MAX_TEXT or version != "1" or not 0 < len(parts) <= _MAX_NAMES:
            raise InvalidInput("a causality token is malformed", advice="drop it: reads then start afresh")
        positions: dict[str, Position] = {}
        for part in parts:
            name, _, position = part.partition(":")
            kind = _KINDS.get(position[:1])
            if kind is None or not is_name(name):
                raise InvalidInput("a causality token is malformed", advice="drop it: reads then start afresh")
            positions[name] = kind.parse(position[1:])
        return cls(positions)

    @classmethod
    def read(cls, text: str) -> Token:
        """As `parse`, for text from outside: empty where it is no token, so that reads start afresh.

        Examples:
            >>> Token.read("another library's header") == Token()
            True
        """
        try:
            return cls.parse(text)
        except InvalidInput:
            return cls()


# --------------------------------------------------------------------------------------------------------- scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeMissing(events.Event):
    """A database was used outside any scope: one scope for the whole process was used, which is safe and slower."""

    level: ClassVar[int] = logging.WARNING
    advice: str = "mount a middleware of resilient.web, resilient.flask or resilient.django, or open causality.scope()"


class Scope:
    """Collects what one request learns. Safe to share between the threads and tasks of the request."""

    __slots__ = ("_lock", "_token")

    def __init__(self, token: Token | None = None) -> None:
        self._lock = threading.Lock()
        self._token = token or Token()

    @property
    def token(self) -> Token:
        """Everything learned so far; hand it to the user's next request."""
        return self._token

    def observe(self, name: str, position: Position) -> None:
        """Learn that a database had come at least to that position."""
        with self._lock:
            self._token = self._token.advance(name, position)

    def __repr__(self) -> str:
        return f"Scope({str(self._token)!r})"


class _ProcessScope(Scope):
    """What everybody outside of any request has learned; a forked child goes on with it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._lock = fork_safe_lock()


_current: contextvars.ContextVar[Scope] = contextvars.ContextVar("resilient_scope")
_process_scope = _ProcessScope()
_warned = threading.Event()


def running() -> Scope | None:
    """The scope of the running request, or ``None`` outside any; never warns."""
    return _current.get(None)


def current() -> Scope:
    """The scope of the running request; outside any, one for the whole process, with a warning once."""
    found = _current.get(None)
    if found is not None:
        return found
    if not _warned.is_set():
        _warned.set()
        events.emit(ScopeMissing())
    return _process_scope


@contextmanager
def scope(token: Token | str | None = None) -> Iterator[Scope]:
    """Open the scope of one user's request.

    Args:
        token: What the user's last request ended with, as a `Token` or its text.

    Raises:
        InvalidInput: The text is no token.

    Examples:
        >>> with scope() as learned:
        ...     current().observe("app", Instant(1700000000.0))
        >>> str(learned.token)
        '1!app:t1700000000.000000'
    """
    opened = Scope(Token.parse(token) if isinstance(token, str) else token)
    reset = _current.set(opened)
    try:
        yield opened
    finally:
        _current.reset(reset)
