"""Whether a value is made of nothing that a format would flatten; told at the speed of C, a container at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["DEEPEST", "JSON_SCALARS", "SCALARS", "is_plain", "is_plain_json"]

DEEPEST = 200  # nesting; a deeper value is refused rather than overflowing the stack

SCALARS = frozenset({str, int, float, bool, type(None), bytes})
JSON_SCALARS = frozenset({str, int, float, bool, type(None)})
_FINITE = JSON_SCALARS - {float}
_all_scalars = SCALARS.issuperset
_TEXT = frozenset({str})


def is_plain(value: Any) -> bool:
    """Whether msgpack brings a value back as it is.

    Examples:
        >>> is_plain({"a": [1, {2: None}]}), is_plain({"a": [(1,)]})
        (True, False)
    """
    return _are_plain((value,), 0)


def _are_plain(values: Iterable[Any], depth: int) -> bool:
    for each in values:
        kind = type(each)
        if kind is dict:
            if not _all_scalars(map(type, each)):
                return False
            inner = each.values()
        elif kind is list:
            inner = each
        elif kind in SCALARS:
            continue
        else:
            return False
        if not _all_scalars(map(type, inner)) and (depth >= DEEPEST or not _are_plain(inner, depth + 1)):
            return False
    return True


def is_plain_json(value: Any, depth: int = 0) -> bool:
    """Whether JSON brings a value back as it is: text as keys, no tuple, no set, no number that is none."""
    kind = type(value)
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        value = value.values()
    elif kind is not list:
        return kind in JSON_SCALARS and (kind is not float or math.isfinite(value))
    if _FINITE.issuperset(map(type, value)):
        return True
    if depth >= DEEPEST:
        return False
    for each in value:
        kind = type(each)
        if kind is dict or kind is list:
            if not is_plain_json(each, depth + 1):
                return False
        elif kind not in JSON_SCALARS or (kind is float and not math.isfinite(each)):
            return False
    return True
