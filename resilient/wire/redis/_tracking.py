"""What a server tells of changed keys, read without a socket: messages, and when to ask whether it lives.

The pure part: no clock, no I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

__all__ = ["Answer", "Ear", "Messages", "Push", "Watch", "announcement", "changed_keys", "is_unasked"]


class Ear(Protocol):
    """Who is told what changed. Its methods are called from any thread; they are short, and raise nothing.

    The calls of a session come in the order of the wire: what was told before an answer is told before it is heard.
    """

    def begun(self) -> int:
        """From now on every change is told. Gives the number of this session; those before it count no more."""
        ...

    def heard(self, session: int, since: float, /) -> None:
        """Whatever changed before that moment has been told.

        Args:
            session: Which session.
            since: Monotonic seconds: when the question was sent that was answered; of several servers, the earliest.
        """
        ...

    def told(self, session: int, keys: Sequence[bytes] | None, /) -> None:
        """These keys were changed, by whomever, or expired, or were evicted; ``None``: all may have been."""
        ...

    def cut(self, session: int, /) -> None:
        """The session is over: nothing is told any more."""
        ...


class Push(list[Any]):
    """What the server says unasked."""

    __slots__ = ()


class Answer:
    """An error with which the server answered."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<Answer {self.text}>"


_ONE_KEY = re.compile(rb">2\r\n\$10\r\ninvalidate\r\n\*1\r\n\$(\d+)\r\n")


def _short(data: bytes, found: list[Any]) -> bytes:
    """Read what is said most often, one key changed, in few steps; the rest is given back."""
    at = 0
    while (head := _ONE_KEY.match(data, at)) is not None:
        start = head.end()
        end = start + int(head[1])
        if data[end : end + 2] != b"\r\n":
            break
        found.append(Push((b"invalidate", [data[start:end]])))
        at = end + 2
    return data[at:] if at else data


class _Frame:
    __slots__ = ("items", "kept", "size")

    def __init__(self, items: list[Any], size: int, *, kept: bool) -> None:
        self.items = items
        self.size = size
        self.kept = kept


_UNFINISHED = object()
_BULK, _LIST, _TEXT = b"$=!", b"*~%|>", b"+,("


class Messages:
    r"""Bytes into messages, for both versions of the protocol; a message may come in any number of pieces.

    Examples:
        >>> messages = Messages()
        >>> list(messages.feed(b"+PONG\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$6\r\nsho"))
        [b'PONG']
        >>> list(messages.feed(b"p:a\r\n"))
        [[b'invalidate', [b'shop:a']]]
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._frames: list[_Frame] = []

    def feed(self, data: bytes) -> list[Any]:
        """The messages that these bytes complete.

        Raises:
            ValueError: They are no messages.
        """
        found: list[Any] = []
        if not self._buffer and not self._frames:
            data = _short(data, found)
        self._buffer += data
        while (message := self._next()) is not _UNFINISHED:
            found.append(message)
        del self._buffer[: self._at]
        self._at = 0
        return found

    def _next(self) -> Any:
        while (value := self._item()) is not _UNFINISHED:
            if isinstance(value, _Frame):
                if value.size:
                    self._frames.append(value)
                    continue
                value = value.items
            value = self._placed(value)
            if value is not _UNFINISHED:
                return value
        return _UNFINISHED

    def _placed(self, value: Any) -> Any:
        """The whole message, where this was the last part of it."""
        while self._frames:
            frame = self._frames[-1]
            frame.items.append(value)
            if len(frame.items) < frame.size:
                return _UNFINISHED
            self._frames.pop()
            if not frame.kept:
                return _UNFINISHED
            value = frame.items
        return value

    def _item(self) -> Any:
        """The next part: a plain value, or a list whose items follow."""
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\r\n", at)
        if end < 0:
            return _UNFINISHED
        kind = buffer[at]
        if kind in _BULK:
            size = int(buffer[at + 1 : end])
            stop = end + 2 + size
            if size < 0:
                self._at = end + 2
                return None
            if len(buffer) < stop + 2:
                return _UNFINISHED
            self._at = stop + 2
            body = bytes(buffer[end + 2 : stop])
            if kind == 33:
                return Answer(body.decode(errors="replace"))
            return body[4:] if kind == 61 else body  # a text for people says first of which kind it is
        self._at = end + 2
        head = bytes(buffer[at + 1 : end])
        return _opened(kind, int(head)) if kind in _LIST else _plain(kind, head)


def _opened(kind: int, size: int) -> _Frame | None:
    if size < 0:
        return None
    pairs = kind in b"%|"
    return _Frame(Push() if kind == 62 else [], 2 * size if pairs else size, kept=kind != 124)


def _plain(kind: int, head: bytes) -> Any:
    if kind == 58:
        return int(head)
    if kind in _TEXT:
        return head
    if kind == 45:
        return Answer(head.decode(errors="replace"))
    if kind == 95:
        return None
    if kind == 35:
        return head == b"t"
    raise ValueError(f"no message begins with the byte {kind}")


# -------------------------------------------------------------------------------------------------- what was changed


def changed_keys(message: Any) -> Sequence[bytes] | None:
    """The keys that a message says were changed; ``None`` where all may have been, none where it is about other things.

    Examples:
        >>> changed_keys(Push([b"invalidate", [b"shop:a"]])), changed_keys(Push([b"invalidate", None]))
        ([b'shop:a'], None)
        >>> changed_keys([b"message", b"shop:changed", b'["shop:b"]']), changed_keys(b"PONG")
        ([b'shop:b'], ())
    """
    if not isinstance(message, list) or len(message) < 2:
        return ()
    if message[0] == b"invalidate":
        keys: Sequence[bytes] | None = message[1]
        return keys
    if message[0] == b"message" and len(message) == 3:
        return _announced(message[2])
    return ()


def is_unasked(message: Any) -> bool:
    """Whether it is no answer to a question.

    Examples:
        >>> is_unasked(Push([b"invalidate", None])), is_unasked([b"message", b"a", b"b"]), is_unasked([b"pong", b""])
        (True, True, False)
    """
    return isinstance(message, Push) or (isinstance(message, list) and message[:1] == [b"message"])


def _announced(payload: Any) -> Sequence[bytes] | None:
    """What a writer told; anything may have been published there by anybody."""
    try:
        return [key.encode() for key in json.loads(payload)]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def announcement(prefix: str, keys: Iterable[str]) -> tuple[str, str, str]:
    """The command by which a writer tells who listens by publish and subscribe.

    Examples:
        >>> announcement("shop:", ["shop:a"])
        ('PUBLISH', 'shop:changed', '["shop:a"]')
    """
    return ("PUBLISH", f"{prefix}changed", json.dumps(list(keys), separators=(",", ":")))


# ---------------------------------------------------------------------------------------------------- is it alive


class Watch:
    """Whether one connection is alive, and up to which moment everything that it had to tell was told.

    One question is outstanding at a time, so that the answer to it proves: what was changed before it was asked is
    told. The moment of the question counts, not that of the answer, which may have lain somewhere for long.

    Args:
        now: When the connection began to tell.
        bound: Seconds for which a proof is good.

    Examples:
        >>> watch = Watch(10.0, bound=1.0)
        >>> watch.is_due(10.1), watch.is_due(10.3)
        (False, True)
        >>> watch.asked(10.3); watch.answered(); watch.proven
        10.3
        >>> watch.asked(10.6); watch.is_lost(12.5), watch.is_lost(12.7)
        (False, True)
    """

    __slots__ = ("_asked", "_beat", "_patience", "due", "proven")

    def __init__(self, now: float, bound: float) -> None:
        self._beat = bound / 4
        # The lease is over by itself when the bound is; a server that was merely slow then gives it back.
        self._patience = 2 * bound
        self._asked: float | None = None
        self.proven = now
        self.due = now + self._beat

    @property
    def waits(self) -> bool:
        """Whether a question is outstanding."""
        return self._asked is not None

    def is_due(self, now: float) -> bool:
        """Whether it is time to ask."""
        return self._asked is None and now >= self.due

    def asked(self, now: float) -> None:
        """A question was sent, not earlier than that."""
        self._asked = now
        self.due = now + self._beat

    def answered(self) -> None:
        """Its answer came, and whatever came before it was told."""
        if self._asked is not None:
            self.proven = self._asked
            self._asked = None

    def is_lost(self, now: float) -> bool:
        """Whether the answer is so late that none is expected any more."""
        return self._asked is not None and now - self._asked > self._patience

    def next(self, now: float) -> float:
        """Seconds until something has to be done."""
        at = self.due if self._asked is None else self._asked + self._patience
        return max(0.0, at - now)
