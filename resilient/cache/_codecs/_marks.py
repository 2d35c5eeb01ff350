"""Values to msgpack and back without a type: what msgpack would flatten is marked, so that it comes back as it was."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import fractions
import ipaddress
import pathlib
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from resilient.cache._codecs._plain import DEEPEST
from resilient.errors import InvalidInput

__all__ = ["CONTENT", "MARKS", "UNMARK", "Writer", "tag"]

Ext = msgspec.msgpack.Ext
Mark: TypeAlias = Callable[["Writer", Any, int], Any]

_AS_IS = frozenset({str, int, float, bool, type(None), bytes})
_SURE = frozenset({float, bool, type(None), bytes})
_RANGE = range(-(2**63), 2**64)


class Writer:
    """Marks one value.

    Args:
        find: The mark for a class that is none of the language's; raises InvalidInput where there is none.
        careful: Look at each text and each number too: some are no UTF-8, some longer than 64 bits.
    """

    __slots__ = ("_as_is", "entities", "find", "used")

    def __init__(self, find: Callable[[type], Mark], *, careful: bool = False) -> None:
        self.find = find
        self.entities: Any = None
        self.used = False  # whether an object of a class was met, so that its reader must know that class
        self._as_is = _SURE if careful else _AS_IS

    def mark(self, value: Any, depth: int) -> Any:
        """The value with marks.

        Raises:
            InvalidInput: It holds what could not be brought back.
        """
        kind = type(value)
        if kind in self._as_is:
            return value
        if depth > DEEPEST:
            raise InvalidInput(
                f"a value nested more than {DEEPEST} deep cannot be cached", advice="does it hold itself?"
            )
        known = MARKS.get(kind)
        return (self.find(kind) if known is None else known)(self, value, depth + 1)

    def together(self, kind: type) -> Mark | None:
        """What marks a whole list that begins with such a value, if anything does."""
        return None if kind in _AS_IS or kind in MARKS else getattr(self.find(kind), "together", None)

    def marks(self, values: Any, depth: int) -> list[Any]:
        """The values of a container with marks."""
        as_is, mark = self._as_is, self.mark
        return [each if type(each) in as_is else mark(each, depth) for each in values]


def tag(code: int, content: Any) -> Any:
    """A mark."""
    return Ext(code, msgspec.msgpack.encode(content))


def _dict(writer: Writer, value: dict[Any, Any], depth: int) -> Any:
    names = writer.marks(value, depth)
    each = writer.marks(value.values(), depth)
    if any(type(name) is Ext for name in names):
        return tag(13, list(zip(names, each, strict=True)))  # a key such as a tuple or a Decimal
    return dict(zip(names, each, strict=True))


def _list(writer: Writer, value: list[Any], depth: int) -> Any:
    together = writer.together(type(value[0])) if value else None
    whole = together(writer, value, depth) if together is not None else None
    return writer.marks(value, depth) if whole is None else whole


def _moment(code: int) -> Mark:
    """The mark of a datetime or a time: its text, its zone by name if it has one, and its fold."""

    def mark(_: Writer, value: Any, __: int) -> Any:
        zone = value.tzinfo
        if type(zone) is zoneinfo.ZoneInfo and zone.key:
            return tag(code, [value.replace(tzinfo=None).isoformat(), zone.key, value.fold])
        return tag(code, [value.isoformat(), "", value.fold])

    return mark


def _unmoment(kind: Any) -> Callable[[list[Any]], Any]:
    def unmark(content: list[Any]) -> Any:
        text, zone, fold = content
        made = kind.fromisoformat(text)
        return made.replace(tzinfo=zoneinfo.ZoneInfo(zone) if zone else made.tzinfo, fold=fold)

    return unmark


def _fraction(content: list[Any]) -> fractions.Fraction:
    above, below = content
    return fractions.Fraction(int(above, 16), int(below, 16))  # as text, 1e999999999 would fill the memory


def _path(_: Writer, value: pathlib.PurePath, __: int) -> Any:
    return tag(16, [type(value).__name__, str(value)])


_PATHS = {each.__name__: each for each in (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))}
_NETS: tuple[type, ...] = (
    *(ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Interface, ipaddress.IPv6Interface),
    *(ipaddress.IPv4Network, ipaddress.IPv6Network),
)


MARKS: dict[type, Mark] = {
    str: lambda _, value, __: value if value.isascii() or _is_utf8(value) else tag(18, value.encode(errors=_HALVES)),
    int: lambda _, value, __: value if value in _RANGE else tag(1, hex(value)),
    dict: _dict,
    list: _list,
    tuple: lambda writer, value, depth: tag(2, writer.marks(value, depth)),
    set: lambda writer, value, depth: tag(3, writer.marks(value, depth)),
    frozenset: lambda writer, value, depth: tag(4, writer.marks(value, depth)),
    decimal.Decimal: lambda _, value, __: tag(5, str(value)),
    uuid.UUID: lambda _, value, __: tag(6, value.hex),
    dt.datetime: _moment(7),
    dt.date: lambda _, value, __: tag(8, value.isoformat()),
    dt.time: _moment(9),
    dt.timedelta: lambda _, value, __: tag(10, [value.days, value.seconds, value.microseconds]),
    bytearray: lambda _, value, __: tag(11, bytes(value)),
    complex: lambda _, value, __: tag(12, [value.real, value.imag]),
    collections.OrderedDict: lambda writer, value, depth: tag(
        14, [writer.marks(each, depth) for each in value.items()]
    ),
    collections.deque: lambda writer, value, depth: tag(15, [value.maxlen, writer.marks(value, depth)]),
    fractions.Fraction: lambda _, value, __: tag(17, [hex(value.numerator), hex(value.denominator)]),
    **dict.fromkeys(_PATHS.values(), _path),
    **{kind: lambda _, value, __, at=at: tag(19, [at, str(value)]) for at, kind in enumerate(_NETS)},  # type: ignore[misc]  # a default binds the loop's variable
}
_HALVES = "surrogatepass"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


UNMARK: dict[int, Callable[[Any], Any]] = {
    1: lambda content: int(content, 16),
    2: tuple,
    3: set,
    4: frozenset,
    5: decimal.Decimal,
    6: lambda content: uuid.UUID(hex=content),
    7: _unmoment(dt.datetime),
    8: dt.date.fromisoformat,
    9: _unmoment(dt.time),
    10: lambda content: dt.timedelta(*content),
    11: bytearray,
    12: lambda content: complex(*content),
    13: dict,
    14: collections.OrderedDict,
    15: lambda content: collections.deque(content[1], content[0]),
    16: lambda content: _PATHS[content[0]](content[1]),
    17: _fraction,
    18: lambda content: content.decode(errors=_HALVES),
    19: lambda content: _NETS[content[0]](content[1]),
}

CONTENT: dict[int, type] = {1: str, 5: str, 6: str, 8: str, 11: bytes, 18: bytes}
"""What stands inside a mark, so that ``bytearray(10**12)`` is no short entry that fills the memory; else a list."""
