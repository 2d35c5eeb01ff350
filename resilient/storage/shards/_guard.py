"""What a keyed session refuses before anything is sent: writes for another shard, and writes without a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, ColumnElement

from resilient.errors import InvalidInput, Refused

__all__ = ["guard", "key_column"]

_MISSING = object()


def key_column(entity: Any, table: Any = None) -> str | None:
    """The name of the attribute that holds the shard key; ``None`` for what is not sharded.

    Args:
        entity: A mapped class, or ``None``.
        table: The table, for statements of Core; its ``info["shard_key"]`` names the column.
    """
    name = getattr(entity, "__shard_key__", None)
    if name is None and table is not None:
        name = getattr(table, "info", {}).get("shard_key")
    return name


def guard(maker: sessionmaker[Any], shard: str, shard_for: Callable[[Any], str]) -> None:
    """Make every session of a factory refuse what does not belong to its shard.

    Args:
        maker: The factory of one shard's sessions; it has a class of its own, which is what is changed.
        shard: The shard's name.
        shard_for: Tells where a key belongs.
    """
    check = _Check(shard, shard_for)
    event.listen(maker, "before_attach", check.attach)
    event.listen(maker, "before_flush", check.flush)
    event.listen(maker, "do_orm_execute", check.execute)
    for name in ("bulk_save_objects", "bulk_insert_mappings", "bulk_update_mappings"):
        setattr(maker.class_, name, _refuse_bulk)


def _refuse_bulk(*_arguments: object, **_options: object) -> None:
    raise Refused(
        "bulk methods of a session pass by the check of the shard key; nothing was sent",
        advice="use session.execute(insert(Model), rows)",
    )


class _Check:
    def __init__(self, shard: str, shard_for: Callable[[Any], str]) -> None:
        self._shard = shard
        self._shard_for = shard_for

    def key(self, value: Any, what: str, column: Any = None) -> None:
        """Refuse a key of another shard, what is no key, and what its column would store as another key."""
        if value is None or value is _MISSING:
            raise Refused(f"{what} has no shard key; nothing was sent", advice="set it before the object is flushed")
        if column is not None and not _kept(value, column.type):
            raise Refused(
                f"{what} has a shard key that its column would store in another form; nothing was sent",
                advice="turn it into the column's type first, as in int(key)",
            )
        try:
            belongs = self._shard_for(value)
        except InvalidInput as error:
            raise Refused(f"{what} has a shard key that is none; nothing was sent", advice=error.message) from error
        if belongs != self._shard:
            raise Refused(
                f"{what} belongs to shard {belongs!r} and this session writes to {self._shard!r}; nothing was sent",
                advice="write it in a session of its own: shards.session(key=…)",
            )

    # ----------------------------------------------------------------------------------------------- unit of work

    def attach(self, _session: Session, instance: Any) -> None:
        """Refuse an object that was read elsewhere, unless its key says that it may have been read here.

        It would be written, or read again, by its primary key: which here may be the row of somebody else.
        """
        name = key_column(type(instance))
        state: Any = sa.inspect(instance)
        if name is None or state.key is None:
            return  # a new object is looked at when it is flushed
        if name not in state.dict:
            raise Refused(
                f"an object of {type(instance).__name__} comes without its shard key; nothing was sent",
                advice="read it in this session, or keep its key loaded: expire_on_commit=False",
            )
        self.key(state.dict[name], f"an object of {type(instance).__name__}")

    def flush(self, session: Session, _context: object, _instances: object) -> None:
        for instance in (*session.new, *session.dirty, *session.deleted):
            name = key_column(type(instance))
            if name is None:
                continue
            state: Any = sa.inspect(instance)
            value = state.dict.get(name, _MISSING)
            if value is _MISSING and state.persistent:
                continue  # it was read from this shard and its key was not touched
            self.key(value, f"an object of {type(instance).__name__}", state.mapper.attrs[name].columns[0])

    # ------------------------------------------------------------------------------------------------- statements

    def execute(self, state: ORMExecuteState) -> None:
        if not (state.is_insert or state.is_update or state.is_delete):
            return
        statement: Any = state.statement
        entity = None if state.bind_mapper is None else state.bind_mapper.class_
        name = key_column(entity, statement.table)
        if name is None:
            return
        what = f"a write to {statement.table.name}"
        mapper: Any = state.bind_mapper
        columns = [statement.table.c.get(name)] if mapper is None else mapper.attrs[name].columns
        names = {name, *(each.name for each in columns if each is not None)}
        if state.is_insert:
            given = self._inserted(statement, state.parameters, names)
        elif isinstance(state.parameters, list):
            raise Refused(f"{what} by a list of primary keys names no shard key; nothing was sent")
        else:
            tables = {each.table.name for each in columns if each is not None}
            given = list(_compared(statement._where_criteria, names, tables))  # noqa: SLF001 - has no public reader
            if not given:
                raise Refused(
                    f"{what} does not say for which {name}; nothing was sent",
                    advice=f"add .where({name} == …)",
                )
            given += _assigned(statement, names)
            changed: Any = state.parameters or {}
            given += [changed[each] for each in names if each in changed]
        for value in given:
            self.key(value, what, columns[0])

    @staticmethod
    def _inserted(statement: Any, parameters: Any, names: set[str]) -> list[Any]:
        """The keys of the rows that an INSERT makes or, on a conflict, changes."""
        if statement.select is not None:
            raise Refused("an INSERT from a SELECT names no shard key; nothing was sent", advice="insert rows")
        given = list(_assigned(statement, names))
        common = given[0] if given else _MISSING
        rows = parameters if isinstance(parameters, list) else [parameters] if parameters else []
        given += [next((row[each] for each in names if each in row), common) for row in rows]
        return [*(given or [_MISSING]), *_on_conflict(statement, names)]


def _kept(value: Any, kind: Any) -> bool:
    """Whether a column keeps a key as it is given: ``"007"`` becomes 7 in a column of integers."""
    if not isinstance(value, str | bytes):
        return True
    text = value.decode(errors="replace") if isinstance(value, bytes) else str.__str__(value)
    try:
        if isinstance(kind, sa.Integer):
            return str(int(text)) == text
        if isinstance(kind, sa.Uuid) and isinstance(value, str):
            return str(UUID(text)) == text
    except ValueError:
        return False
    return True


def _assigned(statement: Any, names: set[str]) -> Iterator[Any]:
    """The values a statement sets the key to: one for each row, where it names the key at all."""
    # What values() was given has no public reader.
    many = [row for rows in getattr(statement, "_multi_values", ()) for row in rows]
    single = getattr(statement, "_values", None)
    for row in many or ([single] if single else []):
        if not isinstance(row, Mapping):
            yield _MISSING  # a tuple of values: which of them is the key is left to the order of the columns
            continue
        found = {getattr(column, "key", column): value for column, value in row.items()}
        name = next((each for each in names if each in found), None)
        if name is not None:
            yield _literal(found[name])
        elif many:
            yield _MISSING


def _on_conflict(statement: Any, names: set[str]) -> Iterator[Any]:
    """The values that the key gets where the row is there already; one that was to be inserted was looked at."""
    # The dialects' own clauses have no public reader: MariaDB's has a dict, that of SQLite a list of pairs.
    clause = getattr(statement, "_post_values_clause", None)
    changes = getattr(clause, "update", None) or getattr(clause, "update_values_to_set", None) or ()
    for column, value in changes.items() if isinstance(changes, Mapping) else changes:
        if getattr(column, "key", column) in names:
            source = getattr(getattr(value, "table", None), "name", None)
            if source not in {"excluded", "inserted"} or getattr(value, "key", None) not in names:
                yield _literal(value)


def _compared(criteria: Any, names: set[str], tables: set[str]) -> Iterator[Any]:
    """The values the key is compared with by ``==`` or ``in_``, where every row that is touched must match."""
    for each in criteria:
        if isinstance(each, BooleanClauseList) and each.operator is operators.and_:
            yield from _compared(each.clauses, names, tables)
        elif isinstance(each, BinaryExpression) and _is_key(each.left, names, tables):
            if each.operator is operators.eq:
                yield _literal(each.right)
            elif each.operator is operators.in_op and isinstance(_literal(each.right), list | tuple):
                yield from _literal(each.right)


def _is_key(column: Any, names: set[str], tables: set[str]) -> bool:
    """Whether it is the key of the table itself: not that of another one, nor of an alias beside it."""
    table = getattr(column, "table", None)
    return getattr(column, "key", None) in names and getattr(table, "name", None) in tables


def _literal(value: Any) -> Any:
    if isinstance(value, BindParameter):
        # A parameter with a name may be given another value when the statement is executed.
        return value.effective_value if value.unique else _MISSING
    return _MISSING if isinstance(value, ColumnElement) else value
