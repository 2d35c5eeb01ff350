"""Merging the answers of several shards."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from resilient.storage.shards._merge import Order, merge


def test_without_an_order_answers_stand_one_behind_the_other() -> None:
    """All of them, or the part that was asked for."""
    answers = [[("a",), ("b",)], [("c",), ("d",)]]
    assert merge(answers, []) == [("a",), ("b",), ("c",), ("d",)]
    assert merge(answers, [], limit=2, offset=1) == [("b",), ("c",)]
    assert merge(answers, [], offset=3) == [("d",)]


def test_equal_keys_are_in_order_whichever_way_they_are_sorted() -> None:
    """Rows that cannot be told apart by their keys are no sign of other rules; a shard's own order is kept."""
    for descending in (False, True):
        rows = [("a", "x", 1), ("b", "y", 1)]
        assert merge([rows, [("c", "z", 1)]], [Order(descending)]) == [("a", "x"), ("b", "y"), ("c", "z")]


def test_numbers_of_all_kinds_compare_with_each_other() -> None:
    """A decimal stands among the integers and floats that it lies between."""
    answers = [[("a", Decimal("1.5"))], [("b", 1), ("c", 2)], [("d", 1.75)]]
    assert merge(answers, [Order()]) == [("b",), ("a",), ("d",), ("c",)]


values = st.none() | st.integers(-3, 3) | st.floats(-3, 3) | st.text(max_size=2) | st.binary(max_size=2)


@given(
    st.lists(st.lists(st.tuples(values, values), max_size=6), min_size=1, max_size=4),
    st.tuples(*[st.builds(Order, descending=st.booleans(), nulls_first=st.booleans())] * 2),
    st.none() | st.integers(0, 9),
    st.integers(0, 5),
)
def test_merging_equals_sorting_all(
    answers: list[list[tuple[Any, Any]]], orders: tuple[Order, Order], limit: int | None, offset: int
) -> None:
    """Merging sorted answers gives what SQLite gives for all rows in one table, values of all types among them."""
    clause = ", ".join(
        f"{name} {'DESC' if order.descending else 'ASC'} NULLS {'FIRST' if order.nulls_first else 'LAST'}"
        for name, order in zip("xy", orders, strict=True)
    )

    def ordered(rows: list[tuple[Any, Any]], tail: str = "") -> list[tuple[Any, Any]]:
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE t (x, y)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        found = connection.execute(f"SELECT x, y FROM t ORDER BY {clause} {tail}").fetchall()
        connection.close()
        return found

    merged = merge([[(*row, *row) for row in ordered(rows)] for rows in answers], orders, limit=limit, offset=offset)
    everything = [row for rows in answers for row in rows]
    assert merged == ordered(everything, f"LIMIT {-1 if limit is None else limit} OFFSET {offset}")
