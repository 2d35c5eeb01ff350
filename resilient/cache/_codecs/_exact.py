"""The exact form: values with marks, and objects of the classes that the annotated type names.

Bytes never choose a class freely: a name in them is looked for among those classes and their subclasses, and what is
not there is not made.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from resilient.cache._codecs import _sql
from resilient.cache._codecs._marks import CONTENT, UNMARK, Mark, Writer, tag
from resilient.cache._codecs._objects import Parts, parts_of
from resilient.cache._codecs._refusal import refusal
from resilient.cache._codecs._types import ANYTHING, classes, is_pydantic, shape
from resilient.errors import InvalidInput

__all__ = ["Exact"]

_OBJECT, _MODEL, _ROW, _ROWS, _GRAPH, _REFERENCE = 20, 21, 22, 23, 30, 31
_MOST = 10_000  # entities in one value


class Exact:
    """Writes and reads values of one type in the exact form.

    Args:
        kind: The type; with `ANYTHING` no class is known, and only values of the language and rows are written.

    Examples:
        >>> exact = Exact(ANYTHING)
        >>> exact.read(exact.write({1: ("a", {2})})[1])
        {1: ('a', {2})}
    """

    def __init__(self, kind: Any) -> None:
        self.untyped = kind is ANYTHING
        self._kind = kind
        self._roots: list[type] | None = None
        self._marks: dict[type, Mark] = {}
        self._parts: dict[str, Parts] = {}
        self._layouts: dict[type, int] = {}
        self.read: Callable[[Any], Any] = _Reader(self).read

    @property
    def roots(self) -> list[type]:
        """The classes that the type names; found at first use, when what they refer to is set up."""
        if self._roots is None:
            self._roots = classes(self._kind)
        return self._roots

    def write(self, value: Any) -> tuple[bool, bytes]:
        """Whether its reader must know a class, and the bytes.

        Raises:
            InvalidInput: It holds what could not be brought back.
        """
        try:
            return self._write(value, Writer(self._find))
        except (OverflowError, UnicodeEncodeError):
            return self._write(value, Writer(self._find, careful=True))

    def _write(self, value: Any, writer: Writer) -> tuple[bool, bytes]:
        marked = writer.mark(value, 0)
        if writer.entities is not None:
            marked = tag(_GRAPH, [writer.entities.kinds, writer.entities.table, marked])
        return writer.used, msgspec.msgpack.encode(marked)

    def _find(self, kind: type) -> Mark:
        known = self._marks.get(kind)
        if known is None:
            known = self._marks[kind] = self._mark_of(kind)
        return known

    def _mark_of(self, kind: type) -> Mark:
        if _sql.is_row(kind):
            return _Row()
        loosened = _sql.loosened(kind)
        if loosened is not None:
            return lambda writer, value, depth: writer.mark(loosened(value), depth)
        if not any(root in kind.__mro__ for root in self.roots):
            raise refusal(kind, known=not self.untyped)
        if _sql.is_mapped(kind):
            return self._entity
        parts = parts_of(kind)
        if parts is None:
            raise refusal(kind, known=True)
        return _model(name_of(kind), parts) if is_pydantic(kind) else _object(name_of(kind), parts)

    def _entity(self, writer: Writer, value: Any, _: int) -> Any:
        writer.used = True
        if writer.entities is None:
            writer.entities = _Graph(self, writer)
        return tag(_REFERENCE, writer.entities.place(value))

    def layout(self, kind: type) -> int:
        """A number that changes with the columns of a class of entities."""
        if kind not in self._layouts:
            self._layouts[kind] = zlib.crc32(shape(kind).encode())
        return self._layouts[kind]

    def find_class(self, name: str) -> type:
        """The class of that name among those that may be made. Raises ValueError where it is none of them."""
        rest, seen = list(self.roots), set[type]()
        while rest:
            kind = rest.pop()
            if name_of(kind) == name:
                return kind
            if kind not in seen:
                seen.add(kind)
                rest += type.__subclasses__(kind)
        raise ValueError(name)

    def make(self, name: str, state: Any) -> Any:
        """An object of its class and its fields. Raises ValueError where it may not be made."""
        parts = self._parts.get(name)
        if parts is None:
            if self.untyped:
                return state  # without a type its fields are what there is
            found = parts_of(self.find_class(name))
            if found is None:
                raise ValueError(name)
            parts = self._parts[name] = found
        return parts.make(state)


def name_of(kind: type) -> str:
    """What a class is called in bytes."""
    return f"{kind.__module__}:{kind.__qualname__}"


# --------------------------------------------------------------------------------------------------- marks of objects


def _object(name: str, parts: Parts) -> Mark:
    def mark(writer: Writer, value: Any, depth: int) -> Any:
        writer.used = True
        return tag(_OBJECT, [name, writer.mark(parts.take(value), depth)])

    return mark


def _model(name: str, parts: Parts) -> Mark:
    whole = _object(name, parts)

    def mark(writer: Writer, value: Any, depth: int) -> Any:
        try:
            return whole(writer, value, depth)
        except InvalidInput:
            # A field of a class known to pydantic alone, such as its URLs: in pydantic's words, if it reads them again.
            text = value.model_dump_json(round_trip=True, by_alias=True)
            if type(value).model_validate_json(text) != value:
                raise
            return tag(_MODEL, [name, text])

    return mark


class _Row:
    """The mark of a row, and of a list of them, whose names are kept once."""

    def __call__(self, writer: Writer, value: Any, depth: int) -> Any:
        mapping, names, row = _sql.row_of(value)
        return tag(_ROW, [mapping, names, writer.marks(row, depth)])

    def together(self, writer: Writer, rows: list[Any], depth: int) -> Any:
        """All rows of a list; ``None`` where they are not all alike."""
        mapping, names, _ = _sql.row_of(rows[0])
        kind = type(rows[0])
        found = []
        for each in rows:
            if type(each) is not kind:
                return None
            _, its, row = _sql.row_of(each)
            if its != names:
                return None
            found.append(writer.marks(row, depth))
        return tag(_ROWS, [mapping, names, found])


class _Graph:
    """Entities and those they refer to, each once, however they refer to each other."""

    def __init__(self, exact: Exact, writer: Writer) -> None:
        self.kinds: list[Any] = []
        self.table: list[Any] = []
        self._exact = exact
        self._writer = writer
        self._kind_places: dict[type, int] = {}
        self._places: dict[int, int] = {}
        self._waiting: list[Any] = []

    def place(self, entity: Any) -> int:
        """The place of an entity in the table; it and all that it has loaded are put there."""
        index = self._enlist(entity)
        while self._waiting:
            self._take(*self._waiting.pop())
        return index

    def _enlist(self, entity: Any) -> int:
        known = self._places.get(id(entity))
        if known is not None:
            return known
        if len(self.table) >= _MOST:
            raise InvalidInput(
                f"this value cannot be cached: more than {_MOST} entities hang together in it",
                advice="load fewer relationships, or return dataclasses of what is needed",
            )
        index = self._places[id(entity)] = len(self.table)
        self.table.append(None)
        self._waiting.append((index, entity))
        return index

    def _take(self, index: int, entity: Any) -> None:
        kind = type(entity)
        state = _sql.check_entity(entity)
        columns, others = _sql.loaded(state)
        refers = {
            name: [self._enlist(each) for each in value]
            if type(value) is list
            else (None if value is None else self._enlist(value))
            for name, value in others.items()
        }
        marked = {name: self._writer.mark(value, 1) for name, value in columns.items()}
        self.table[index] = [self._kind(kind), marked, refers]

    def _kind(self, kind: type) -> int:
        if kind not in self._kind_places:
            self._kind_places[kind] = len(self.kinds)
            self.kinds.append([name_of(kind), self._exact.layout(kind)])
        return self._kind_places[kind]


# ----------------------------------------------------------------------------------------------------------- reading


class _Reader:
    """Reads one exact value; inside a graph it knows the graph's entities."""

    def __init__(self, exact: Exact, entities: list[Any] | None = None) -> None:
        self._exact = exact
        self._entities = entities
        self.read = msgspec.msgpack.Decoder(ext_hook=self._unmark).decode

    def _unmark(self, code: int, data: memoryview) -> Any:
        if code == _GRAPH and self._entities is None:
            return self._graph(data)
        content: Any = self.read(data)
        if code == _REFERENCE and self._entities is not None:
            return _at(self._entities, content)
        if type(content) is not CONTENT.get(code, list):
            raise ValueError(code)  # bytearray(10**12) would be a short entry that fills the memory
        plain = UNMARK.get(code)
        return self._object(code, content) if plain is None else plain(content)

    def _object(self, code: int, content: Any) -> Any:
        if code == _OBJECT:
            name, state = content
            return self._exact.make(name, state)
        if code == _MODEL:
            name, text = content
            kind: Any = self._exact.find_class(name)
            if not is_pydantic(kind):
                raise ValueError(name)
            return kind.model_validate_json(text)
        if code == _ROW:
            mapping, names, row = content
            return _sql.make_rows(mapping, names, [row])[0]
        if code == _ROWS:
            return _sql.make_rows(*content)
        raise ValueError(code)

    def _graph(self, data: memoryview) -> Any:
        kinds, table, rest = msgspec.msgpack.decode(data, type=tuple[msgspec.Raw, msgspec.Raw, msgspec.Raw])
        names, rows = self.read(kinds), self.read(table)
        if self._exact.untyped:
            return _Reader(self._exact, [columns for _, columns, _ in rows]).read(rest)
        found = [self._exact.find_class(name) for name, _ in names]
        if [self._exact.layout(kind) for kind in found] != [layout for _, layout in names]:
            raise ValueError("other columns")
        made = [_sql.build(_at(found, index), columns) for index, columns, _ in rows]
        for entity, (_, _, others) in zip(made, rows, strict=True):
            _sql.connect(entity, {name: _resolved(each, made) for name, each in others.items()})
        return _Reader(self._exact, made).read(rest)


def _at(things: list[Any], index: Any) -> Any:
    if type(index) is not int or index < 0:
        raise ValueError("no such entity")
    return things[index]


def _resolved(refers: Any, made: list[Any]) -> Any:
    if type(refers) is list:
        return [_at(made, each) for each in refers]
    return None if refers is None else _at(made, refers)
