"""What a gathered read may ask: only what is proven to give the answer that one database would give.

The rule is an allow-list. A statement passes when every part of it is known to treat each row by itself; whatever else
it contains is refused with the part's name and what to write instead. Nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import types
from sqlalchemy.orm import raiseload
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BindParameter, UnaryExpression

from resilient.errors import InvalidInput
from resilient.storage.shards._guard import key_column
from resilient.storage.shards._merge import Order

__all__ = ["Plan", "plan"]

_EACH = "read each shard by itself with each(statement), and put the answers together in your own code"

# Parts of a statement that look at one row at a time, whatever they contain; what they contain is looked at as well.
_ROW_BY_ROW = frozenset({
    "between", "binary", "bindparam", "case", "cast", "clauselist", "column", "expression_clauselist", "extract",
    "false", "grouping", "label", "label_reference", "null", "table", "true", "try_cast", "tuple", "type_coerce",
    "unary",
})  # fmt: skip
_SCALAR_FUNCTIONS = frozenset({
    "abs", "ceil", "ceiling", "char_length", "coalesce", "concat", "date", "day", "floor", "greatest", "hex", "hour",
    "ifnull", "instr", "json_extract", "least", "left", "length", "lower", "ltrim", "minute", "mod", "month", "nullif",
    "octet_length", "replace", "reverse", "right", "round", "rtrim", "second", "sign", "strftime", "substr",
    "substring", "trim", "upper", "year",
})  # fmt: skip
_ADVICE = {
    "select": "a gathered read has no subquery: read the keys first, then ask with in_()",
    "join": "a gathered read has one table: read the other one in its own statement",
    "textual_label_reference": "order by the column itself, not by its name",
    "alias": "a gathered read has one table, without an alias",
    "textclause": "write it with SQLAlchemy's expressions instead of text",
    "over": _EACH,
    "collation": "leave out collate()",
}
_MYSQL_PLAIN = (
    types.Integer,
    types.Numeric,
    types.Float,
    types.Date,
    types.DateTime,
    types.Time,
    types.Boolean,
    types.LargeBinary,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent to each shard, and how the answers are merged.

    Args:
        statement: The statement for each shard; its last columns are the sort keys.
        orders: How each sort key is ordered.
        limit: How many rows of the merged answer at most.
        offset: How many rows of the merged answer are passed over.
    """

    statement: Any
    orders: tuple[Order, ...]
    limit: int | None
    offset: int


def plan(statement: Any, backend: str) -> Plan:
    """Prove that a statement can be gathered, and say how.

    Args:
        statement: A ``select()``.
        backend: The shards' database: ``sqlite``, ``mysql`` or ``mariadb``.

    Raises:
        InvalidInput: It cannot be proven; the message says what to write.
    """
    if not isinstance(statement, sa.Select):
        raise InvalidInput("a gathered read takes a select()", advice="write to one shard: shards.session(key=…)")
    _check_clauses(statement)
    _check_parts(statement)
    table, mapper = _source(statement)
    limit, offset = _number(statement._limit_clause), _number(statement._offset_clause)  # noqa: SLF001
    clauses = tuple(_order_by(statement))
    if (limit is not None or offset) and not clauses:
        raise InvalidInput("limit() without order_by() gives any rows", advice="add order_by()")
    keys = [_sort_key(clause, table, backend) for clause in clauses]
    tie = _tie_break(table, backend, clauses) if clauses else []
    orders = tuple(order for _, order in (*keys, *tie))
    sent = statement.limit(None).offset(None).order_by(*(column for column, _ in tie))
    sent = sent.add_columns(*(_labelled(key, index) for index, key in enumerate(_expressions(keys, tie, backend))))
    if mapper is not None:
        sent = sent.options(raiseload("*"))  # a relation may lead to another shard: better an error than half an answer
    if limit is not None:
        sent = sent.limit((offset or 0) + limit)
    return Plan(sent, orders, limit, offset or 0)


# ------------------------------------------------------------------------------------------------- what is proven


def _source(statement: Any) -> tuple[sa.Table, Any]:
    """The one table that is read, and the mapper of its class, where there is one."""
    froms = statement.get_final_froms()
    if len(froms) != 1 or not isinstance(froms[0], sa.Table):
        kind = "no table" if not froms else "a join, an alias or several tables"
        raise InvalidInput(f"a gathered read has one table; this one has {kind}", advice=_ADVICE["join"])
    entities = {each["entity"] for each in statement.column_descriptions if each.get("entity") is not None}
    entity = next(iter(entities), None)
    table: sa.Table = froms[0]
    if key_column(entity, table) is None:
        raise InvalidInput(
            f"{table.name} has no shard key, so each shard may hold the same rows",
            advice="declare __shard_key__, or read it on one shard",
        )
    mapper = None if entity is None else sa.inspect(entity)
    for attribute in () if mapper is None else mapper.column_attrs:
        if not isinstance(attribute.columns[0], sa.Column):
            raise InvalidInput(f"the attribute {attribute.key} is computed", advice="select columns instead")
    return table, mapper


def _check_clauses(statement: Any) -> None:
    """Refuse the clauses that look at more than one row, or that this module does not know."""
    # SQLAlchemy keeps these in attributes that have no public reader.
    found = {
        "distinct()": statement._distinct or statement._distinct_on,  # noqa: SLF001
        "group_by()": statement._group_by_clauses,  # noqa: SLF001
        "having()": statement._having_criteria,  # noqa: SLF001
        "with_for_update()": statement._for_update_arg is not None,  # noqa: SLF001
        "fetch()": statement._fetch_clause is not None,  # noqa: SLF001
        "prefix_with()": statement._prefixes,  # noqa: SLF001
        "suffix_with()": statement._suffixes,  # noqa: SLF001
        "with_hint()": statement._hints or statement._statement_hints,  # noqa: SLF001
        "add_cte()": statement._independent_ctes,  # noqa: SLF001
        "options()": statement._with_options,  # noqa: SLF001
    }
    for name, present in found.items():
        if present:
            raise InvalidInput(f"{name} in a gathered read is not proven to be right", advice=_EACH)


def _check_parts(statement: Any) -> None:
    stack = list(statement.get_children())
    while stack:
        element = stack.pop()
        kind = element.__visit_name__
        if hasattr(element, "clause_expr"):  # a function of any class
            if element.name.lower() not in _SCALAR_FUNCTIONS or getattr(element, "packagenames", None):
                raise InvalidInput(f"{element.name}() over several shards is not proven to be right", advice=_EACH)
        elif kind not in _ROW_BY_ROW or (kind == "column" and element.is_literal):
            raise InvalidInput(
                f"a gathered read with {_named(kind)} is not proven to be right", advice=_ADVICE.get(kind, _EACH)
            )
        elif kind == "unary" and element.operator is operators.distinct_op:
            raise InvalidInput("distinct() in a gathered read is not proven to be right", advice=_EACH)
        if kind != "table":
            stack.extend(element.get_children())


def _named(kind: str) -> str:
    return {
        "select": "a subquery",
        "textclause": "text()",
        "column": "literal_column()",
        "over": "over()",
        "textual_label_reference": "a column named by text",
    }.get(kind, kind.replace("_", " "))


def _number(clause: Any) -> int | None:
    if clause is None:
        return None
    value = clause.effective_value if isinstance(clause, BindParameter) else None
    if not isinstance(value, int) or value < 0:
        raise InvalidInput("limit() and offset() of a gathered read take a number >= 0", advice="pass an int")
    return value


# ---------------------------------------------------------------------------------------------------- sort order


def _order_by(statement: Any) -> Iterator[Any]:
    for clause in statement._order_by_clauses:  # noqa: SLF001 - as above
        yield clause.element if clause.__visit_name__ == "label_reference" else clause


def _sort_key(clause: Any, table: sa.Table, backend: str) -> tuple[Any, Order]:
    descending, nulls_first = False, None
    while isinstance(clause, UnaryExpression) and clause.modifier is not None:
        if clause.modifier is operators.desc_op:
            descending = True
        elif clause.modifier in {operators.nulls_first_op, operators.nulls_last_op}:
            nulls_first = clause.modifier is operators.nulls_first_op
            if backend != "sqlite":
                raise InvalidInput("MariaDB knows no NULLS FIRST and NULLS LAST", advice="leave it out")
        clause = clause.element
    column = table.c.get(getattr(clause, "key", "")) if clause.__visit_name__ == "column" else None
    if column is None or not clause.compare(column):
        raise InvalidInput("order_by() of a gathered read takes columns of its table", advice="order by a column")
    _check_sortable(column, backend)
    return column, Order(descending, (not descending) if nulls_first is None else nulls_first)


def _check_sortable(column: sa.Column[Any], backend: str) -> None:
    kind = column.type
    if getattr(kind, "collation", None):
        raise InvalidInput(f"{column.name} has a collation of its own", advice="order by another column")
    if backend == "sqlite":
        return  # compares what it stored: numbers, then texts by code point, then blobs
    if isinstance(kind, types.Enum | types.TypeDecorator | types.Uuid | types.JSON | types.ARRAY):
        raise InvalidInput(f"how the database sorts {column.name} is not known here", advice="order by another column")
    if isinstance(kind, types.String):
        if not kind.length:
            raise InvalidInput(f"{column.name} is a text without a length", advice="order by another column")
    elif not isinstance(kind, _MYSQL_PLAIN):
        raise InvalidInput(f"how the database sorts {column.name} is not known here", advice="order by another column")


def _tie_break(table: sa.Table, backend: str, clauses: tuple[Any, ...]) -> list[tuple[Any, Order]]:
    """The primary key behind the caller's order, so that pages neither repeat nor miss a row of equal keys."""
    columns = list(table.primary_key.columns)
    try:
        for column in columns:
            _check_sortable(column, backend)
    except InvalidInput:
        return []  # equal keys then come in any order, as they may from one database
    descending = _sort_key(clauses[-1], table, backend)[1].descending  # so that an index serves both
    return [(column.desc() if descending else column, Order(descending, not descending)) for column in columns]


def _expressions(keys: list[tuple[Any, Order]], tie: list[tuple[Any, Order]], backend: str) -> Iterator[Any]:
    for each, _ in (*keys, *tie):
        column = each.element if isinstance(each, UnaryExpression) else each
        if backend != "sqlite" and isinstance(column.type, types.String):
            # What the server itself compares: the weights under the column's collation, padded as it pads.
            width: Any = sa.literal_column(f"CHAR({(column.type.length or 1) * 2})")
            yield sa.func.weight_string(column.op("AS")(width))
        else:
            yield sa.type_coerce(column, types.NullType())  # as stored, untouched by the column's Python type


def _labelled(expression: Any, index: int) -> Any:
    return expression.label(f"resilient_sort_{index}")
