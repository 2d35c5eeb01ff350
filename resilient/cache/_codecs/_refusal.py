"""Why an object of a class cannot be cached, and what to return instead."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum

from resilient.cache._codecs._sql import is_mapped
from resilient.errors import InvalidInput

__all__ = ["refusal"]

_PLAIN = (str, int, float, bytes, list, dict, set, frozenset)
_DATACLASS = "return a dataclass, a msgspec.Struct or plain values, and annotate the function with that type"


def refusal(kind: type, *, known: bool) -> InvalidInput:
    """The error for an object of a class that is not stored.

    Args:
        kind: The class.
        known: Whether the reader has a type at all, in which this class does not occur.
    """
    name = kind.__qualname__
    return InvalidInput(f"a {name} cannot be cached", advice=_advice(kind, name, known=known))


def _advice(kind: type, name: str, *, known: bool) -> str:
    if _is(kind, "sqlalchemy.engine", "Result") or _is(kind, "sqlalchemy.engine.result", "ScalarResult"):
        return "a result can be read once only: return what .all() gives"
    if _is(kind, "django.db.models", "QuerySet"):
        return "return list(queryset.values(...)), or a list of dataclasses"
    if _is(kind, "django.db.models", "Model"):
        return (
            "a model may load more when it is touched, and a cached one would save what was true long ago: return "
            "Model.objects.values(...), or a dataclass of the fields that are needed"
        )
    if issubclass(kind, Iterator):
        return "it can be read once only: return a list"
    if is_mapped(kind):
        where = "which does not name it" if known else "and there is none here"
        return (
            f"an entity is read back by the type the function says it returns, {where}: annotate it with '-> {name}', "
            f"or pass type={name}; or return a dataclass of the values that are needed"
        )
    if issubclass(kind, Enum):
        return f"annotate the function with '-> {name}' or pass type={name}, so that its members can be found again"
    plain = next((each for each in _PLAIN if issubclass(kind, each)), None)
    if plain is not None and not hasattr(kind, "_fields"):
        return f"return a plain one: {plain.__name__}(value)"
    if known:
        return f"name {name} in the type the function says it returns if it is a class of data; or {_DATACLASS}"
    return f"annotate the function with the type it returns, or pass type={name}; or {_DATACLASS}"


def _is(kind: type, module: str, name: str) -> bool:
    """Whether it is of a library's class, without importing that library."""
    return issubclass(kind, getattr(sys.modules.get(module), name, ()))
