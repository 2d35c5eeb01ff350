"""Which statements may leave the primary: only those proven to be pure reads. No I/O here.

Whatever is not understood stays on the primary, so that a mistake costs speed and never a lost lock or a refused
write.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["forbidden_on_replica", "why_primary"]

# Elements of a statement that neither write nor lock, whatever they contain; what they contain is looked at as well.
_HARMLESS = frozenset({
    "alias", "array", "between", "binary", "case", "cast", "clauselist", "collation", "compound_select", "cte",
    "expression_clauselist", "extract", "funcfilter", "grouping", "join", "label", "label_reference", "lateral", "over",
    "scalar_select", "select", "select_statement_grouping", "slice", "subquery", "tablesample", "try_cast", "tuple",
    "type_coerce", "unary", "values", "within_group", "withingroup",
})  # fmt: skip
# Elements that contain nothing worth a look.
_LEAVES = frozenset({"table", "bindparam", "null", "true", "false", "textual_label_reference"})
# Functions without a side effect and without a memory of the connection.
_PURE = frozenset({
    "abs", "array_agg", "avg", "bit_and", "bit_length", "bit_or", "bit_xor", "ceil", "ceiling", "char_length",
    "character_length", "coalesce", "concat", "concat_ws", "convert_tz", "cos", "count", "cume_dist", "curdate",
    "current_date", "current_time", "current_timestamp", "curtime", "date", "date_add", "date_format", "date_sub",
    "date_trunc", "datediff", "datetime", "day", "dayofmonth", "dayofweek", "dayofyear", "dense_rank", "exp", "field",
    "first_value", "floor", "format", "from_unixtime", "greatest", "group_concat", "hex", "hour", "if", "ifnull",
    "instr", "isnull", "json_array", "json_contains", "json_extract", "json_length", "json_object", "json_unquote",
    "json_value", "julianday", "lag", "last_value", "lcase", "lead", "least", "left", "length", "ln", "localtime",
    "localtimestamp", "locate", "log", "log10", "log2", "lower", "lpad", "ltrim", "max", "md5", "microsecond", "min",
    "minute", "mod", "month", "monthname", "now", "ntile", "nullif", "octet_length", "percent_rank", "pi", "position",
    "pow", "power", "quarter", "quote", "radians", "rand", "random", "rank", "regexp_replace", "repeat", "replace",
    "reverse", "right", "round", "row_number", "rpad", "rtrim", "second", "sha1", "sha2", "sign", "sin", "sqrt",
    "std", "stddev", "str_to_date", "strftime", "string_agg", "strpos", "substr", "substring", "substring_index",
    "sum", "tan", "time", "timestampdiff", "total", "trim", "trunc", "truncate", "typeof", "ucase", "unhex",
    "unix_timestamp", "upper", "utc_timestamp", "uuid", "variance", "version", "week", "weekday", "weight_string",
    "year",
})  # fmt: skip
# A literal column without a call: a name, a number, a system variable.
_PLAIN = re.compile(r"""(?:[\w.@*]|`[^`]*`|"[^"]*")+|'[^'\\]*'""")
_READ_WORD = re.compile(r"\s*(?:/\*.*?\*/\s*)*(SELECT|SHOW|EXPLAIN|DESCRIBE|DESC|PRAGMA|VALUES|SET(?!\s+STATEMENT)"
                        r"|SAVEPOINT|RELEASE|ROLLBACK)\b", re.IGNORECASE | re.DOTALL)  # fmt: skip
_LOCKS = re.compile(r"\bFOR\s+(UPDATE|SHARE|NO\s+KEY)|\bLOCK\s+IN\s+SHARE|\bINTO\s+(OUTFILE|DUMPFILE)"
                    r"|\bNEXT\s+VALUE\s+FOR|/\*M?!", re.IGNORECASE)  # fmt: skip
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def why_primary(statement: Any) -> str | None:
    """Why a statement must run on the primary.

    Args:
        statement: What a session was asked to execute.

    Returns:
        A short reason, the same for every statement of its kind; ``None`` for a proven pure read.

    Examples:
        >>> import sqlalchemy as sa
        >>> why_primary(sa.select(sa.literal(1))) is None
        True
        >>> why_primary(sa.text("SELECT 1"))
        'text'
    """
    if statement is None:
        return "unknown"
    if getattr(statement, "is_dml", False):
        return "write"
    if not getattr(statement, "is_select", False):
        return "text" if getattr(statement, "__visit_name__", "") == "textclause" else "not-a-select"
    stack = [statement]
    while stack:
        element = stack.pop()
        kind = element.__visit_name__
        if kind == "column":
            if element.is_literal and not _PLAIN.fullmatch(str(element.name)):
                return "text"
        elif kind not in _LEAVES:
            reason = _look(element, kind)
            if reason is not None:
                return reason
            stack.extend(element.get_children())
    return None


def _look(element: Any, kind: str) -> str | None:
    """Why one element, whatever it contains, keeps its statement on the primary."""
    if kind in {"select", "compound_select"}:
        return _look_at_select(element)
    if kind in _HARMLESS:
        return None
    if isinstance(getattr(element, "name", None), str) and hasattr(element, "clause_expr"):  # a function of any class
        pure = element.name.lower() in _PURE and not element.packagenames
        return None if pure else "function"
    if kind in {"insert", "update", "delete"}:
        return "write"
    return "text" if kind == "textclause" else "unknown"


def _look_at_select(element: Any) -> str | None:
    # SQLAlchemy keeps these parts of a SELECT in attributes that have no public reader.
    if element._for_update_arg is not None:  # noqa: SLF001
        return "lock"
    for part in ("_prefixes", "_suffixes", "_statement_hints", "_hints"):
        if getattr(element, part, None):
            return "text"
    return None


def forbidden_on_replica(sql: str, context: Any) -> bool:
    """Whether a statement about to be sent over a replica's connection writes or locks.

    The last check before the wire, cheap on purpose: `why_primary` has looked closely at what a session sends; this one
    also sees what callers send through a replica's engine by hand, where a plain SELECT as text is fine.

    Args:
        sql: The statement's text.
        context: SQLAlchemy's execution context.
    """
    if context.isinsert or context.isupdate or context.isdelete or context.isddl:
        return True
    compiled = context.compiled
    if compiled is not None and hasattr(compiled.statement, "_for_update_arg"):  # a SELECT that is not text
        return compiled.statement._for_update_arg is not None or any(  # noqa: SLF001 - as above
            cte.element.is_dml for cte in compiled.ctes or ()
        )
    if _READ_WORD.match(sql) is not None:
        # Once as it is and once without comments: a comment may stand between two words, or be part of a text.
        return _LOCKS.search(sql) is not None or _LOCKS.search(_COMMENT.sub(" ", sql)) is not None
    return True
