"""What a keyed session refuses before anything is sent: writes for another shard, and writes without a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

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

    def key(self, value: Any, what: str) -> None:
        """Refuse a key of another shard, and what is no key."""
        if value is None or value is _MISSING:
            raise Refused(f"{what} has no shard key; nothing was sent", advice="set it before the object is flushed")
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

    def flush(self, session: Session, _context: object, _instances: object) -> None:
        for instance in (*session.new, *session.dirty, *session.deleted):
            name = key_column(type(instance))
            if name is None:
                continue
            state: Any = sa.inspect(instance)
            value = state.dict.get(name, _MISSING)
            if value is _MISSING and state.persistent:
                continue  # it was read from this shard and its key was not touched
            self.key(value, f"an object of {type(instance).__name__}")

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
        column = name if entity is None else state.bind_mapper.attrs[name].columns[0].name  # type: ignore[union-attr]
        names = {name, column}
        if state.is_insert:
            self._insert(statement, state.parameters, names, what)
            return
        if isinstance(state.parameters, list):
            raise Refused(f"{what} by a list of primary keys names no shard key; nothing was sent")
        values = list(_compared(statement._where_criteria, names))  # noqa: SLF001 - has no public reader
        if not values:
            raise Refused(
                f"{what} does not say for which {name}; nothing was sent",
                advice=f"add .where({name} == …)",
            )
        for value in (*values, *_assigned(statement, names)):
            self.key(value, what)

    def _insert(self, statement: Any, parameters: Any, names: set[str], what: str) -> None:
        if statement.select is not None:
            raise Refused(f"{what} from a SELECT names no shard key; nothing was sent", advice="insert rows")
        given = list(_assigned(statement, names))
        common = given[0] if given else _MISSING
        rows = parameters if isinstance(parameters, list) else [parameters] if parameters else []
        given += [next((row[each] for each in names if each in row), common) for row in rows]
        for value in given or [_MISSING]:
            self.key(value, what)


def _assigned(statement: Any, names: set[str]) -> Iterator[Any]:
    """The values a statement sets the key to: one for each row, where it names the key at all."""
    # What values() was given has no public reader.
    many = [row for rows in getattr(statement, "_multi_values", ()) for row in rows]
    single = getattr(statement, "_values", None)
    for row in many or ([single] if single else []):
        found = {getattr(column, "key", column): value for column, value in row.items()}
        name = next((each for each in names if each in found), None)
        if name is not None:
            yield _literal(found[name])
        elif many:
            yield _MISSING


def _compared(criteria: Any, names: set[str]) -> Iterator[Any]:
    """The values the key is compared with by ``==`` or ``in_``, where every row that is touched must match."""
    for each in criteria:
        if isinstance(each, BooleanClauseList) and each.operator is operators.and_:
            yield from _compared(each.clauses, names)
        elif isinstance(each, BinaryExpression) and getattr(each.left, "key", None) in names:
            if each.operator is operators.eq:
                yield _literal(each.right)
            elif each.operator is operators.in_op and isinstance(_literal(each.right), list | tuple):
                yield from _literal(each.right)


def _literal(value: Any) -> Any:
    if isinstance(value, BindParameter):
        return value.effective_value
    return _MISSING if isinstance(value, ColumnElement) else value
