"""The table of people, and what of it is cached: one text for each person, one list, and nothing about nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from resilient.cache import Cache, Lookup
from resilient.errors import NotFound

__all__ = ["Base", "File", "People"]


class Base(DeclarativeBase):
    """What the database holds."""


class File(Base):
    """What is known of one person."""

    __tablename__ = "files"

    id: Mapped[int] = mapped_column(primary_key=True)
    firstname: Mapped[str] = mapped_column(sa.String(50))
    lastname: Mapped[str] = mapped_column(sa.String(50))
    about: Mapped[str] = mapped_column(sa.Text)


class People:
    """Everything the pages ask for.

    Args:
        sessions: Makes sessions.
        cache: The cache.
        ttl: Seconds a text lives; so old may it be when somebody changes the table by hand.
    """

    def __init__(self, sessions: sessionmaker[Session], cache: Cache, ttl: float = 60) -> None:
        self.cache = cache
        self._sessions = sessions
        # Lives ttl seconds, an hour more while the database is away; that there is no such person, 10 seconds.
        self._about = cache.lazy(
            "about:{firstname}:{lastname}", ttl=ttl, negative_ttl=10, stale_if_error=3600, hard_timeout=2
        )(self._load)

    def _load(self, firstname: str, lastname: str) -> str:
        wanted = sa.select(File.about).where(File.firstname == firstname, File.lastname == lastname)
        with self._sessions() as session:
            found = session.scalars(wanted.order_by(File.id).limit(1)).first()
        if found is None:
            raise NotFound(f"there is no {firstname} {lastname}")
        return found

    def about(self, firstname: str, lastname: str) -> Lookup[str]:
        """What is known of a person, and where that came from. Raises NotFound."""
        return self._about.lookup(firstname, lastname)

    def names(self) -> Sequence[Any]:
        """All people by name: one query in a minute for all processes, or after a change of the table."""
        everybody = sa.select(File.firstname, File.lastname).order_by(File.lastname, File.firstname)
        with self._sessions() as session:
            return self.cache.query(session, everybody, ttl=60)

    def tell(self, firstname: str, lastname: str, about: str) -> None:
        """Write what is known of a person. The caches of all processes change with the commit."""
        with self._sessions() as session, self.cache.on_commit(session) as after:
            person = session.scalars(
                sa.select(File).where(File.firstname == firstname, File.lastname == lastname).with_for_update()
            ).first()
            if person is None:
                session.add(File(firstname=firstname, lastname=lastname, about=about))
            else:
                person.about = about
            after.invalidate(self._about.key(firstname, lastname))
            session.commit()
