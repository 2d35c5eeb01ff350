"""Merging the ordered answers of several shards into one. Plain values, no I/O."""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from resilient.errors import InvalidInput

__all__ = ["Order", "Row", "merge"]

Row: TypeAlias = tuple[Any, ...]

_RANK: dict[type, int] = {bool: 0, int: 0, float: 0, str: 1, bytes: 2}


@dataclass(frozen=True, slots=True)
class Order:
    """How one sort key is ordered.

    Args:
        descending: Whether the greatest comes first.
        nulls_first: Whether NULL comes before everything else.
    """

    descending: bool = False
    nulls_first: bool = True


@functools.total_ordering
class _Reversed:
    """A value that sorts the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and bool(other.value == self.value)

    def __lt__(self, other: _Reversed) -> bool:
        return bool(other.value < self.value)

    __hash__ = None  # type: ignore[assignment] # compared only


def sort_key(orders: Sequence[Order]) -> Callable[[Row], Row]:
    """A function that turns the sort values at the end of a row into something that compares rightly."""
    count = len(orders)

    def key(row: Row) -> Row:
        return tuple(_comparable(value, order) for value, order in zip(row[-count:], orders, strict=True))

    return key


def _comparable(value: Any, order: Order) -> Row:
    if value is None:
        return (0 if order.nulls_first else 2, 0)
    # SQLite keeps values of any type in any column, and orders numbers before texts before blobs.
    ranked = (_RANK.get(type(value), 0), value)
    return (1, _Reversed(ranked) if order.descending else ranked)


def merge(
    answers: Sequence[Sequence[Row]], orders: Sequence[Order], *, limit: int | None = None, offset: int = 0
) -> list[Row]:
    """One ordered list out of several.

    Args:
        answers: The rows of each shard, each in order. With sort keys, the values of the keys stand at the end of
            each row and are taken off here.
        orders: How each sort key is ordered; with none, the answers are put one behind the other.
        limit: How many rows at most.
        offset: How many rows are passed over first.

    Raises:
        InvalidInput: A shard's rows are in another order than its sort keys: its database sorts by other rules.

    Examples:
        >>> merge([[("a", 1), ("c", 3)], [("b", 2)]], [Order()], limit=2)
        [('a',), ('b',)]
    """
    merged: Iterable[Row]
    if not orders:
        merged = itertools.chain.from_iterable(answers)
        return list(itertools.islice(merged, offset, None if limit is None else offset + limit))
    key = sort_key(orders)
    for rows in answers:
        _check_sorted(rows, key)
    merged = heapq.merge(*answers, key=key)
    chosen = itertools.islice(merged, offset, None if limit is None else offset + limit)
    return [row[: -len(orders)] for row in chosen]


def _check_sorted(rows: Sequence[Row], key: Callable[[Row], Row]) -> None:
    try:
        keys = [key(row) for row in rows]
        sorted_ = all(not second < first for first, second in itertools.pairwise(keys))
    except TypeError as error:
        raise InvalidInput("a sort key has values of types that do not compare", advice="order by another") from error
    if not sorted_:
        raise InvalidInput(
            "a shard sorts by other rules than are known here, so its rows cannot be merged", advice="order by another"
        )
