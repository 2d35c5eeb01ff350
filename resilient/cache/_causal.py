"""What a writer has seen travels with the invalidation, so that the load that follows it reads no older database.

Behind a replica set a loader may be sent to a copy that does not hold the write yet which made the cached value wrong.
So an invalidation notes the positions of the writer's `resilient.causality` scope, and a load that was made necessary
by it runs in a scope that demands them: whatever routes reads by that scope, such as
`resilient.storage.replicas.ReplicaSet`, then chooses a server that holds the write. Neither room knows the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from resilient import causality
from resilient.causality import Token

__all__ = ["at_or_after", "note"]


def note() -> bytes:
    """The positions of the running scope, to stand beside an invalidation; empty outside any scope.

    Examples:
        >>> note()
        b''
        >>> with causality.scope("1!app:t1700000000.000000"):
        ...     note()
        b'1!app:t1700000000.000000'
    """
    scope = causality.running()
    return b"" if scope is None else str(scope.token).encode()


@contextmanager
def at_or_after(*notes: bytes) -> Iterator[None]:
    """Run a load at or after the positions that were noted. What it learns in doing so its caller learns too.

    Args:
        *notes: What `note` gave; empty ones and what is no note ask for nothing.

    Examples:
        >>> with causality.scope(), at_or_after(b"1!app:t1700000000.000000"):
        ...     str(causality.current().token)
        '1!app:t1700000000.000000'
    """
    wanted = Token()
    for each in notes:
        if each:
            wanted = wanted.merge(Token.read(each.decode(errors="replace")))
    outer = causality.running()
    if not wanted:
        yield
        return
    before = wanted if outer is None else outer.token.merge(wanted)
    with causality.scope(before) as inner:
        try:
            yield
        finally:
            if outer is not None:
                for name, position in inner.token.positions.items():
                    if position != before.get(name):  # a position that the load itself came to
                        outer.observe(name, position)
