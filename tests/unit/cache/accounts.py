"""A table with one user, and what changes it in a transaction of SQLAlchemy."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


def rename(session: Session, name: str = "new") -> None:
    """Give the user another name."""
    session.execute(sa.update(User).where(User.id == 17).values(name=name))


def name_in(engine: sa.Engine) -> str:
    """What the user is called in the database."""
    with Session(engine) as session:
        return str(session.scalar(sa.select(User.name).where(User.id == 17)))
