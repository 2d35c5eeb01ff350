"""Which errors of a loader or a writer mean what."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence

from resilient.errors import InvalidInput, NotFound, Refused, ResilientError
from resilient.runtime import fork_safe_lock

__all__ = ["Throttle", "ambiguous", "another", "is_failure", "name_of", "rebuilt", "remembered"]

_MISTAKES = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    NameError,
    AssertionError,
    NotImplementedError,
    InvalidInput,
    NotFound,
    Refused,
)
"""Errors of the program or of the request: an old value would hide them."""

_THROTTLE = 1.0  # seconds between two tries to reach a source that failed, for one key
_TRACKED = 10_000


def is_failure(error: Exception) -> bool:
    """Whether a loader's error means that its source cannot serve, so that an old value may stand in."""
    return not isinstance(error, _MISTAKES)


def ambiguous(error: BaseException) -> bool:
    """Whether a writer that raised this may yet have changed its store.

    It has not where its error says so: one of this library's own, or a database's about a statement that it refused.
    Anything else may come of what a writer does after its commit, or be the loss of the answer to it.

    Examples:
        >>> ambiguous(Refused("not yours to change")), ambiguous(KeyError("id"))
        (False, True)
    """
    if isinstance(error, ResilientError):
        from resilient.policy.classify import default  # a table that few processes ever need

        verdict = default(error)
    elif "sqlalchemy" in sys.modules:
        from resilient.wire._sql_errors import classify

        verdict = classify(error)
    else:
        verdict = None
    return verdict is None or not verdict.no_effect


def another(error: BaseException) -> BaseException:
    """The same error for one more caller; the very same where it cannot be copied.

    An object that is raised in several threads would bear the tracebacks and the contexts of all of them.

    Examples:
        >>> first = LookupError("no row")
        >>> another(first), another(first) is first
        (LookupError('no row'), False)
    """
    try:
        made = copy.copy(error)
        if type(made) is not type(error) or made.args != error.args:
            return error
    except Exception:  # noqa: BLE001 - its constructor wants what it does not keep
        return error
    made.__cause__, made.__suppress_context__ = error.__cause__, error.__suppress_context__
    return made.with_traceback(error.__traceback__)


def remembered(error: Exception, kinds: Sequence[type[Exception]]) -> type[Exception] | None:
    """The class under which an error is cached: the first of these that it belongs to."""
    return next((kind for kind in kinds if isinstance(error, kind)), None)


def name_of(kind: type[Exception], error: Exception) -> str:
    """An error as an entry keeps it: the name of its class, and its message. Nothing else of it is kept."""
    text = error.message if isinstance(error, ResilientError) else str(error)
    return f"{_name(kind)}\n{text}"


def rebuilt(text: str, kinds: Sequence[type[Exception]]) -> Exception | None:
    """The error that an entry names, if it is one of these classes and can be made of its message alone.

    Examples:
        >>> rebuilt(name_of(LookupError, KeyError("no row")), [LookupError])
        LookupError("'no row'")
        >>> rebuilt(name_of(LookupError, KeyError("no row")), [OSError]) is None
        True
    """
    name, _, message = text.partition("\n")
    for kind in kinds:
        if _name(kind) == name:
            try:
                return kind(message)
            except Exception:  # noqa: BLE001 - its constructor wants more: then the source is asked again
                return None
    return None


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class Throttle:
    """Keys whose source failed a moment ago, and is not asked again for a second."""

    def __init__(self) -> None:
        self._lock = fork_safe_lock()
        self._until: dict[str, float] = {}

    def reset(self) -> None:
        """Forget them: for a forked child, where the locks of others are not."""
        self._until = {}

    def holds(self, key: str, now: float) -> bool:
        """Whether the source is left alone at this moment."""
        return self._until.get(key, 0.0) > now

    def hold(self, key: str, now: float) -> None:
        """Leave the source alone for a while."""
        with self._lock:
            if len(self._until) >= _TRACKED:
                self._until = {each: until for each, until in self._until.items() if until > now}
            if len(self._until) < _TRACKED:
                self._until[key] = now + _THROTTLE

    def lift(self, key: str) -> None:
        """The source answered."""
        self._until.pop(key, None)
