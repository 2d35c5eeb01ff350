"""Two shards and one database that holds all of their rows."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from resilient.storage.shards import ShardMap, ShardSet


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    __shard_key__ = "tenant_id"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int]
    number: Mapped[int | None]
    ratio: Mapped[float | None]
    price: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(10, 2))
    name: Mapped[str | None] = mapped_column(sa.String(20))
    day: Mapped[dt.date | None]
    blob: Mapped[bytes | None]
    items: Mapped[list[Item]] = relationship(lazy="selectin")


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(sa.ForeignKey("orders.id"))


class Country(Base):
    __tablename__ = "countries"
    id: Mapped[int] = mapped_column(primary_key=True)


class Place:
    """Two shards, and one database with the rows of both."""

    Order, Item, Country, Base = Order, Item, Country, Base

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = ShardSet({name: f"sqlite:///{folder}/{name}.db" for name in ("a", "b")})
        self.shards.create(ShardMap.hashed(["a", "b"]))
        self.one = sa.create_engine(f"sqlite:///{folder}/one.db")
        for engine in (self.one, *(self.shards.engine_for(name) for name in ("a", "b"))):
            Base.metadata.create_all(engine)

    def fill(self, rows: list[dict[str, Any]]) -> None:
        """Make these rows the only ones, in the one database and each on its shard."""
        by_place: dict[sa.Engine, list[dict[str, Any]]] = {self.one: rows}
        for name in ("a", "b"):
            by_place[self.shards.engine_for(name)] = [
                row for row in rows if self.shards.shard_for(row["tenant_id"]) == name
            ]
        for engine, held in by_place.items():
            with engine.begin() as connection:
                connection.execute(sa.delete(Order))
                if held:
                    connection.execute(sa.insert(Order), held)

    def key_of(self, name: str) -> int:
        """A key that lives on that shard."""
        return next(key for key in range(1000) if self.shards.shard_for(key) == name)

    def close(self) -> None:
        self.shards.close()
        self.one.dispose()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests of a module: each fills it anew."""
    made = Place(tmp_path_factory.mktemp("shards"))
    yield made
    made.close()
