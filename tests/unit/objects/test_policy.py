"""What may be uploaded."""

from __future__ import annotations

from typing import Any

import pytest

from resilient.errors import ConfigurationError, InvalidInput
from resilient.storage.objects._policy import UploadPolicy, check_expiry

WEEK = 7 * 24 * 3600
GIB = 1 << 30


def policy(**changes: Any) -> UploadPolicy:
    """A policy with these changes."""
    given: dict[str, Any] = {"prefix": "u/{owner}/", "max_bytes": 10, "content_types": ["image/jpeg", "image/png"]}
    return UploadPolicy(**{**given, **changes})


def test_sizes_may_be_as_large_as_is_said() -> None:
    """Empty files, files of one size, and S3's largest upload in one request."""
    assert policy(min_bytes=0).min_bytes == 0
    assert policy(min_bytes=10).min_bytes == 10
    assert policy(max_bytes=5 * GIB).max_bytes == 5 * GIB
    for changes in ({"min_bytes": -1}, {"min_bytes": 11}, {"max_bytes": 5 * GIB + 1}):
        with pytest.raises(ConfigurationError, match="5 GiB"):
            policy(**changes)


def test_links_live_for_a_second_to_a_week() -> None:
    """The longest that S3 signs for; the error says so."""
    for seconds in (1, WEEK):
        check_expiry(seconds)
        assert policy(expires=seconds).expires == seconds
    for seconds in (0, 0.5, WEEK + 1, True, "60"):
        with pytest.raises(ConfigurationError, match="seconds"):
            policy(expires=seconds)


@pytest.mark.parametrize("prefix", ["a", "/a/", "a/./", "./", "../", "a/../b/", "{user}/", "{owner/", "owner}/", "{}/"])
def test_a_prefix_that_leads_elsewhere_is_refused(prefix: str) -> None:
    """It is relative, ends with a slash, and has one placeholder."""
    with pytest.raises(ConfigurationError):
        policy(prefix=prefix)


def test_the_type_is_the_only_one_the_declared_one_or_the_one_of_the_name() -> None:
    """Several types: the name tells; one that is not allowed is refused with those that are."""
    assert policy(content_types=["image/jpeg"]).type_for("a") == "image/jpeg"
    assert policy().type_for("a.png") == "image/png"
    assert policy().type_for("a.png", "IMAGE/JPEG") == "image/jpeg"
    with pytest.raises(InvalidInput) as caught:
        policy().type_for("a.png", "text/html")
    assert caught.value.advice == "allowed: image/jpeg, image/png"
    with pytest.raises(InvalidInput) as caught:
        policy().type_for("a.txt")
    assert caught.value.advice == "pass content_type=, one of: image/jpeg, image/png"


def test_a_form_is_signed_with_its_type_and_its_size() -> None:
    """The store checks what the form promises, in the words that it knows."""
    fields, conditions = policy(min_bytes=1).conditions("image/png")
    assert fields == {"Content-Type": "image/png", "success_action_status": "201"}
    assert conditions == [
        {"Content-Type": "image/png"},
        {"success_action_status": "201"},
        ["content-length-range", 1, 10],
    ]
