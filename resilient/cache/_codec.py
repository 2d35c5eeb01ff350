"""Values to bytes and back, safely: nothing that is read can execute anything.

Two codecs share msgpack. The *typed* one writes a value of a known type and reads it back as that type. The *tagged*
one serves where no type is known: it marks what msgpack alone would flatten (a tuple, a set, a Decimal), so that a
value comes back equal and of the same type. Neither accepts what it could not bring back.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import typing
import uuid
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from resilient.cache._entry import Unreadable
from resilient.errors import ConfigurationError, InvalidInput

__all__ = ["ABSENCE", "ANYTHING", "TAGGED", "TYPED", "Codec"]

TYPED = 1
TAGGED = 2
ABSENCE = 3

_RANGE = range(-(2**63), 2**64)
_DEEPEST = 200  # nesting; a deeper value is refused rather than overflowing the stack


# -------------------------------------------------------------------------------------------------------- tagged

_PLAIN = (str, float, bool, type(None), bytes)


def _tag(code: int, content: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, msgspec.msgpack.encode(content))


_MARK: dict[type, Callable[[Any, int], Any]] = {
    int: lambda value, _: value if value in _RANGE else _tag(1, str(value)),
    list: lambda value, depth: [_mark(each, depth) for each in value],
    tuple: lambda value, depth: _tag(2, [_mark(each, depth) for each in value]),
    set: lambda value, depth: _tag(3, [_mark(each, depth) for each in value]),
    frozenset: lambda value, depth: _tag(4, [_mark(each, depth) for each in value]),
    decimal.Decimal: lambda value, _: _tag(5, str(value)),
    uuid.UUID: lambda value, _: _tag(6, value.hex),
    dt.datetime: lambda value, _: _tag(7, value.isoformat()),
    dt.date: lambda value, _: _tag(8, value.isoformat()),
    dt.time: lambda value, _: _tag(9, value.isoformat()),
    dt.timedelta: lambda value, _: _tag(10, [value.days, value.seconds, value.microseconds]),
    bytearray: lambda value, _: _tag(11, bytes(value)),
    complex: lambda value, _: _tag(12, [value.real, value.imag]),
}

_UNMARK: dict[int, Callable[[Any], Any]] = {
    1: int,
    2: tuple,
    3: set,
    4: frozenset,
    5: decimal.Decimal,
    6: lambda content: uuid.UUID(hex=content),
    7: dt.datetime.fromisoformat,
    8: dt.date.fromisoformat,
    9: dt.time.fromisoformat,
    10: lambda content: dt.timedelta(*content),
    11: bytearray,
    12: lambda content: complex(*content),
    13: dict,
}


def _mark(value: Any, depth: int = 0) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    mark = _MARK.get(kind)
    if mark is None:
        raise TypeError(f"a {kind.__qualname__}")
    if depth > _DEEPEST:
        raise TypeError("a value nested that deep")
    return mark(value, depth + 1)


def _mark_dict(value: dict[Any, Any], depth: int) -> Any:
    marked = [(_mark(name, depth), _mark(each, depth)) for name, each in value.items()]
    if any(isinstance(name, msgspec.msgpack.Ext) for name, _ in marked):
        return _tag(13, marked)  # a key such as a tuple or a Decimal
    return dict(marked)


_MARK[dict] = _mark_dict


_CONTENT: dict[int, type] = {1: str, 5: str, 6: str, 7: str, 8: str, 9: str, 11: bytes}  # of all others: list


def _unmark(code: int, data: memoryview) -> Any:
    content = _READ_TAGGED.decode(data)
    if type(content) is not _CONTENT.get(code, list):
        raise ValueError(code)  # bytearray(10**12) would be a short entry that fills the memory
    return _UNMARK[code](content)


_READ_TAGGED = msgspec.msgpack.Decoder(ext_hook=_unmark)


# --------------------------------------------------------------------------------------------------------- types


def _shape(kind: Any, seen: frozenset[Any] = frozenset()) -> str:
    """A text that changes when the layout of a type does."""
    inner = ",".join(_shape(each, seen) for each in typing.get_args(kind))
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', repr(kind))}"
    if inner or not _has_fields(kind) or kind in seen:
        return f"{typing.get_origin(kind) or name}[{inner}]"
    fields = typing.get_type_hints(kind)
    return f"{name}({','.join(f'{field}:{_shape(each, seen | {kind})}' for field, each in fields.items())})"


def _has_fields(kind: Any) -> bool:
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind)
        or issubclass(kind, msgspec.Struct)
        or hasattr(kind, "__attrs_attrs__")
        or (issubclass(kind, dict | tuple) and bool(getattr(kind, "__annotations__", None)))
    )


def _parts(kind: Any, seen: set[Any]) -> typing.Iterator[Any]:
    """The types a type is made of, itself included."""
    if kind in seen:
        return
    seen.add(kind)
    yield kind
    inner = list(typing.get_args(kind))
    if _has_fields(kind):
        inner += typing.get_type_hints(kind).values()
    for each in inner:
        yield from _parts(each, seen)


def _is_open(kind: Any) -> bool:
    """Whether a type leaves open what is inside, so that only the tagged codec brings it back whole."""
    parts = list(_parts(kind, set()))
    bare = {Any, object, dict, list, tuple, set, frozenset}
    return any(part in bare for part in parts if isinstance(part, type) or part is Any) and not any(
        map(_has_fields, parts)
    )


class _Anything:
    """The type of values of which no type is known."""

    def __repr__(self) -> str:
        return "ANYTHING"


ANYTHING: Any = _Anything()


class Codec:
    """Writes and reads the values of one type.

    Args:
        kind: The type; `ANYTHING` where none is known.
        version: A number of the user's, changed when entries written so far must not be read any more.

    Raises:
        ConfigurationError: The type cannot be read back by any codec.

    Examples:
        >>> codec = Codec(ANYTHING)
        >>> number, body = codec.encode({1: ("a", {2})})
        >>> codec.decode(number, codec.schema, body)
        {1: ('a', {2})}
    """

    __slots__ = ("_decoder", "_kind", "schema")

    def __init__(self, kind: Any = ANYTHING, version: int = 0) -> None:
        self._kind = kind
        self._decoder: msgspec.msgpack.Decoder[Any] | None = None
        text = "" if kind is ANYTHING else _shape(kind)
        self.schema = zlib.crc32(f"{version}:{text}".encode()) if text or version else 0
        if kind is ANYTHING or _is_open(kind):
            return
        try:
            self._decoder = msgspec.msgpack.Decoder(typing.Optional[kind])  # noqa: UP045 - kind may be any form, also text
        except TypeError as error:
            raise ConfigurationError(f"values of the type {kind!r} cannot be cached: {error}") from error

    def encode(self, value: Any) -> tuple[int, bytes]:
        """The number of the codec and the body.

        Raises:
            InvalidInput: The value holds something that could not be brought back.
        """
        try:
            if self._decoder is not None:
                return TYPED, msgspec.msgpack.encode(value)
            return TAGGED, msgspec.msgpack.encode(_mark(value))
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise InvalidInput(
                f"this value cannot be cached: {error}",
                advice="return a dataclass, a msgspec.Struct or plain values, and annotate the function with that type",
            ) from error

    @staticmethod
    def absence(message: str) -> tuple[int, bytes]:
        """The body of an entry that says "there is no such thing"."""
        return ABSENCE, message.encode(errors="replace")

    def decode(self, number: int, schema: int, body: bytes) -> Any:
        """The value of an entry.

        Raises:
            Unreadable: The bytes are broken, or were written for another type.
        """
        if schema and self.schema and schema != self.schema:
            raise Unreadable("other schema")
        try:
            if number == ABSENCE:
                return body.decode()
            if number == TYPED:
                return self._decoder.decode(body) if self._decoder is not None else msgspec.msgpack.decode(body)
            if number == TAGGED:
                value = _READ_TAGGED.decode(body)
                return value if self._decoder is None or value is None else msgspec.convert(value, self._kind)
        except Exception as error:
            # Broken bytes may raise anything inside a constructor of the user's; whatever it is, they are unreadable.
            raise Unreadable("bad bytes") from error
        raise Unreadable("other codec")
