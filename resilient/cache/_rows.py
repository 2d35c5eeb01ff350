"""The rows of a cached query: real rows of SQLAlchemy, rebuilt from their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from resilient.errors import needs_extra

with needs_extra("sql"):
    from sqlalchemy.engine import IteratorResult, Result, Row
    from sqlalchemy.engine.result import SimpleResultMetaData

__all__ = ["Rows", "packed"]


class Rows(Sequence[Row[Any]]):
    """What a query brought: a sequence of rows, with the methods of a result of SQLAlchemy.

    Args:
        names: The names of the columns.
        values: The values of each row.

    Unlike a result of the database it can be read more than once.

    Examples:
        >>> rows = Rows(["id", "nickname"], [(3, "gamer3"), (1, "gamer1")])
        >>> rows[0].nickname, len(rows), rows.scalars().all()
        ('gamer3', 2, [3, 1])
        >>> rows.all() == [(3, "gamer3"), (1, "gamer1")]
        True
    """

    __slots__ = ("_names", "_rows")

    def __init__(self, names: Sequence[str], values: Sequence[Sequence[Any]]) -> None:
        self._names = tuple(names)
        made: Result[Any] = IteratorResult(SimpleResultMetaData(self._names), iter([tuple(each) for each in values]))
        self._rows: list[Row[Any]] = list(made.all())

    def result(self) -> Result[Any]:
        """A result of SQLAlchemy over these rows, from their beginning."""
        return IteratorResult(SimpleResultMetaData(self._names), iter([tuple(each) for each in self._rows]))

    def keys(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self._names

    def all(self) -> list[Row[Any]]:
        """The rows, in a list of the caller's own."""
        return list(self._rows)

    def first(self) -> Row[Any] | None:
        """The first row; ``None`` where there is none."""
        return self._rows[0] if self._rows else None

    def one(self) -> Row[Any]:
        """The only row. Raises what SQLAlchemy raises where there is none, or more than one."""
        return self.result().one()

    def one_or_none(self) -> Row[Any] | None:
        """The only row, or ``None``. Raises what SQLAlchemy raises where there is more than one."""
        return self.result().one_or_none()

    def scalars(self, index: Any = 0) -> Any:
        """The values of one column, as SQLAlchemy gives them."""
        return self.result().scalars(index)

    def scalar(self) -> Any:
        """The first value of the first row; ``None`` where there is none."""
        return self.result().scalar()

    def scalar_one(self) -> Any:
        """The only value. Raises what SQLAlchemy raises where there is none, or more than one."""
        return self.result().scalar_one()

    def mappings(self) -> Any:
        """The rows as mappings, as SQLAlchemy gives them."""
        return self.result().mappings()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row[Any]]:
        return iter(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row[Any]]: ...
    def __getitem__(self, index: int | slice) -> Row[Any] | list[Row[Any]]:
        return self._rows[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Rows):
            return self._names == other._names and self._rows == other._rows
        return self._rows == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        return f"Rows({self._rows!r})"


def packed(result: Result[Any]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """A result of the database as plain values, as `Rows` takes them."""
    names = tuple(result.keys())
    return names, [tuple(row) for row in result.all()]
