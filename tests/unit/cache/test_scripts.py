"""The scripts of the lease protocol read entries where `resilient.cache._entry` puts their parts."""

from __future__ import annotations

import re

import pytest

from resilient.cache import _scripts as scripts


@pytest.mark.parametrize("name", ["CLAIM", "WRITE", "SWAP"])
def test_no_place_of_an_entry_is_written_into_a_script(name: str) -> None:
    """A layout that changes changes the scripts: all numbers above 9 come from the layout, and every name is known."""
    assert re.findall(r"\d\d+", scripts.TEMPLATES[name]) == []
    assert "$" in scripts.TEMPLATES[name]
    assert "$" not in getattr(scripts, name)
