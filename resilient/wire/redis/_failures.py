"""What errors of redis-py say about a call."""

from __future__ import annotations

from resilient.errors import needs_extra
from resilient.policy.classify import Failure, Verdict
from resilient.wire.redis._limits import Busy

with needs_extra("redis"):
    import redis

__all__ = ["classify"]

_TABLE: tuple[tuple[tuple[str, ...], Failure, bool], ...] = (
    # The first row that names a class of the error's family decides. Names, since they came over several versions.
    (("AuthenticationError", "AuthorizationError", "NoPermissionError"), Failure.AUTH, True),
    (("ReadOnlyError",), Failure.READ_ONLY, True),
    (("OutOfMemoryError", "MaxConnectionsError"), Failure.THROTTLED, True),
    (("BusyLoadingError", "ClusterDownError", "MasterDownError", "TryAgainError"), Failure.UNAVAILABLE, True),
    (("WatchError",), Failure.CONFLICT, True),
    (("ResponseError", "DataError"), Failure.INVALID, True),
    (("TimeoutError",), Failure.TIMEOUT, False),
    (("ConnectionError",), Failure.UNAVAILABLE, False),
)


def classify(error: BaseException) -> Verdict | None:
    """What an error of redis-py says about the call; ``None`` for other errors.

    Examples:
        >>> import redis
        >>> classify(redis.exceptions.ReadOnlyError()).failure
        <Failure.READ_ONLY: ...>
    """
    if not isinstance(error, redis.RedisError):
        return None
    if isinstance(error, Busy) or "No connection available" in str(error):  # the text is that of redis-py's own pool
        return Verdict(Failure.THROTTLED, no_effect=True)  # all of ours are busy: no word about the server
    names = {each.__name__ for each in type(error).__mro__}
    for row, failure, no_effect in _TABLE:
        if names.intersection(row):
            return Verdict(failure, no_effect or _never_sent(error), None)
    return Verdict(Failure.PERMANENT, False, None)


def _never_sent(error: BaseException) -> bool:
    """Whether the connection was never made, so that no command can have reached the server."""
    origin = error.__cause__ or error.__context__
    return isinstance(origin, ConnectionRefusedError) or "connecting to" in str(error)
