"""A table of people that counts its queries, and functions that read and write it through a cache."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from resilient.cache import Lookup


@dataclasses.dataclass
class Address:
    street: str
    since: dt.date


@dataclasses.dataclass
class User:
    id: int
    name: str
    address: Address | None = None
    tags: tuple[str, ...] = ()


class Database:
    """A table of rows that counts its queries."""

    def __init__(self, **rows: Any) -> None:
        self.rows: dict[int, Any] = {17: User(17, "Ada"), 18: User(18, "Bob")} | rows
        self.queries = 0
        self.down = False

    def read(self, user_id: int) -> Any:
        self.queries += 1
        if self.down:
            raise ConnectionResetError("the database is gone")
        return self.rows.get(user_id)


def writer(cache: Any, database: Database, **options: Any) -> tuple[Any, Any]:
    @cache.lazy("user:{user_id}", version_of=options.get("version_of"))
    def get_user(user_id: int) -> User:
        return database.read(user_id)

    @cache.write_through("user:{user_id}", **options)
    def save_user(user_id: int, name: str, fails: BaseException | None = None) -> User:
        if fails is not None:
            raise fails
        database.rows[user_id] = User(user_id, name)
        return database.rows[user_id]

    return get_user, save_user


def said(found: Lookup[User]) -> tuple[str, str]:
    """The name that a reader got, and where it came from."""
    return found.value.name, found.source
