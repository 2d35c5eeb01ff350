"""What a writer has seen travels with the invalidation, so that the load that follows it reads no older database.

Behind a replica set a loader may be sent to a copy that does not hold the write yet which made the cached value wrong.
So an invalidation notes the positions of the writer's `resilient.causality` scope, and a load that was made necessary
by it runs in a scope that demands them: whatever routes reads by that scope, such as
`resilient.storage.replicas.ReplicaSet`, then chooses a server that holds the write. Neither room knows the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from resilient import causality
from resilient.causality import Instant, Token

__all__ = ["at_or_after", "merged", "note", "raised"]


def note(now: float) -> bytes:
    """The positions of the running scope, to stand beside an invalidation; empty outside any scope.

    A position told by the clock is noted as this very moment: of two writers the earlier may tell of its change last,
    and what the other told was forgotten with the value that was loaded in between.

    Args:
        now: What the wall clock shows.

    Examples:
        >>> note(1700000001.0)
        b''
        >>> with causality.scope("1!app:t1700000000.000000"):
        ...     note(1700000001.0)
        b'1!app:t1700000001.000000'
    """
    scope = causality.running()
    return b"" if scope is None else str(_raised(scope.token, now)).encode()


def raised(told: bytes, now: float) -> bytes:
    """A note of a while ago, as it would be taken at this moment."""
    return str(_raised(_token([told]), now)).encode() if told else b""


def _raised(token: Token, now: float) -> Token:
    for name, position in token.positions.items():
        if isinstance(position, Instant):
            token = token.advance(name, Instant(now))
    return token


def merged(*notes: bytes) -> bytes:
    """One note for several.

    Examples:
        >>> merged(b"", b"1!app:t1700000000.000000", b"1!app:t1700000001.000000")
        b'1!app:t1700000001.000000'
    """
    told = [each for each in dict.fromkeys(notes) if each]
    return told[0] if len(told) == 1 else str(_token(told)).encode()


def _token(notes: Iterable[bytes]) -> Token:
    token = Token()
    for each in notes:
        token = token.merge(Token.read(each.decode(errors="replace")))
    return token


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
    wanted = _token(filter(None, notes))
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
