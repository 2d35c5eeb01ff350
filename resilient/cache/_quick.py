"""The judgement of most entries that are read: a plain value, fresh, under the stamps that stand."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

from resilient.cache._codecs import ABSENCE, Codec
from resilient.cache._entry import FOREVER, PLAIN, SIZE, Unreadable, plain_header, sealed_header

__all__ = ["NOTHING", "fresh", "fresh_many", "unjudged"]

_BODY = SIZE + 4  # where a value begins that bears no tags: after the header and the checksum

NOTHING: Any = type("Nothing", (), {"__repr__": lambda _: "NOTHING", "__slots__": ()})()
"""No value, where ``None`` would be one."""


def fresh(raw: Any, now: float, generation: int, block: bytes, codec: Codec) -> Any:
    """The value of an entry that is just that; `NOTHING` for any other, which is to be looked at with care.

    Args:
        raw: The bytes under the key.
        now: What the wall clock shows.
        generation: The namespace's stamp; 0 where there is none.
        block: The tags with their stamps, as the entry must bear them.
        codec: Reads the value.
    """
    if raw.__class__ is not bytes or raw[:3] != PLAIN or len(raw) <= SIZE:
        return NOTHING
    number, schema, created, lasts, length, bears = plain_header(raw)
    if not now - created < lasts < FOREVER or bears != generation or not bears:
        return NOTHING
    end = SIZE + length
    if length != len(block) or (block and raw[SIZE:end] != block) or number == ABSENCE:
        return NOTHING
    try:
        return codec.decode(number, schema, raw[end:])
    except Unreadable:
        return NOTHING


def fresh_many(raws: Iterable[Any], now: float, generation: int, block: bytes, codec: Codec) -> list[Any]:
    """The same of several. What most of many are, without tags and as this codec writes, is judged in place."""
    found: list[Any] = []
    add, usual, quick, schema = found.append, codec.usual, codec.quick, codec.schema
    plain = bool(generation) and not block
    for raw in raws:
        if plain and raw.__class__ is bytes and raw[:3] == PLAIN and len(raw) > _BODY:
            number, other, created, lasts, length, bears, check = sealed_header(raw)
            if (
                now - created < lasts < FOREVER
                and bears == generation
                and not length
                and number == usual
                and (other == schema or not other or not schema)
                and zlib.crc32(data := raw[_BODY:], number) == check
            ):
                try:
                    add(quick(data))
                    continue
                except Exception:  # noqa: BLE001 - as in the codec; whoever looks with care tells why
                    pass
        add(fresh(raw, now, generation, block, codec))
    return found


def unjudged(count: int) -> tuple[list[Any], list[int]]:
    """No values yet, and the places of all: each is to be looked at with care."""
    return [NOTHING] * count, list(range(count))
