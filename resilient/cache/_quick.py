"""The judgement of most entries that are read: a plain value, fresh, under the stamps that stand."""

from __future__ import annotations

from typing import Any

from resilient.cache._codecs import ABSENCE, Codec
from resilient.cache._entry import FOREVER, PLAIN, SIZE, Unreadable, plain_header

__all__ = ["NOTHING", "fresh"]

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
