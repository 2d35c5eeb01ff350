"""Sessions of Flask on the server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, Request, Response, current_app, session
from flask.sessions import SessionInterface, SessionMixin

from resilient.arguments import check_seconds
from resilient.cache.rooms import CodecChoice
from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError, DeadlineExceeded, ResilientError, Unavailable
from resilient.flask._respond import respond
from resilient.runtime import fork_safe_lock
from resilient.web import HttpError, http_error
from resilient.web._session_stores import open_store
from resilient.web._sessions import Gone, Keeper, Session

if TYPE_CHECKING:
    _Mapping = MutableMapping[str, Any]
else:
    _Mapping = MutableMapping

__all__ = ["ServerSession", "Sessions"]

_KEPT = "resilient_sessions"


class ServerSession(SessionMixin, _Mapping):
    """What ``flask.session`` is: read from the server when it is first asked for, and written back where it changed.

    A change within a value (``session["cart"].append(17)``) is seen too; ``session.modified`` is not needed.
    """

    def __init__(self, keeper: Keeper, id: str | None) -> None:  # noqa: A002 - it is one
        self._keeper = keeper
        self._asked = id
        self._data: dict[str, Any] | None = None
        self._renew = False
        self.found: Session | None = None
        self.ended = False
        """Whether this request has ended the session that it found."""
        self.outage: ResilientError | None = None
        """What the store has failed with in this request."""
        self.accessed = False
        self.modified = False

    @property
    def data(self) -> dict[str, Any]:
        """The fields. Raises Unavailable while the store does not answer."""
        self.accessed = True
        if self._data is None:
            try:
                self.found = None if self._asked is None else self._keeper.load(self._asked)
            except (Unavailable, DeadlineExceeded) as error:
                self.outage = error
                raise
            self._data = {} if self.found is None else dict(self.found.data)
            self.new = self.found is None
        return self._data

    @property
    def loaded(self) -> bool:
        """Whether anything asked for it."""
        return self._data is not None

    @property
    def id(self) -> str | None:
        """The session's id; ``None`` before it is first stored."""
        _ = self.data  # read it, if it was not yet
        return None if self.found is None else self.found.id

    def rotate(self) -> None:
        """Give it a new id at the end of this request. It gets one by itself where its owner changes."""
        _ = self.data  # read it, if it was not yet
        self._renew = self.modified = True

    def store(self) -> Session | None:
        """Write what has changed; what is empty is ended. Raises Gone, Unavailable, InvalidInput."""
        data = self.data
        try:
            if not data:
                if self.found is not None:
                    self._keeper.end(self.found.id)
                    self.ended = True
                return None
            if self.found is None:
                return self._keeper.create(data)
            if self._renew:
                return self._keeper.rotate(self.found, data)
            return self._keeper.save(self.found, data)
        except (Unavailable, DeadlineExceeded) as error:
            self.outage = error
            raise

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.data[key] = value
        self.modified = True

    def __delitem__(self, key: str) -> None:
        del self.data[key]
        self.modified = True

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'loaded' if self.loaded else 'not asked for yet'}>"


class Sessions(SessionInterface):
    """Sessions on a Redis or Valkey server, each of their fields by itself: ``Resilient(app, sessions=Sessions(url))``.

    * Two requests that change different fields of one session at the same time both have their way.
    * When the owner's field changes, so does the session's id: what was known before the login is worth nothing after.
    * It lives for so many seconds from the login on, also while it is used, unless it is sliding.
    * While the server is away whoever asks for the session gets `resilient.errors.Unavailable`, which is answered with
      503: nobody is taken for logged in, or for a stranger. Pages that do not ask for it are served.

    What is kept is signed with the application's ``SECRET_KEY`` (and ``SECRET_KEY_FALLBACKS``), and found by a hash of
    the id, so that reading the server gives nobody a session.

    Args:
        target: As for `resilient.cache.Cache`: an address or a ready client; nothing keeps them in this process.
        namespace: What their keys begin with on the server.
        life: Seconds they live, or a timedelta; by default the application's ``PERMANENT_SESSION_LIFETIME``.
        sliding: Whether each use makes a session live on.
        owner: The field that tells whose session it is; ``"_user_id"`` with Flask-Login.
        secret: Instead of the application's.
        codec: How fields are written; ``safe`` keeps dates, tuples, sets and Decimals.
        connect_timeout: Seconds to connect, for clients made here.
        timeout: Seconds for each read or write, for clients made here.
        unbounded: Accept a ready client that could wait for ever.
        clock: Where time is read.

    Raises:
        ConfigurationError: An argument is wrong; told at the first request where it is the application's.

    Examples:
        >>> app = Flask("shop")
        >>> app.secret_key = "at least 16 bytes of it"
        >>> app.session_interface = Sessions(life=86_400)
        >>> @app.get("/")
        ... def count():
        ...     session["visits"] = session.get("visits", 0) + 1
        ...     return str(session["visits"])
        >>> browser = app.test_client()
        >>> browser.get("/").text, browser.get("/").text
        ('1', '2')
    """

    def __init__(
        self,
        target: Any = None,
        *,
        namespace: str = "flask",
        life: float | dt.timedelta | None = None,
        sliding: bool = False,
        owner: str = "user_id",
        secret: str | bytes | list[str | bytes] | None = None,
        codec: CodecChoice = "safe",
        connect_timeout: float = 0.1,
        timeout: float = 0.05,
        unbounded: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        if isinstance(life, dt.timedelta):
            life = life.total_seconds()
        if life is not None:
            check_seconds("life", life)
        check_seconds("connect_timeout", connect_timeout)
        check_seconds("timeout", timeout)
        limits: dict[str, Any] = {"connect_timeout": connect_timeout, "timeout": timeout, "unbounded": unbounded}
        self._store = open_store(target, namespace=namespace, clock=clock, **limits)
        self._life = life
        self._secret = secret
        self._options: dict[str, Any] = {"sliding": sliding, "owner": owner, "codec": codec, "clock": clock}
        self._lock = fork_safe_lock()

    def keeper(self, app: Flask) -> Keeper:
        """What keeps the sessions of one application. Raises ConfigurationError."""
        with self._lock:
            kept: dict[Sessions, Keeper] = app.extensions.setdefault(_KEPT, {})
            if self not in kept:
                life = app.permanent_session_lifetime.total_seconds() if self._life is None else self._life
                kept[self] = Keeper(self._store, life=life, secret=self._secret or _secret(app), **self._options)
            return kept[self]

    def log_out_everywhere(self, owner: Any, *, keep_this: bool = False) -> int:
        """End all sessions of a user, in all browsers.

        Args:
            owner: What stands in the owner's field.
            keep_this: Whether the session of the running request stays.

        Returns:
            How many there were.

        Raises:
            Unavailable: The store does not answer, and some may still be there: call it again.
        """
        kept = cast("ServerSession", session).id if keep_this else None
        return self.keeper(current_app._get_current_object()).log_out_everywhere(owner, kept)  # type: ignore[attr-defined] # noqa: SLF001 - Flask's own way to the object behind

    def close(self) -> None:
        """Close the connections that were made here."""
        self._store.close()

    # ------------------------------------------------------------------------------------------------ what Flask calls

    def open_session(self, app: Flask, request: Request) -> ServerSession:
        """The session of a request; nothing is read yet."""
        return ServerSession(self.keeper(app), request.cookies.get(self.get_cookie_name(app)) or None)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Write it back, and tell the cookie. Where that fails for the store, the response becomes a 503."""
        if not isinstance(session, ServerSession) or not session.accessed:
            return
        response.vary.add("Cookie")
        if session.loaded:
            try:
                stored = session.store()
            except Gone:  # logged out in another request: what this one has changed is not kept
                stored = None
            except (Unavailable, DeadlineExceeded) as error:
                _become(response, error)
                return
            self._tell(app, session, stored, response)
        elif session.outage is not None and response.status_code == 500:
            _become(response, session.outage)

    def _tell(self, app: Flask, session: ServerSession, stored: Session | None, response: Response) -> None:
        name = self.get_cookie_name(app)
        options: dict[str, Any] = {
            "domain": self.get_cookie_domain(app),
            "path": self.get_cookie_path(app),
            "secure": self.get_cookie_secure(app),
            "samesite": self.get_cookie_samesite(app),
            "httponly": self.get_cookie_httponly(app),
        }
        if hasattr(self, "get_cookie_partitioned"):  # Flask 3.1
            options["partitioned"] = self.get_cookie_partitioned(app)
        if stored is None:
            # A cookie that names no session, or one that another request has ended, is left alone: it is worth nothing,
            # and that request may have sent another cookie, as a login does, which this answer would take away.
            if session.ended:
                response.delete_cookie(name, **options)
            return
        before, lives_on = session.found, session.permanent and self._options["sliding"]
        if before is None or stored.id != before.id or session.permanent != _is_permanent(before) or lives_on:
            expires = self.get_expiration_time(app, session)
            response.set_cookie(name, stored.id, expires=expires, **options)


def _is_permanent(session: Session) -> bool:
    """Whether the cookie of a session, as it was read, has an end."""
    return bool(session.data.get("_permanent"))


def _secret(app: Flask) -> list[str | bytes]:
    if not app.secret_key:
        raise ConfigurationError(
            "sessions are signed with the application's SECRET_KEY, and it has none",
            advice="set app.secret_key, the same in every process",
        )
    return [app.secret_key, *(app.config.get("SECRET_KEY_FALLBACKS") or ())]


def _become(response: Response, error: ResilientError) -> None:
    """Make a response say that the store is away, whatever it was."""
    made = respond((http_error(error) or HttpError(503, "unavailable", 1)).answer())
    close = getattr(response.response, "close", None)
    if close is not None:  # a file, say, which nobody else would close now
        close()
    response.status_code = made.status_code
    response.headers = made.headers
    response.response = made.response
    response.direct_passthrough = False
