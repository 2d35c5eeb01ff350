"""Which values nobody can change, so that all callers may hold the same one."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import uuid
from enum import Enum
from typing import Any

import msgspec

__all__ = ["is_immutable"]

_SIMPLE = frozenset(
    {
        bool,
        bytes,
        complex,
        decimal.Decimal,
        dt.date,
        dt.timedelta,
        float,
        int,
        str,
        type(None),
        uuid.UUID,
    }
)
_TIMES = frozenset({dt.datetime, dt.time})
_ZONES = frozenset({type(None), dt.timezone})
_DEEPEST = 4


def is_immutable(value: Any, depth: int = _DEEPEST) -> bool:
    """Whether nothing of a value can be changed; false where that would take long to find out.

    Frozen dataclasses and structs count as such if all their fields do, and they have no others: who goes round their
    guard knows what they do.

    Examples:
        >>> is_immutable(("a", 1)), is_immutable(("a", []))
        (True, False)
    """
    kind = type(value)
    if kind in _SIMPLE:
        return True
    if kind in _TIMES:
        return type(value.tzinfo) in _ZONES
    if not depth:
        return False
    if kind is tuple or kind is frozenset:
        return len(value) <= 100 and all(is_immutable(each, depth - 1) for each in value)
    if issubclass(kind, Enum):
        return True  # there is one object of each anyway
    names = _frozen_fields(kind)
    if names is None or getattr(value, "__dict__", {}).keys() - names:
        return False
    return all(is_immutable(getattr(value, name, None), depth - 1) for name in names)


def _frozen_fields(kind: type) -> tuple[str, ...] | None:
    """The fields of a class whose objects refuse to be changed; ``None`` for any other."""
    if dataclasses.is_dataclass(kind):
        return tuple(each.name for each in dataclasses.fields(kind)) if kind.__dataclass_params__.frozen else None  # type: ignore[attr-defined]  # every dataclass has them
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__ if kind.__struct_config__.frozen else None
    return None
