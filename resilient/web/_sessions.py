"""What a session on the server is, whichever framework asks: its id, its fields, its life, whose it is.

Each field is kept by itself, so that two requests which change different fields at the same time both have their way.
A request writes only what it has changed, and only into a session that still stands: what was ended stays ended.

What is kept under an id is found by a hash of it, and each field is signed together with that hash and its name: who
can read the server cannot use what is there as a cookie, and who can write to it can make no session, nor move a field
from one to another.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from resilient.cache.rooms import ANYTHING, Codec, CodecChoice, Secret, Settings, Unreadable
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError, InvalidInput, Refused

__all__ = ["Gone", "Keeper", "Record", "Session", "SessionStore", "new_id"]

_ROUNDS = 100  # of looking for sessions that were begun while those of a user are ended
_PURPOSE = "resilient.web session 1"  # a cache with the application's secret signs whatever it is given
_MARK = ""  # the field that every session has: until when the list of its owner's lives, so that it is told in time


class Gone(Refused):
    """The session was ended or has run out since it was read: what was to be written to it is not."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a store holds of a session: its fields as bytes, and for how many seconds still."""

    fields: dict[str, bytes] = field(repr=False)
    left: float


class SessionStore(Protocol):
    """Where sessions are kept. Each step is atomic. Keys are text, lives are seconds.

    Each method raises `resilient.errors.Unavailable` where the store does not answer.
    """

    def load(self, key: str, life: float | None) -> Record | None:
        """What is there, if anything; with a life it lives for so long from now on."""
        ...

    def create(self, key: str, fields: Mapping[str, bytes], life: float) -> bool:
        """Store a session where none is. Whether none was."""
        ...

    def change(self, key: str, put: Mapping[str, bytes], drop: list[str], life: float | None) -> bool:
        """Store some fields and drop others. Whether there was such a session."""
        ...

    def delete(self, key: str) -> bool:
        """End a session. Whether there was one."""
        ...

    def take(self, key: str) -> dict[str, bytes] | None:
        """End a session. The fields that it had at its end, if there was one."""
        ...

    def join(self, owner: str, key: str, life: float) -> None:
        """Note that a session is one of this owner's; the list lives for so long at least."""
        ...

    def members(self, owner: str) -> list[str]:
        """The sessions noted for this owner, among them some that are over."""
        ...

    def leave(self, owner: str, keys: list[str]) -> None:
        """Forget that these are the owner's."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(slots=True)
class Session:
    """A session as it was read.

    Args:
        id: What its cookie says.
        data: Its fields; ``None`` stands for nothing but itself.
        left: Seconds that it had left when it was read.
        raw: Its fields as they are kept.
        fresh: Whether its id was made in this request, so that nobody outside knows it yet.
        listed: The wall clock's seconds until which the list of its owner's lives.
    """

    id: str = field(repr=False)  # whoever knows it is logged in: it must not get into a log with some error
    data: dict[str, Any] = field(repr=False)
    left: float
    raw: dict[str, bytes] = field(repr=False)
    fresh: bool = False
    listed: float = 0.0


def new_id() -> str:
    """An id that nobody can guess."""
    return secrets.token_urlsafe(32)


class Keeper:
    """Reads, changes, renews and ends sessions.

    Args:
        store: Where they are kept.
        life: Seconds that a session lives: from its beginning, or with ``sliding`` from its last use.
        sliding: Whether each use makes it live on.
        owner: The field that tells whose session it is. When that changes, so does the id.
        secret: Signs what is kept; of several the first signs, and all verify.
        codec: How fields are written; ``safe`` keeps dates, tuples, sets, Decimals and the like.
        clock: Where time is read.
        make_id: Makes a new id.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        life: float,
        sliding: bool = False,
        owner: str = "user_id",
        secret: Secret,
        codec: CodecChoice = "safe",
        clock: Clock = SYSTEM,
        make_id: Callable[[], str] = new_id,
    ) -> None:
        if not life > 0:
            raise ConfigurationError(f"a session lives for a positive number of seconds, not {life!r}")
        if not secret:
            raise ConfigurationError("sessions are signed", advice="pass secret='...', the same in every process")
        self.store = store
        self.life = life
        self.sliding = sliding
        self.owner = owner
        self._codec = Codec(ANYTHING, settings=Settings(codec, secret=secret, purpose=_PURPOSE))
        self._clock = clock
        self._make_id = make_id

    # --------------------------------------------------------------------------------------------------------- reading

    def load(self, id: str, life: float | None = None) -> Session | None:  # noqa: A002 - it is one
        """The session with this id; ``None`` where there is none that can be read.

        Args:
            id: What a cookie said: anything.
            life: Seconds for which a sliding session is to live on; the keeper's own by default.

        Raises:
            Unavailable: The store does not answer. Whether somebody is logged in is not known then.
        """
        key = _key(id)
        found = self.store.load(key, (life or self.life) if self.sliding else None)
        if found is None:
            return None
        try:
            data = {name: self._decode(key, name, raw) for name, raw in found.fields.items()}
        except Unreadable:  # written with another secret, or by somebody else; one field less could mean more rights
            return None
        told = data.pop(_MARK, None)
        listed = told if isinstance(told, float) else 0.0
        session = Session(id, data, (life or self.life) if self.sliding else found.left, found.fields, listed=listed)
        if self.sliding:
            self._tell(session, life or self.life)
        return session

    def _tell(self, session: Session, life: float) -> None:
        """A session that lives on and on must stay in the list of its owner's, which is told now and then."""
        owner = session.data.get(self.owner)
        if owner is not None and session.listed - self._clock.wall() <= 1.5 * life:
            key = _key(session.id)
            self.store.change(key, {_MARK: self._join(owner, key, life)}, [], None)

    def _join(self, owner: Any, key: str, life: float) -> bytes:
        """Put a session that lives for so long into the list of its owner's. What it is to say of that itself."""
        self.store.join(_owner(owner), key, 2 * life)
        return self._encode(key, _MARK, self._clock.wall() + 2 * life)

    # --------------------------------------------------------------------------------------------------------- writing

    def create(self, data: Mapping[str, Any], life: float | None = None) -> Session:
        """Begin a session.

        Args:
            data: Its fields.
            life: Seconds that it lives; the keeper's own by default.

        Raises:
            Unavailable: The store does not answer.
            InvalidInput: A value cannot be written.
        """
        seconds, owner = life or self.life, data.get(self.owner)
        while True:
            id = self._make_id()  # noqa: A001 - it is one
            key = _key(id)
            fields = {_named(name): self._encode(key, name, value) for name, value in data.items()}
            listed = self._clock.wall() + 2 * seconds
            fields[_MARK] = self._encode(key, _MARK, listed)
            if self.store.create(key, fields, seconds):
                if owner is not None:  # should this fail, nobody is ever told the id
                    self.store.join(_owner(owner), key, 2 * seconds)
                return Session(id, dict(data), seconds, fields, fresh=True, listed=listed)

    def save(self, session: Session, data: Mapping[str, Any], life: float | None = None) -> Session:
        """Write what has changed since the session was read; with a new owner, under a new id.

        Args:
            session: The session as it was read.
            data: Its fields as they are to be.
            life: Seconds that it lives from now on; where nothing is said a session keeps its end.

        Returns:
            The session as it is now.

        Raises:
            Gone: It was ended meanwhile.
            Unavailable: The store does not answer.
            InvalidInput: A value cannot be written.
        """
        owner = data.get(self.owner)
        new = owner != session.data.get(self.owner)
        if new and not session.fresh:
            return self.rotate(session, data, life)
        if new:
            life = life or self.life
        put, drop = self._changes(session, data)
        if not put and not drop and life is None:
            return session
        key = _key(session.id)
        listed = session.listed
        if owner is not None and life is not None:
            put[_MARK] = self._join(owner, key, life)
            listed = self._clock.wall() + 2 * life
        if not self.store.change(key, put, drop, life):
            raise Gone("the session was ended in a concurrent request")
        raw = {name: each for name, each in {**session.raw, **put}.items() if name not in drop}
        return Session(session.id, dict(data), life or session.left, raw, session.fresh, listed)

    def _changes(self, session: Session, data: Mapping[str, Any]) -> tuple[dict[str, bytes], list[str]]:
        key = _key(session.id)
        put = {}
        for name, value in data.items():
            new, old = self._encode(key, _named(name), value), session.raw.get(name)
            # Written anew, since what holds a set may be written in another order elsewhere.
            if old is None or (new != old and new != self._encode(key, name, self._decode(key, name, old))):
                put[name] = new
        return put, [name for name in session.raw if name != _MARK and name not in data]

    def rotate(self, session: Session, data: Mapping[str, Any], life: float | None = None) -> Session:
        """Give a session a new id; the old one is worth nothing from then on.

        With a new owner its life begins anew. With the same it keeps its end, and one that was ended meanwhile stays
        ended. What others have changed until then goes along.

        Args:
            session: The session as it was read.
            data: Its fields as they are to be.
            life: Seconds that it lives from now on.

        Raises:
            Gone: It was ended meanwhile.
            Unavailable: The store does not answer.
        """
        owner = data.get(self.owner)
        same = owner == session.data.get(self.owner)
        new = self.create(data, life or (session.left if same and not self.sliding else None))
        last = self.store.take(_key(session.id))
        if last is not None:
            return self._along(session, last, new)
        if same and owner is not None:
            self.end(new.id)
            raise Gone("the session was ended in a concurrent request")
        return new

    def _along(self, session: Session, last: Mapping[str, bytes], new: Session) -> Session:
        """A renewed session, with what others have changed in it under its old id since it was read."""
        before, key, data = _key(session.id), _key(new.id), dict(new.data)
        mine, dropped = self._changes(session, data)
        put, drop = {}, []
        for name in last.keys() | session.raw.keys():
            raw = last.get(name)
            if name in {_MARK, self.owner, *mine, *dropped} or raw == session.raw.get(name):
                continue
            if raw is None:
                drop.append(name)
                del data[name]
            else:
                with suppress(Unreadable):  # by somebody else
                    data[name] = self._decode(before, name, raw)
                    put[name] = self._encode(key, name, data[name])
        if put or drop:
            self.store.change(key, put, drop, None)
        raws = {name: raw for name, raw in {**new.raw, **put}.items() if name not in drop}
        return Session(new.id, data, new.left, raws, new.fresh, new.listed)

    def prolong(self, session: Session, life: float) -> None:
        """Let a session live for so many seconds from now on. Raises Unavailable."""
        if life > 0:
            self._tell(session, life)
            self.store.change(_key(session.id), {}, [], life)
            session.left = life

    def exists(self, id: str) -> bool:  # noqa: A002 - it is one
        """Whether there is such a session; it does not live longer for it. Raises Unavailable."""
        return self.store.load(_key(id), None) is not None

    def end(self, id: str) -> bool:  # noqa: A002 - it is one
        """End a session. Whether there was one. Raises Unavailable."""
        return self.store.delete(_key(id))

    def log_out_everywhere(self, owner: Any, keep: str | None = None) -> int:
        """End all sessions of an owner.

        Sessions that are begun while it runs may be ended too. When it has returned, none that was there before is.

        Args:
            owner: What stands in the owner's field.
            keep: The id of a session that stays.

        Returns:
            How many there were.

        Raises:
            Unavailable: The store does not answer, and some may still be there: call it again.
        """
        name, kept = _owner(owner), None if keep is None else _key(keep)
        ended = 0
        for _ in range(_ROUNDS):
            keys = [key for key in self.store.members(name) if key != kept]
            if not keys:
                break
            ended += sum(self.store.delete(key) for key in keys)
            self.store.leave(name, keys)
        return ended

    # ---------------------------------------------------------------------------------------------------------- fields

    def _encode(self, key: str, name: str, value: Any) -> bytes:
        try:
            number, body = self._codec.encode([key, name, value])
        except InvalidInput as error:
            raise InvalidInput(
                f"the session's field {name!r} holds what cannot be kept",
                advice=f"keep plain values there, such as the id of a row; what is wrong with it: {error.message}",
            ) from error
        return bytes((number,)) + body

    def _decode(self, key: str, name: str, raw: bytes) -> Any:
        if not raw:
            raise Unreadable("empty")
        try:
            found = self._codec.decode(raw[0], self._codec.schema, raw[1:])
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable("broken") from error
        if not isinstance(found, list) or found[:2] != [key, name] or len(found) != 3:
            raise Unreadable("of another session")
        return found[2]


def _key(id: str) -> str:  # noqa: A002 - it is one
    """Under what a session is kept."""
    return hashlib.sha256(id.encode(errors="surrogatepass")).hexdigest()


def _named(name: Any) -> str:
    """The name of a field, if the field is found again under it.

    Raises:
        InvalidInput: It is not, and the session would be unreadable from then on.
    """
    try:
        if isinstance(name, str) and name != _MARK and name.encode():
            return name
    except UnicodeEncodeError:
        pass  # half a surrogate pair
    raise InvalidInput(
        f"a field of a session has a text as its name, and this {type(name).__name__} is none that can be kept",
        advice="use a text that is not empty; a dict within a field may have any keys",
    )


def _owner(owner: Any) -> str:
    """Under what the list of an owner's sessions is kept: 17 and ``"17"`` are the same."""
    return hashlib.sha256(str(owner).encode(errors="surrogatepass")).hexdigest()
