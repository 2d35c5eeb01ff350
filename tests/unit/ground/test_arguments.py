"""Checks of arguments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.arguments import check_name, is_name, one_of, to_name
from resilient.errors import ConfigurationError, InvalidInput


@given(st.text())
def test_any_text_has_a_nearest_name(text: str) -> None:
    """What becomes of any text is a name, and a name stays as it is."""
    made = to_name(text, otherwise="db")
    assert is_name(made)
    assert to_name(made, otherwise="db") == made
    if is_name(text):
        assert made == text


@pytest.mark.parametrize("text", ["", "a:b", "a!b", "ä", "a b", "a\n", "a" * 65])
def test_what_would_break_a_token_or_a_key_is_no_name(text: str) -> None:
    """The marks that divide tokens and keys, spaces, other letters and long texts are refused, and what is told."""
    assert not is_name(text)
    with pytest.raises(ConfigurationError, match="a shard's name has 1 to 64 letters"):
        check_name("a shard", text)


@pytest.mark.parametrize("thing", [None, 7, b"a"])
def test_only_text_is_a_name(thing: object) -> None:
    """Anything but text is no name, and is refused instead of breaking the check."""
    assert not is_name(thing)


def test_a_choice_is_one_of_those_there_are() -> None:
    """A value that is no choice is refused with the choices that are, by the error that was asked for."""
    assert one_of("shared", "warn", ("warn", "fail")) == "warn"
    with pytest.raises(ConfigurationError, match="shared='worn' is unknown; use one of 'warn', 'fail'"):
        one_of("shared", "worn", ("warn", "fail"))
    with pytest.raises(InvalidInput):
        one_of("level", "weak", ("strong",), InvalidInput)
