"""What SQS allows, checked here before anything is sent. Plain functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from resilient.errors import InvalidInput

__all__ = [
    "BATCH",
    "LONGEST_DELAY",
    "LONGEST_VISIBILITY",
    "MAX_BYTES",
    "batches",
    "check_attributes",
    "check_deduplication",
    "check_delay",
    "check_group",
    "check_text",
    "encode",
    "is_tag",
    "pack",
    "size",
]

T = TypeVar("T")

BATCH = 10
"""Entries in one call."""
LONGEST_DELAY = 900
"""Seconds a message may be delayed."""
LONGEST_VISIBILITY = 43_200
"""Seconds from its receipt for which a message can be kept from others: twelve hours."""
MAX_BYTES = 1_048_576
"""Bytes of one message with its attributes, and of all messages of one call."""

_MAX_ATTRIBUTES = 10
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}[A-Za-z0-9_-]|[A-Za-z0-9_-]")
_TAG = re.compile(r"[!-~]{1,128}")  # letters, digits and punctuation of ASCII
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def encode(body: Any) -> str:
    """The text of a message: a ``str`` as it is, ``bytes`` as UTF-8, anything else as JSON.

    Raises:
        InvalidInput: It cannot be written as JSON, or holds a character that SQS refuses.

    Examples:
        >>> encode({"order": 1})
        '{"order":1}'
    """
    if isinstance(body, str):
        text = body
    elif isinstance(body, bytes | bytearray | memoryview):
        try:
            text = bytes(body).decode()
        except UnicodeDecodeError:
            raise InvalidInput(
                "a message is text, and these bytes are not UTF-8", advice="encode them as base64"
            ) from None
    else:
        try:
            text = msgspec.json.encode(body).decode()
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"a message body of type {type(body).__name__} cannot be written as JSON") from error
    if not text:
        raise InvalidInput("a message needs a body of at least one character")
    if _FORBIDDEN.search(text):
        raise InvalidInput("the message holds a character that SQS does not take", advice="encode it as base64")
    return text


def check_attributes(attributes: Mapping[str, str | bytes], *, reserved: int = 0) -> None:
    """Whether SQS takes these message attributes. Raises InvalidInput."""
    if len(attributes) > _MAX_ATTRIBUTES - reserved:
        raise InvalidInput(f"a message has room for {_MAX_ATTRIBUTES - reserved} attributes of yours")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name) or ".." in name or name.lower().startswith(("aws.", "amazon.", "resilient-")):
            raise InvalidInput("the name of a message attribute is not allowed")
        if not value or (isinstance(value, str) and _FORBIDDEN.search(value)):
            raise InvalidInput("a message attribute is empty or holds a character that SQS does not take")


def check_text(text: str) -> None:
    """Whether SQS takes every character of this text. Raises InvalidInput."""
    if _FORBIDDEN.search(text):
        raise InvalidInput("the id of a message holds a character that SQS does not take")


def check_group(group: str) -> None:
    """Whether SQS takes this as the id of a message group. Raises InvalidInput.

    Examples:
        >>> check_group("customer:42")
    """
    if not is_tag(group):
        raise InvalidInput(
            "a message group has 1 to 128 letters, digits and punctuation marks of ASCII, and no spaces",
            advice="pass such a group=, as a number of yours or a digest in hexadecimal",
        )


def check_deduplication(identity: str) -> None:
    """Whether SQS takes this as a deduplication id. Raises InvalidInput."""
    if not is_tag(identity):
        raise InvalidInput(
            "a deduplication id, by default the message's id, has 1 to 128 letters, digits and punctuation marks of "
            "ASCII, and no spaces",
            advice="pass such an id= or deduplication=, as a number of yours or a digest in hexadecimal",
        )


def is_tag(text: str) -> bool:
    """Whether SQS takes a text as the id of a group or for deduplication.

    Examples:
        >>> is_tag("a" * 128), is_tag("a" * 129), is_tag("a b")
        (True, False, False)
    """
    given: object = text
    return isinstance(given, str) and _TAG.fullmatch(given) is not None


def check_delay(seconds: float) -> int:
    """Whole seconds of delay. Raises InvalidInput."""
    given: object = seconds
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= LONGEST_DELAY:
        raise InvalidInput(f"a message can be delayed by 0 to {LONGEST_DELAY} seconds")
    return int(given)


def size(body: str, attributes: Mapping[str, str | bytes]) -> int:
    """The bytes that count against the limit: the body, and name, type and value of each attribute.

    Examples:
        >>> size("abc", {"kind": "x"})
        14
    """
    total = len(body.encode())
    for name, value in attributes.items():
        kind, raw = ("String", value.encode()) if isinstance(value, str) else ("Binary", value)
        total += len(name) + len(kind) + len(raw)
    return total


def pack(sizes: Sequence[int], *, limit: int = MAX_BYTES) -> Iterator[range]:
    """Divide messages into calls: each at most ten entries and ``limit`` bytes, in order.

    Examples:
        >>> list(pack([1] * 25))
        [range(0, 10), range(10, 20), range(20, 25)]
        >>> list(pack([6, 6, 1], limit=10))
        [range(0, 1), range(1, 3)]
    """
    start, total = 0, 0
    for index, each in enumerate(sizes):
        if index > start and (index - start == BATCH or total + each > limit):
            yield range(start, index)
            start, total = index, 0
        total += each
    if start < len(sizes):
        yield range(start, len(sizes))


def batches(entries: Sequence[T]) -> list[Sequence[T]]:
    """Divide entries whose size does not count into calls, in order.

    Examples:
        >>> [len(batch) for batch in batches(range(25))]
        [10, 10, 5]
    """
    return [entries[start : start + BATCH] for start in range(0, len(entries), BATCH)]
