"""Statements as keys: which of them may be cached, under what key, and which tables they touch. No I/O.

The same statement with the same parameters has the same key in every process; one that differs in anything but white
space has another. Whatever is not understood is left as it is: two keys for one statement cost a query, one key for
two statements would be an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from resilient.cache._keys import render
from resilient.errors import InvalidInput, needs_extra

with needs_extra("sql"):
    from sqlalchemy import TextClause
    from sqlalchemy.orm import Mapper
    from sqlalchemy.orm.util import AliasedInsp
    from sqlalchemy.sql import visitors

__all__ = ["check", "fingerprint", "normalised", "tables_in", "tables_of", "tags_of", "written_in"]

_WHOLE = re.compile(
    r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|\$(\w*)\$.*?\$\2\$|(?:--|\#)[^\n]*(?:\n|$)|/\*.*?\*/)|\s+""",
    re.DOTALL,
)
_READS = re.compile(r"\s*\(*\s*(SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)
_LOCKS = re.compile(r"\bFOR\s+(UPDATE|SHARE|NO\s+KEY|KEY\s+SHARE)|\bLOCK\s+IN\s+SHARE|\bINTO\s+", re.IGNORECASE)
_CHANGES = re.compile(r"\b(INSERT|UPDATE|DELETE|REPLACE|MERGE)\b", re.IGNORECASE)
_NAME = r"""((?:[\w$]+|`[^`]+`|"[^"]+"|\[[^\]]+\])(?:\s*\.\s*(?:[\w$]+|`[^`]+`|"[^"]+"|\[[^\]]+\]))*)"""
_TARGET = re.compile(
    r"\b(?:INSERT\s+(?:\w+\s+)*?INTO|REPLACE\s+(?:\w+\s+)*?INTO|MERGE\s+INTO|DELETE\s+(?:\w+\s+)*?FROM"
    r"|UPDATE(?:\s+(?:LOW_PRIORITY|IGNORE|ONLY|OR\s+\w+))*|TRUNCATE(?:\s+TABLE)?|(?:ALTER|DROP)\s+TABLE(?:\s+IF\s+EXISTS)?)"
    rf"\s+{_NAME}",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


# --------------------------------------------------------------------------------------------------------------- text


def normalised(text: str) -> str:
    r"""A statement's text with every run of white space as one space, outside of quotes and comments.

    Where a backslash could move the end of a quote, the text is left as it is but for its ends.

    Examples:
        >>> normalised("SELECT  id,\n  'two  spaces'\nFROM player ")
        "SELECT id, 'two  spaces' FROM player"
    """
    text = text.strip()
    if "\\" in text:
        return text
    return _WHOLE.sub(lambda match: match.group(1) or " ", text)


def _bare(name: str) -> set[str]:
    """A table's name as it is written in SQL, as the names its tag may go by."""
    parts = [part.strip().strip('`"[]').lower() for part in name.split(".")]
    return {parts[-1], ".".join(parts)}


# ------------------------------------------------------------------------------------------------------------- tables


def tables_in(element: Any) -> set[str]:
    """The names of the tables that an element of SQL contains, in lower case.

    Examples:
        >>> import sqlalchemy as sa
        >>> sorted(tables_in(sa.select(sa.table("Player").join(sa.table("team"), sa.true()))))
        ['player', 'team']
    """
    elements = cast("Iterable[Any]", visitors.iterate(element))
    return {str(getattr(each, "fullname", each.name)).lower() for each in elements if each.__visit_name__ == "table"}


def tables_of(statement: Any) -> set[str]:
    """The tables whose change must forget what a statement brought; none for text, which says nothing certain."""
    return set() if isinstance(statement, TextClause) else tables_in(statement)


def tags_of(statement: Any, own: Iterable[str]) -> tuple[str, ...]:
    """The tags of a statement's rows: the caller's own, then one for each table.

    Examples:
        >>> import sqlalchemy as sa
        >>> tags_of(sa.select(sa.table("player", sa.column("id"))), ["best"])
        ('best', 'table:player')
    """
    return tuple(dict.fromkeys((*own, *sorted(f"table:{name}" for name in tables_of(statement)))))


def written_in(compiled: Any, text: str) -> tuple[set[str], bool]:
    """The tables that a statement about to be sent writes to, and whether it writes at all.

    Args:
        compiled: What SQLAlchemy compiled it from; ``None`` where it was text.
        text: Its text.
    """
    statement = getattr(compiled, "statement", None)
    if statement is None or isinstance(statement, TextClause):
        names: set[str] = set()
        for match in _TARGET.finditer(text):
            names |= _bare(match.group(1))
        return names, bool(names) or not _READS.match(text) or bool(_CHANGES.search(text))
    elements = cast("Iterable[Any]", visitors.iterate(statement))
    changes = [each for each in elements if getattr(each, "is_dml", False)]
    names = set()
    for each in changes:
        names |= tables_in(each.table)
    return names, bool(changes) or not getattr(statement, "is_select", False)


# --------------------------------------------------------------------------------------------------------- judgements


def check(statement: Any, tags: Iterable[str]) -> None:
    """Refuse what is no query whose rows may be kept.

    Raises:
        InvalidInput: It writes, locks, selects whole entities, or is text without tags.
    """
    if isinstance(statement, TextClause):
        if not tuple(tags):
            raise InvalidInput(
                "text does not tell which tables it reads, so that nothing would invalidate its rows",
                advice='name the tags, as in cache.query(session, text("..."), tags=["table:player"])',
            )
        plain = re.sub(r"'(?:[^']|'')*'", "''", statement.text)
        if not _READS.match(plain) or _LOCKS.search(plain) or _CHANGES.search(plain):
            raise InvalidInput("only a query that neither writes nor locks can be cached", advice=_ADVICE)
        return
    if not getattr(statement, "is_select", False):
        raise InvalidInput(f"a {type(statement).__name__} is no query that can be cached", advice=_ADVICE)
    for each in visitors.iterate(statement):
        if getattr(each, "is_dml", False):
            raise InvalidInput("a query that writes cannot be cached", advice=_ADVICE)
        if getattr(each, "_for_update_arg", None) is not None:
            raise InvalidInput("a query that locks its rows cannot be cached", advice=_ADVICE)
    for column in getattr(statement, "column_descriptions", ()):
        if isinstance(column.get("expr"), type) or _is_entity(column.get("expr")):
            raise InvalidInput(
                f"rows of the entity {column.get('name')!r} belong to their session and cannot be cached",
                advice="select its columns, as in select(Player.id, Player.name), or cache a function that returns "
                "dataclasses with cache.lazy",
            )


_ADVICE = "run it with session.execute()"


def _is_entity(expression: Any) -> bool:
    inspected = getattr(expression, "_aliased_insp", expression)
    return isinstance(inspected, Mapper | AliasedInsp)


# ---------------------------------------------------------------------------------------------------------------- keys


def fingerprint(statement: Any, params: Mapping[str, Any] | None, dialect: Any, database: str) -> str:
    """The key of a statement: a hash of its normalised text, its parameters with their types, and its database.

    Args:
        statement: The statement.
        params: Parameters given apart from it.
        dialect: The dialect it will be sent in.
        database: What tells its database from others, without credentials.

    Raises:
        InvalidInput: A parameter has no text that means it alone.
    """
    compiled = statement.compile(dialect=dialect)
    values = compiled.construct_params(dict(params) if params else None)
    kinds = {bind.key: bind.type for bind in compiled.binds.values()}
    bound = [f"{name}={_kind(kinds.get(name))}:{_value(name, values[name])}" for name in sorted(values)]
    results = [_kind(column.type) for column in getattr(statement, "selected_columns", ())]
    whole = "\0".join((database, dialect.name, normalised(str(compiled)), *bound, "", *results))
    return f"query:{hashlib.blake2b(whole.encode(errors='surrogatepass'), digest_size=20).hexdigest()}"


def _kind(kind: Any) -> str:
    """A type's text, which is the same in every process."""
    return "" if kind is None else f"{type(kind).__module__}.{_ADDRESS.sub('', repr(kind))}"


def _value(name: str, value: Any) -> str:
    try:
        return render(value)
    except InvalidInput as error:
        raise InvalidInput(
            f"the parameter {name!r} of this query is a {type(value).__qualname__}, which cannot be part of a key",
            advice="pass a number, a text, a date, a UUID, or a list of them",
        ) from error
