"""What SQS allows, checked here."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.errors import InvalidInput
from resilient.queue import _limits as limits


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(60, 200))
def test_calls_hold_everything_once_in_order_within_both_limits(sizes, limit):
    """Packing loses nothing, keeps the order, and is greedy: no two neighbours would have fitted in one call."""
    parts = list(limits.pack(sizes, limit=limit))
    assert [index for part in parts for index in part] == list(range(len(sizes)))
    for part in parts:
        assert 1 <= len(part) <= 10
        assert sum(sizes[index] for index in part) <= limit
    for left, right in itertools.pairwise(parts):
        assert len(left) == 10 or sum(sizes[i] for i in left) + sizes[right[0]] > limit


@pytest.mark.parametrize("delay", [-1, 900.5, 901, True, "5", float("nan")])
def test_a_delay_out_of_range_is_refused(delay):
    """901 seconds, negative ones, and what is no number."""
    with pytest.raises(InvalidInput):
        limits.check_delay(delay)


def test_a_delay_is_told_in_whole_seconds():
    """Both ends are allowed; what is left of a second is cut off."""
    assert [limits.check_delay(delay) for delay in (0, 1.9, 900, 900.0)] == [0, 1, 900, 900]


def test_a_call_may_be_full_to_the_byte():
    """Exactly the limit fits, also in a call after the first; what is too big by itself goes alone."""
    assert list(limits.pack([5, 5, 5, 5, 1], limit=10)) == [range(2), range(2, 4), range(4, 5)]
    assert list(limits.pack([11, 10], limit=10)) == [range(1), range(1, 2)]
    assert limits.batches(range(25)) == [range(10), range(10, 20), range(20, 25)]


def test_an_id_is_written_in_characters_that_sqs_takes():
    """As the body of a message is."""
    limits.check_text("order 42, ü")
    with pytest.raises(InvalidInput):
        limits.check_text("a\x00b")


@pytest.mark.parametrize("body", ["", b"", "a\x00b", "\ufffe", b"\xff", object(), {"x": object()}])
def test_a_body_that_sqs_would_refuse_is_refused_here(body):
    """Emptiness, forbidden characters, bytes that are no text, and what is no JSON."""
    with pytest.raises(InvalidInput):
        limits.encode(body)


@pytest.mark.parametrize(("body", "text"), [("ü\n", "ü\n"), (b"abc", "abc"), ({"a": [1]}, '{"a":[1]}'), (None, "null")])
def test_a_body_is_written_as_text(body, text):
    """Text as it is, bytes as UTF-8, anything else as JSON."""
    assert limits.encode(body) == text


@pytest.mark.parametrize("check", [limits.check_group, limits.check_deduplication])
def test_ids_of_groups_and_for_deduplication_are_short_and_plain(check):
    """1 to 128 letters, digits and punctuation marks of ASCII; the error says what to pass instead."""
    for fits in ("a", "a" * 128, "user:42/[x]~", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"):
        check(fits)
    for breaks in ("", "a" * 129, "a b", "ü", "a\n", "\x7f", 42):
        with pytest.raises(InvalidInput, match=r"128 .*pass such an? .*digest"):
            check(breaks)


@pytest.mark.parametrize("name", ["", "a b", ".a", "a.", "a..b", "AWS.x", "amazon.x", "x" * 257, "resilient-id"])
def test_a_name_that_sqs_would_refuse_is_refused_here(name):
    """Characters, dots, reserved prefixes, and the library's own names."""
    with pytest.raises(InvalidInput):
        limits.check_attributes({name: "1"})


def test_attributes_are_counted_and_not_empty():
    """Ten at most, less those reserved; an empty value is no attribute."""
    limits.check_attributes({f"a{n}": "1" for n in range(8)}, reserved=2)
    with pytest.raises(InvalidInput):
        limits.check_attributes({f"a{n}": "1" for n in range(9)}, reserved=2)
    limits.check_attributes({f"a{n}": "1" for n in range(10)})
    with pytest.raises(InvalidInput):
        limits.check_attributes({f"a{n}": "1" for n in range(11)})
    with pytest.raises(InvalidInput):
        limits.check_attributes({"a": ""})


def test_size_counts_bytes_of_everything():
    """Names, types and values count, in bytes."""
    assert limits.size("ü", {"k": b"12"}) == 2 + 1 + 6 + 2
    assert limits.size("abc", {"kind": "ü"}) == 3 + 4 + 6 + 2
