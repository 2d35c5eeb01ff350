"""The session engine: ``SESSION_ENGINE = "resilient.django.sessions"``."""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from django import conf
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.base import VALID_KEY_CHARS, SessionBase, UpdateError
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from resilient.django._settings import SessionOptions, session_options
from resilient.errors import DeadlineExceeded, ResilientError, Unavailable
from resilient.web._session_stores import open_store
from resilient.web._sessions import Gone, Keeper, Session

__all__ = ["SessionStore", "log_out_everywhere"]

_THEIRS = "django.contrib.sessions.serializers.JSONSerializer"
_EXPIRY = "_session_expiry"


class SessionStore(SessionBase):  # type: ignore[misc]  # Django is untyped
    """A session of Django on Redis or Valkey, each of its fields by itself.

    It is configured by ``settings.RESILIENT["SESSIONS"]``; see `resilient.django`. What differs from Django's own:

    * two requests that change different keys of one session at the same time both have their way;
    * it lives for ``SESSION_COOKIE_AGE`` seconds from the login on, also while it is used, unless it is sliding
      (``SESSION_SAVE_EVERY_REQUEST``, or ``"SLIDING": True``);
    * while the server is away it raises `resilient.errors.Unavailable`: nobody is taken for logged in, or for a
      stranger. `resilient.django.middleware.SessionMiddleware` answers with 503.

    Args:
        session_key: What the cookie said.
    """

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._found: Session | None = None
        self.outage: ResilientError | None = None
        """What the store has failed with in this request."""

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Keeper]:
        try:
            yield keeper()
        except (Unavailable, DeadlineExceeded) as error:
            self.outage = error
            raise

    # -------------------------------------------------------------------------------------------- what Django asks for

    def load(self) -> dict[str, Any]:
        """The fields of the session; without one, none. Raises Unavailable."""
        with self._asking() as asked:
            found = None if self.session_key is None else asked.load(self.session_key)
            if found is None:
                self._session_key: str | None = None
                return {}
            self._found = found
            if asked.sliding and _EXPIRY in found.data:
                asked.prolong(found, self._age(found.data))
            return dict(found.data)

    def exists(self, session_key: str | None) -> bool:
        """Whether there is such a session. Raises Unavailable."""
        if session_key is None:
            return False
        with self._asking() as asked:
            return asked.exists(session_key)

    def create(self) -> None:
        """Begin a session under a new id. Raises Unavailable."""
        data = self._get_session(no_load=True)
        with self._asking() as asked:
            age = self._age(data)
            made = asked.create(data, age if age > 0 else None)
            if age <= 0:  # over already
                asked.end(made.id)
            self._now(made)
        self.modified = True

    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's own
        """Write what has changed. Raises UpdateError where the session was ended meanwhile, and Unavailable."""
        if self.session_key is None or must_create:
            self.create()
            return
        data = self._get_session()
        if self._found is None:  # there was no such session, or it was ended in this request
            if self.session_key is None:
                self.create()
                return
            raise UpdateError
        with self._asking() as asked:
            age = self._age(data)
            if _EXPIRY in data and age <= 0:
                asked.end(self._found.id)
                return
            renewed = self._differs(data, _EXPIRY) or self._differs(data, SESSION_KEY)
            try:
                self._now(asked.save(self._found, data, age if renewed else None))
            except Gone as error:
                raise UpdateError from error

    def cycle_key(self) -> None:
        """Give the session a new id; the old one is worth nothing from then on. Raises UpdateError, Unavailable."""
        data = self._session
        if self._found is None:
            self.create()
            return
        with self._asking() as asked:
            life = self._age(data) if asked.sliding or self._differs(data, _EXPIRY) else None
            try:
                self._now(asked.rotate(self._found, data, life))
            except Gone as error:
                raise UpdateError from error
        self.modified = True

    async def acycle_key(self) -> None:
        """The async face of `cycle_key`."""
        from asgiref.sync import sync_to_async

        await sync_to_async(self.cycle_key)()

    def delete(self, session_key: str | None = None) -> None:
        """End a session. Raises Unavailable."""
        key = session_key or self.session_key
        if key is None:
            return
        with self._asking() as asked:
            asked.end(key)
        if self._found is not None and key == self._found.id:
            self._found = None

    @classmethod
    def clear_expired(cls) -> None:
        """Nothing is to be done: the server forgets what is over."""

    # ------------------------------------------------------------------------------------------------------------ life

    def get_expiry_age(self, **kwargs: Any) -> Any:
        """Seconds until the session ends: of one that is not sliding, what is left of its life."""
        if not kwargs and self._found is not None and not keeper().sliding and not self.get(_EXPIRY):
            return max(0, math.ceil(self._found.left))
        return super().get_expiry_age(**kwargs)

    def _age(self, data: dict[str, Any]) -> float:
        """Seconds that a session with these fields lives from now on."""
        expiry = data.get(_EXPIRY)
        return float(super().get_expiry_age(expiry=expiry) if expiry else keeper().life)

    def _differs(self, data: dict[str, Any], field: str) -> bool:
        """Whether a field is another than on the server."""
        return self._found is None or data.get(field) != self._found.data.get(field)

    def _now(self, session: Session) -> None:
        self._found = session
        self._session_key = session.id


def log_out_everywhere(user: Any, keep: str | None = None) -> int:
    """End all sessions of a user, in all browsers.

    Args:
        user: The user, or what stands in the session as its id.
        keep: The key of a session that stays: ``request.session.session_key`` logs out all others.

    Returns:
        How many there were.

    Raises:
        Unavailable: The store does not answer, and some may still be there: call it again.
    """
    told = user._meta.pk.value_to_string(user) if hasattr(user, "_meta") else str(user)  # noqa: SLF001 - Django's way
    return keeper().log_out_everywhere(told, keep)


@lru_cache(maxsize=1)
def keeper() -> Keeper:
    """What keeps the sessions of this process. Raises ConfigurationError."""
    return make_keeper(session_options())


def make_keeper(options: SessionOptions) -> Keeper:
    """A keeper for these options. No connection is made yet. Raises ConfigurationError."""
    settings = conf.settings
    theirs = settings.SESSION_SERIALIZER
    return Keeper(
        open_store(options.location, namespace=options.namespace, **options.limits),
        life=settings.SESSION_COOKIE_AGE,
        sliding=options.sliding,
        owner=SESSION_KEY,
        secret=[settings.SECRET_KEY, *getattr(settings, "SECRET_KEY_FALLBACKS", ())],
        codec="safe" if theirs == _THEIRS else _Serializer(theirs),
        make_id=_new_key,
    )


class _Serializer:
    """A serializer of the user's as a codec."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._made = import_string(path)()

    def encode(self, value: Any) -> bytes:
        """The bytes of a value."""
        return bytes(self._made.dumps(value))

    def decode(self, raw: bytes) -> Any:
        """The value of such bytes."""
        return self._made.loads(raw)


def _new_key() -> str:
    return "".join(secrets.choice(VALID_KEY_CHARS) for _ in range(32))


def _changed(*, setting: str, **_: object) -> None:
    if setting in {"RESILIENT", "CACHES", "SECRET_KEY", "SECRET_KEY_FALLBACKS"} or setting.startswith("SESSION_"):
        keeper.cache_clear()


setting_changed.connect(_changed)
