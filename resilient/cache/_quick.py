"""The judgement of most entries that are read: a plain value, fresh, under the stamps that stand."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

from resilient.cache._codecs import ABSENCE, Codec
from resilient.cache._entry import FOREVER, GENERATION, PLAIN, SIZE, TAGGED, Unreadable, plain_header, sealed_header

__all__ = ["NOTHING", "fresh", "fresh_many", "unjudged"]

_STAMPS = slice(TAGGED.start, GENERATION.stop)
_BODY = SIZE + 4  # where a value begins that bears no tags: after the header and the checksum

NOTHING: Any = type("Nothing", (), {"__repr__": lambda _: "NOTHING", "__slots__": ()})()
"""No value, where ``None`` would be one."""


def fresh(raw: Any, now: float, borne: bytes, block: bytes, codec: Codec) -> Any:
    """The value of an entry that is just that; `NOTHING` for any other, which is to be looked at with care.

    What most entries are, without tags and as this codec writes, is judged by three comparisons.

    Args:
        raw: The bytes under the key.
        now: What the wall clock shows.
        borne: What its header must say of stamps, as `bearing` gives it.
        block: The tags with their stamps, as the entry must bear them.
        codec: Reads the value.
    """
    if not raw:
        return NOTHING
    if not block:
        try:
            head, created, lasts, bears, check = sealed_header(raw)
            if (
                head == codec.head
                and bears == borne
                and now - created < lasts < FOREVER
                and zlib.crc32(data := raw[_BODY:], codec.usual) == check
            ):
                return codec.quick(data)
        except Exception:  # noqa: BLE001 - as in the codec; whoever looks with care tells why
            pass
    return _fresh_of_all_kinds(raw, now, borne, block, codec)


def _fresh_of_all_kinds(raw: Any, now: float, borne: bytes, block: bytes, codec: Codec) -> Any:
    """The same with tags, and for what was written otherwise than by this codec."""
    if raw.__class__ is not bytes or raw[:3] != PLAIN or len(raw) <= SIZE:
        return NOTHING
    number, schema, created, lasts = plain_header(raw)[:4]
    end = SIZE + len(block)
    if not now - created < lasts < FOREVER or raw[_STAMPS] != borne[1:] or not borne:
        return NOTHING
    if raw[SIZE:end] != block or number == ABSENCE:
        return NOTHING
    try:
        return codec.decode(number, schema, raw[end:])
    except Unreadable:
        return NOTHING


def fresh_many(
    raws: Iterable[Any], now: float, borne: bytes, block: bytes, codec: Codec
) -> tuple[list[Any], list[int]]:
    """The same of several, judged in place; and the places of those that are to be looked at with care."""
    found: list[Any] = []
    left: list[int] = []
    # Bound here, as is all that is asked of each: a hundred values are read with one call.
    add, read, checksum, body, longest = found.append, sealed_header, zlib.crc32, slice(_BODY, None), FOREVER
    usual, quick, begins = codec.usual, codec.quick, b"" if block else codec.head
    for raw in raws:
        if raw:
            try:
                head, created, lasts, bears, check = read(raw)
                if (
                    head == begins
                    and bears == borne
                    and now - created < lasts < longest
                    and checksum(data := raw[body], usual) == check
                ):
                    add(quick(data))
                    continue
            except Exception:  # noqa: BLE001 - as above
                pass
            value = _fresh_of_all_kinds(raw, now, borne, block, codec)
            if value is not NOTHING:
                add(value)
                continue
        left.append(len(found))
        add(NOTHING)
    return found, left


def unjudged(count: int) -> tuple[list[Any], list[int]]:
    """No values yet, and the places of all: each is to be looked at with care."""
    return [NOTHING] * count, list(range(count))
