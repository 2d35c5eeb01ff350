"""Whether a value that came back is the one that was written, of the same types down to the last part."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

from resilient.cache._codecs._objects import field_names

__all__ = ["same"]

_SIMPLE = frozenset({str, int, bool, float, type(None), bytes})
_DISTINCT = frozenset({decimal.Decimal, uuid.UUID, dt.date})  # equal to no value of another type in such a set


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and alike; a value that is not equal to itself is not.

    Examples:
        >>> same([1, (2,)], [1, (2,)]), same([1], [1.0]), same((1,), [1])
        (True, False, False)
    """
    kind = type(one)
    if kind is not type(other):
        return False
    if kind in _SIMPLE:
        return bool(one == other)
    if kind is dict:
        return _all(list(one), list(other)) and _all(list(one.values()), list(other.values()))
    if kind is list or issubclass(kind, tuple):
        return _all(list(one), list(other))
    if kind is set or kind is frozenset:
        kinds = set(map(type, one))
        return one == other and kinds == set(map(type, other)) and (kinds <= _SIMPLE or kinds <= _DISTINCT)
    if kind is dt.datetime or kind is dt.time:
        return bool(one == other) and type(one.tzinfo) is type(other.tzinfo) and one.utcoffset() == other.utcoffset()
    names = field_names(kind)
    if names is None:
        return bool(one == other)
    return _all([getattr(one, name, None) for name in names], [getattr(other, name, None) for name in names])


def _all(ones: list[Any], others: list[Any]) -> bool:
    if len(ones) != len(others):
        return False
    kinds = list(map(type, ones))
    if _SIMPLE.issuperset(kinds):
        return kinds == list(map(type, others)) and ones == others
    return all(map(same, ones, others))
