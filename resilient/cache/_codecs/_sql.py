"""Rows and entities of SQLAlchemy, seen from outside: it is imported only where bytes or classes come from it.

A row is kept as the names of its columns and its values. An entity is kept as the values of its loaded columns and its
loaded relationships, and comes back detached, as it would be after its session was closed: what was not loaded raises
``DetachedInstanceError`` when it is touched, and ``session.merge(entity, load=False)`` brings it into a session.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from resilient.errors import InvalidInput

__all__ = [
    "build",
    "check_entity",
    "collection",
    "columns_of",
    "connect",
    "is_mapped",
    "is_row",
    "loaded",
    "loosened",
    "make_rows",
    "related",
    "row_of",
]

_REFRESH = "call session.refresh(entity) before returning it, or make the session with expire_on_commit=False"


def _orm() -> Any:
    """The ORM, if the program uses it."""
    return sys.modules.get("sqlalchemy.orm")


def mapper_of(kind: Any) -> Any:
    """The mapper of a class; ``None`` where it is not mapped."""
    if _orm() is None or not isinstance(kind, type) or "_sa_class_manager" not in kind.__dict__:
        return None
    return sys.modules["sqlalchemy"].inspect(kind, raiseerr=False)


def is_mapped(kind: Any) -> bool:
    """Whether it is a class of entities."""
    return mapper_of(kind) is not None


def columns_of(kind: type) -> dict[str, Any]:
    """The columns of a class of entities, and the types their values have as far as they tell."""
    return {each.key: _python_type(each.columns[0].type) for each in mapper_of(kind).column_attrs}


def _python_type(column: Any) -> Any:
    try:
        return column.python_type
    except NotImplementedError:
        return Any


def related(kind: type) -> list[type]:
    """The classes that a class of entities refers to."""
    mapper = mapper_of(kind)
    return [] if mapper is None else [each.mapper.class_ for each in mapper.relationships]


# ------------------------------------------------------------------------------------------------------------ rows


def is_row(kind: type) -> bool:
    """Whether it is the class of rows, or of rows as mappings."""
    module = sys.modules.get("sqlalchemy.engine.row")
    return module is not None and issubclass(kind, module.Row | module.RowMapping)


def row_of(row: Any) -> tuple[bool, list[str], list[Any]]:
    """Whether a row is a mapping, its names and its values."""
    if hasattr(row, "_mapping"):
        return False, [str(name) for name in row._fields], list(row)
    return True, [str(name) for name in row], list(row.values())


def make_rows(mapping: bool, names: list[str], rows: Sequence[Sequence[Any]]) -> list[Any]:  # noqa: FBT001 - as it is stored
    """Rows of names and values."""
    if not all(type(row) is list and len(row) == len(names) for row in rows):
        raise ValueError("a row of another length")
    make = _row_maker(tuple(names))
    made = [make(row) for row in rows]
    return [row._mapping for row in made] if mapping else made  # noqa: SLF001 - its public name


@lru_cache(maxsize=512)
def _row_maker(names: tuple[str, ...]) -> Any:
    from sqlalchemy.engine.result import result_tuple

    if not all(type(name) is str for name in names):
        raise ValueError("a name that is no text")
    return result_tuple(names)


# -------------------------------------------------------------------------------------------------------- entities


def loosened(kind: type) -> Any:
    """How a value of a class that SQLAlchemy puts around a plain one becomes plain; ``None`` for all other classes."""
    for module, name, plain in _AROUND:
        around = getattr(sys.modules.get(module), name, None)
        if around is not None and issubclass(kind, around):
            return plain
    return None


_AROUND: tuple[tuple[str, str, Any], ...] = (
    ("sqlalchemy.orm.collections", "InstrumentedList", list),
    ("sqlalchemy.orm.collections", "InstrumentedSet", set),
    ("sqlalchemy.orm.collections", "InstrumentedDict", dict),
    ("sqlalchemy.ext.mutable", "MutableDict", dict),
    ("sqlalchemy.ext.mutable", "MutableList", list),
    ("sqlalchemy.ext.mutable", "MutableSet", set),
    ("sqlalchemy.sql.elements", "quoted_name", str),
)


def check_entity(entity: Any) -> Any:
    """The state of an entity that can be stored.

    Raises:
        InvalidInput: It is not in the database as it stands here, or some of it was not loaded again.
    """
    state = sys.modules["sqlalchemy"].inspect(entity)
    name = type(entity).__qualname__
    if state.key is None or state.deleted or state.was_deleted:
        raise InvalidInput(
            f"a {name} cannot be cached: it is not stored in the database, or deleted there",
            advice="flush it first, or return a dataclass of its values",
        )
    if state.modified:
        raise InvalidInput(
            f"a {name} cannot be cached: it holds changes that are not in the database",
            advice="commit or flush them before returning it, or return a dataclass of its values",
        )
    primary = {state.mapper.get_property_by_column(each).key for each in state.mapper.primary_key}
    base = {each.key for each in state.mapper.base_mapper.column_attrs}  # a query of the base leaves others for later
    if state.expired or state.expired_attributes & base or not primary <= state.dict.keys():
        raise InvalidInput(
            f"a {name} cannot be cached: its columns are expired, as after a commit",
            advice=f"{_REFRESH}; or return a dataclass of its values",
        )
    return state


def loaded(state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of the loaded columns of an entity, and the loaded entities it refers to: one, a list, or none."""
    values = state.dict
    columns = {each.key: values[each.key] for each in state.mapper.column_attrs if each.key in values}
    others: dict[str, Any] = {}
    for each in state.mapper.relationships:
        if each.key in values and each.lazy not in {"dynamic", "write_only"}:
            value = values[each.key]
            others[each.key] = list(collection(value)) if each.uselist and value is not None else value
    return columns, others


def collection(value: Any) -> list[Any]:
    """The entities of a collection, whatever its class."""
    return list(sys.modules["sqlalchemy.orm.collections"].collection_adapter(value))


def build(kind: type, columns: dict[str, Any]) -> Any:
    """An entity of column values, detached.

    Raises:
        ValueError: There is no such column.
    """
    mapper = mapper_of(kind)
    if mapper is None or not columns.keys() <= {each.key for each in mapper.column_attrs}:
        raise ValueError("other columns")
    entity = mapper.class_manager.new_instance()
    entity.__dict__.update(columns)
    _orm().make_transient_to_detached(entity)
    return entity


def connect(entity: Any, others: dict[str, Any]) -> None:
    """Give an entity the entities it refers to, and let those who wait for a loaded entity see it.

    Raises:
        ValueError: There is no such relationship.
    """
    state = sys.modules["sqlalchemy"].inspect(entity)
    if not others.keys() <= {each.key for each in state.mapper.relationships}:
        raise ValueError("other relationships")
    for name, value in others.items():
        sys.modules["sqlalchemy.orm.attributes"].set_committed_value(entity, name, value)
    # What a load does beside setting values: mutable values watch themselves again, and reconstructors run.
    state.manager.dispatch.load(state, None)
