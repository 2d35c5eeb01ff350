"""What a cache is made of is looked at when it is made, not at the first request."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from resilient.cache import AsyncCache, Cache, Local
from resilient.errors import ConfigurationError


@pytest.mark.parametrize("face", [Cache, AsyncCache])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"local": True}, r"local is a Local, not True; write local=Local\(\)"),
        ({"local": 1000}, r"local is a Local, not 1000"),
        ({"ttl": "5m"}, r"ttl is a positive number of seconds, not '5m'"),
        ({"ttl": dt.timedelta(minutes=5)}, r"ttl is a positive number of seconds, not .*; write 300"),
        ({"ttl": True}, r"ttl is a positive number of seconds, not True"),
        ({"lease": "10"}, r"lease is a positive number of seconds, not '10'"),
        ({"lease": 0}, r"lease is a positive number of seconds, not 0"),
        ({"timeout": 0}, r"timeout is a positive number of seconds, not 0"),
        ({"timeout": None}, r"timeout is a positive number of seconds, not None"),
        ({"connect_timeout": -1}, r"connect_timeout is a positive number of seconds, not -1"),
        ({"max_loads": "8"}, r"max_loads is a whole number from 1 up, not '8'"),
        ({"max_loads": 0}, r"max_loads is a whole number from 1 up, not 0"),
        ({"size": 0}, r"size is a whole number from 1 up, not 0"),
        ({"journal": 0}, r"journal is a whole number from 1 up, not 0"),
        ({"jitter": 5}, r"jitter is a part between 0 and 1, not 5"),
        ({"secret": 123}, r"a secret, such as a SECRET_KEY, has at least 16 bytes"),
        ({"secret": "dev"}, r"a secret, such as a SECRET_KEY, has at least 16 bytes"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_told_with_its_name(face: Any, wrong: dict[str, Any], told: str) -> None:
    """Whatever its type is: what stands in the environment is text."""
    with pytest.raises(ConfigurationError, match=told):
        face("redis://127.0.0.1:1/0", namespace="shop", **wrong)


@pytest.mark.parametrize("wrong", [{"max_entries": 0}, {"max_bytes": "64M"}, {"ttl": 0}], ids=str)
def test_a_wrong_bound_of_the_memory_is_told(wrong: dict[str, Any]) -> None:
    """By its name, too."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Local(**wrong)
