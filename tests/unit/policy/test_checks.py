"""Bad input is refused in words that tell the limit and show the value, at the very edges too."""

from __future__ import annotations

import pytest

from resilient.errors import ConfigurationError
from resilient.policy._checks import at_least_one, positive, shortly


def test_the_largest_count_is_taken_and_the_next_is_refused_with_the_limit():
    """Both ends belong to the range; the message names the upper one only where it was passed."""
    assert at_least_one("Retry", "attempts", 7, most=7) == 7
    with pytest.raises(ConfigurationError, match=r"from 1 to 7, got 8"):
        at_least_one("Retry", "attempts", 8, most=7)
    with pytest.raises(ConfigurationError, match=r"from 1 up, got 0"):
        at_least_one("Retry", "attempts", 0, most=7)


def test_the_longest_time_is_taken():
    """The upper end belongs to the range, and is named where it was passed."""
    assert positive("Retry", "cap", 9, most=9) == 9.0
    with pytest.raises(ConfigurationError, match=r"more than 0 and at most 9, got 10"):
        positive("Retry", "cap", 10, most=9)
    with pytest.raises(ConfigurationError, match=r"more than 0, got 0$"):
        positive("Retry", "cap", 0, most=9)


@pytest.mark.parametrize("length", [59, 60, 61, 62])
def test_a_long_value_is_shown_in_part(length):
    """Up to sixty characters stand whole."""
    value = 10 ** (length - 1)
    assert shortly(value) == (str(value) if length <= 60 else f"{str(value)[:60]}...")
