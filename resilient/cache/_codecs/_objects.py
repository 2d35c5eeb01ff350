"""Objects of classes, taken apart into their fields and put together again without running their constructors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import Enum, Flag
from typing import Any, NamedTuple

import msgspec

from resilient.cache._codecs._types import is_pydantic

__all__ = ["Parts", "field_names", "parts_of"]


class Parts(NamedTuple):
    """How the objects of one class are taken apart and put together."""

    take: Callable[[Any], Any]
    make: Callable[[Any], Any]


def field_names(kind: type) -> tuple[str, ...] | None:
    """The names of the fields of a class; ``None`` where it is no class of named fields."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(each.name for each in kind.__attrs_attrs__)
    if dataclasses.is_dataclass(kind):
        return tuple(each.name for each in dataclasses.fields(kind))
    return None


def parts_of(kind: type) -> Parts | None:
    """How objects of a class are taken apart; ``None`` where nothing is known of it."""
    if issubclass(kind, Enum):
        return _enum(kind)
    if is_pydantic(kind):
        return _pydantic(kind)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _named_tuple(kind)
    names = field_names(kind)
    if names is None:
        return None
    if issubclass(kind, msgspec.Struct):
        return Parts(lambda value: _values(value, names), lambda state: kind(**_checked(state, names)))
    return Parts(lambda value: _values(value, names), _maker(kind, names)) if kind.__new__ is object.__new__ else None


def _values(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _checked(state: Any, names: tuple[str, ...]) -> dict[str, Any]:
    if type(state) is not dict or not state.keys() <= set(names):
        raise ValueError("other fields")
    return state


def _maker(kind: type, names: tuple[str, ...]) -> Callable[[Any], Any]:
    def make(state: Any) -> Any:
        made: Any = object.__new__(kind)
        for name, value in _checked(state, names).items():
            object.__setattr__(made, name, value)  # a frozen one too
        return made

    return make


def _enum(kind: type[Enum]) -> Parts:
    if issubclass(kind, Flag):
        return Parts(lambda value: value.value, kind)
    return Parts(lambda value: value.name, lambda name: kind[name])


def _named_tuple(kind: Any) -> Parts:
    def make(state: Any) -> Any:
        if type(state) is not list or len(state) != len(kind._fields):
            raise ValueError("other fields")
        return tuple.__new__(kind, state)

    return Parts(list, make)


def _pydantic(kind: Any) -> Parts:
    names = tuple(kind.model_fields)

    def take(model: Any) -> list[Any]:
        given = sorted(model.model_fields_set)
        fields = {name: model.__dict__[name] for name in names if name in model.__dict__}
        return [fields, given, model.__pydantic_extra__, model.__pydantic_private__]

    def make(state: Any) -> Any:
        fields, given, extra, private = state
        made = kind.__new__(kind)
        # What pickle does, and for the same reason: validators have run already, and need not accept their own results.
        made.__setstate__(
            {
                "__dict__": _checked(fields, names),
                "__pydantic_fields_set__": set(given),
                "__pydantic_extra__": extra,
                "__pydantic_private__": private,
            }
        )
        return made

    return Parts(take, make)
