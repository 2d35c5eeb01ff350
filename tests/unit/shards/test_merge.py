"""Merging the answers of several shards."""

from __future__ import annotations

from decimal import Decimal

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
        rows = [("a", 1), ("b", 1)]
        assert merge([rows, [("c", 1)]], [Order(descending)]) == [("a",), ("b",), ("c",)]


def test_numbers_of_all_kinds_compare_with_each_other() -> None:
    """A decimal stands among the integers and floats that it lies between."""
    answers = [[("a", Decimal("1.5"))], [("b", 1), ("c", 2)], [("d", 1.75)]]
    assert merge(answers, [Order()]) == [("b",), ("a",), ("d",), ("c",)]
