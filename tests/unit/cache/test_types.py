"""What type checkers are told of a cache: the functions keep their types, and so do values whose type is named."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

TYPED = """
from dataclasses import dataclass
from typing import assert_type

from resilient.cache import AsyncCache, Cache, Lookup, WriteBehind

cache, shared = Cache(ttl=60), AsyncCache(ttl=60)


@dataclass
class User:
    id: int


@cache.lazy("user:{user_id}", negative_ttl=30)
def get_user(user_id: int) -> User | None:
    return User(user_id)


@cache.write_behind("user:{id}")
def save_users(users: list[User]) -> None: ...


class Shop:
    @cache.lazy("order:{number}")
    def order(self, number: int) -> User:
        return User(number)

    @cache.write_through("order:{number}")
    def save(self, number: int) -> User:
        return User(number)

    @shared.lazy("order:{number}")
    async def fetch(self, number: int) -> User:
        return User(number)


shop = Shop()
assert_type(get_user(17), User | None)
assert_type(get_user.lookup(17), Lookup[User | None])
assert_type(save_users, WriteBehind[User])
assert_type(shop.order(17), User)
assert_type(shop.order.lookup(17), Lookup[User])
assert_type(shop.order.key(17), str)
assert_type(shop.save(17), User)
assert_type(cache.get("k", type=User), User | None)
assert_type(cache.get("k", User(1), type=User), User)
assert_type(cache.lookup("k", type=User), Lookup[User] | None)
assert_type(cache.get_many(["k"], type=User), dict[str, User])
assert_type(cache.get_or_load("k", lambda: User(1), type=User), User)


async def main() -> None:
    assert_type(await shop.fetch(17), User)
    assert_type(await shared.get("k", type=User), User | None)
    assert_type(await shared.lookup("k", type=User), Lookup[User] | None)
"""


@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_functions_methods_and_named_types_are_known(tmp_path: Path) -> None:
    """What is decorated, function or method, has the types it had; ``type=`` tells that of what comes back."""
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "wrong.py").write_text(TYPED + 'shop.order("17")\ncache.get("k", type=User).id\n')
    options = ["--strict", "--no-error-summary", "--disable-error-code=empty-body", "--follow-imports=silent"]
    options.append(f"--cache-dir={ROOT / '.mypy_cache' / 'tests-of-types'}")
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(tmp_path / "typed.py"), str(tmp_path / "wrong.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = ran.stdout.splitlines()
    assert len(complaints) == 2, ran.stdout + ran.stderr
    assert all("wrong.py" in each for each in complaints)
