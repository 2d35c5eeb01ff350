"""What a type is made of: which classes it names, whether msgspec reads it alone, and a text that tells its layout."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import sys
import types
import typing
import uuid
from collections.abc import Iterator
from enum import Enum, Flag
from typing import Any

import msgspec

from resilient.cache._codecs._sql import columns_of, is_mapped, related
from resilient.errors import ConfigurationError

__all__ = ["ANYTHING", "classes", "has_fields", "is_loose", "is_native", "is_open", "is_pydantic", "shape"]


class _Anything:
    """The type of values of which no type is known."""

    def __repr__(self) -> str:
        return "ANYTHING"


ANYTHING: Any = _Anything()

_LEAVES = {str, int, float, bool, type(None), bytes, decimal.Decimal, uuid.UUID, dt.date, dt.timedelta}
_TIMES = {dt.datetime, dt.time}  # msgspec brings them back equal, but in another time zone
_BARE = {
    *(Any, object, dict, list, tuple, set, frozenset),
    *(collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable),
    *(collections.abc.Mapping, collections.abc.MutableMapping, collections.abc.MutableSequence),
}
_LANGUAGE = {"builtins", "typing", "types", "abc", "collections.abc", "numbers", "enum"}


def is_pydantic(kind: Any) -> bool:
    """Whether it is a model of pydantic 2."""
    module = sys.modules.get("pydantic")
    return module is not None and isinstance(kind, type) and issubclass(kind, module.BaseModel)


def has_fields(kind: Any) -> bool:
    """Whether it is a class of named fields that msgspec knows: dataclass, Struct, attrs, NamedTuple or TypedDict."""
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind)
        or issubclass(kind, msgspec.Struct)
        or hasattr(kind, "__attrs_attrs__")
        or (issubclass(kind, dict | tuple) and bool(getattr(kind, "__annotations__", None)))
    )


def _bare(kind: Any) -> Any:
    """The type under its names and remarks: NewType, Annotated, ``type X = ...``, a type variable."""
    while True:
        if isinstance(kind, typing.NewType):
            kind = kind.__supertype__
        elif isinstance(kind, typing.TypeVar):
            kind = kind.__bound__ or Any
        elif typing.get_origin(kind) is typing.Annotated or typing.get_origin(kind) in _WRAPPERS:
            kind = typing.get_args(kind)[0]
        elif hasattr(kind, "__value__") and not isinstance(kind, type):
            kind = kind.__value__
        else:
            return kind


_WRAPPERS = {typing.Required, typing.NotRequired, typing.ClassVar, typing.Final}


def _fields(kind: type) -> dict[str, Any]:
    """The fields of a class and their types.

    Raises:
        ConfigurationError: A type named there cannot be found.
    """
    if is_mapped(kind):
        return columns_of(kind)
    if is_pydantic(kind):
        return {name: field.annotation for name, field in kind.model_fields.items()}  # type: ignore[attr-defined]
    if not has_fields(kind):
        return {}
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError) as error:
        raise ConfigurationError(
            f"the fields of {kind.__qualname__} cannot be read: {error}",
            advice="import the types they name where the class's module can see them, not for type checkers alone",
        ) from error


def _walk(kind: Any, seen: list[Any]) -> Iterator[tuple[Any, bool]]:
    """The classes a type is made of (``Any`` where it says nothing), and whether each stands without arguments."""
    kind = _bare(kind)
    if any(each is kind for each in seen):
        return
    seen.append(kind)
    if kind is None:
        kind = type(None)
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        yield from ((type(each), True) for each in typing.get_args(kind))
        return
    holder = kind if origin is None else origin
    inner = [each for each in typing.get_args(kind) if each is not Ellipsis]
    if isinstance(holder, type):
        yield holder, not inner
        inner += _fields(holder).values()
        inner += related(holder)
    elif not inner:
        yield Any, True  # a name that is not resolved, or a form unknown here
    for each in inner:
        yield from _walk(each, seen)


def _all(kind: Any) -> list[tuple[Any, bool]]:
    return [(Any, True)] if kind is ANYTHING else list(_walk(kind, []))


def _is_own(kind: Any) -> bool:
    """Whether it is a class of the program's or of a library's, and none of the language's."""
    return isinstance(kind, type) and kind not in _LEAVES | _TIMES and kind.__module__ not in _LANGUAGE


def classes(kind: Any) -> list[type]:
    """The classes of its own that a type names, whose objects may therefore be made of bytes."""
    return [each for each, _ in _all(kind) if _is_own(each)]


def is_open(kind: Any) -> bool:
    """Whether a type leaves open what is inside and names no class, so that it says nothing."""
    return any(bare and each in _BARE for each, bare in _all(kind)) and not classes(kind)


def is_native(kind: Any) -> bool:
    """Whether msgspec alone reads a type, and as what was written."""
    return all(_is_native(each) for each, _ in _all(kind) if _is_own(each))


def _is_native(kind: Any) -> bool:
    if is_mapped(kind) or is_pydantic(kind) or issubclass(kind, Flag):
        return False
    if issubclass(kind, Enum):
        return {type(member.value) for member in kind} in ({str}, {int})
    return has_fields(kind)


def is_loose(kind: Any) -> bool:
    """Whether a value that msgspec brings back equal may yet not be the same: another time zone, another class."""
    return any(
        each in _TIMES
        or each in {set, frozenset}
        or (bare and each in _BARE)
        or has_fields(each)
        or getattr(each, "__module__", "") == "collections.abc"
        for each, bare in _all(kind)
    )


# ---------------------------------------------------------------------------------------------------------- layout


def shape(kind: Any) -> str:
    """A text that changes when the layout of a type does, and is the same in every process.

    That a value may also be ``None`` is no other layout: who finds a user or nobody reads what the writer of a user
    has written.

    Examples:
        >>> shape(bytes | None) == shape(bytes)
        True
    """
    kind = _bare(kind)
    if _origin(kind) is typing.Union:
        kind = typing.Union[tuple(each for each in typing.get_args(kind) if each is not type(None))]  # noqa: UP007
    return _shape(kind, ())


def _origin(kind: Any) -> Any:
    """As `typing.get_origin`; a union is the same however it was written."""
    origin = typing.get_origin(kind)
    return typing.Union if origin is types.UnionType else origin


def _shape(kind: Any, above: tuple[Any, ...]) -> str:
    kind = _bare(kind)
    origin = _origin(kind)
    if origin is typing.Literal:
        return f"Literal[{','.join(map(repr, typing.get_args(kind)))}]"
    inner = ",".join(_shape(each, above) for each in typing.get_args(kind) if each is not Ellipsis)
    holder = kind if origin is None else origin
    text = f"{_name(holder)}[{inner}]" if inner else _name(holder)
    if not isinstance(holder, type) or any(each is holder for each in above):
        return text
    if issubclass(holder, Enum):
        return f"{text}({','.join(f'{member.name}={member.value!r}' for member in holder)})"
    fields = _fields(holder)
    if not fields:
        return text
    return f"{text}({','.join(f'{name}:{_shape(each, (*above, holder))}' for name, each in fields.items())})"


def _name(kind: Any) -> str:
    if kind is None:
        return "None"
    name = getattr(kind, "__qualname__", None) or getattr(kind, "__name__", None) or getattr(kind, "_name", None)
    return f"{getattr(kind, '__module__', '')}.{name or type(kind).__qualname__}"
