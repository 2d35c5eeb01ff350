"""The rows: images and what they cost in the main database, timelines in the shards."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["Base", "Charge", "Image", "ShardBase", "TimelineEvent"]

_ID = sa.String(36)
_OWNER = sa.String(64)


class Base(DeclarativeBase):
    """What the main database holds: one primary, and replicas for lists."""


class Image(Base):
    """One image on its way: created (version 0), uploaded (1), processed (2)."""

    __tablename__ = "images"
    __table_args__ = (sa.Index("images_by_owner", "owner", "created_at"),)

    id: Mapped[str] = mapped_column(_ID, primary_key=True)  # a UUID made by the client, so that it can ask again
    owner: Mapped[str] = mapped_column(_OWNER)
    title: Mapped[str] = mapped_column(sa.String(200))
    state: Mapped[str] = mapped_column(sa.String(16))
    version: Mapped[int]
    source_key: Mapped[str | None] = mapped_column(sa.String(500))
    source_at: Mapped[int] = mapped_column(sa.BigInteger)  # when its form was given out, in microseconds; 0 before
    result_key: Mapped[str | None] = mapped_column(sa.String(500))
    created_at: Mapped[float] = mapped_column(sa.Double)  # seconds since 1970


class Charge(Base):
    """One line on a bill. Nothing but the ledger keeps it from being written twice for one image."""

    __tablename__ = "charges"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    image_id: Mapped[str] = mapped_column(_ID, index=True)
    owner: Mapped[str] = mapped_column(_OWNER)


class ShardBase(DeclarativeBase):
    """What each shard holds for the owners that live there."""


class TimelineEvent(ShardBase):
    """One thing that happened to an image. The primary key makes it happen once, however often it is announced."""

    __tablename__ = "timeline"
    __shard_key__ = "owner"

    image_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    what: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    owner: Mapped[str] = mapped_column(_OWNER, index=True)
    at: Mapped[float] = mapped_column(sa.Double)  # seconds since 1970
