"""The part of a cache's face that follows a database: its queries, and its transactions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from resilient.cache._async.face.base import AsyncFace

if TYPE_CHECKING:
    from resilient.cache._async.on_commit import AsyncOnCommit
    from resilient.cache._rows import Rows

__all__ = ["AsyncSqlFace"]


class AsyncSqlFace(AsyncFace):
    """What a cache can do with a session of SQLAlchemy."""

    def on_commit(self, session: Any) -> AsyncOnCommit:
        """Change the cache when, and only when, a session's transaction commits.

        In the block, and on the object it gives, all changes of this cache (``set``, ``invalidate``,
        ``invalidate_tags``, functions of ``write_through``) are collected. Before the COMMIT their keys are fenced, so
        that nobody caches what is about to become old; after it the new values are written, or the old ones forgotten.
        A rollback lifts the fences and leaves the cache as it was; that of a savepoint drops what was collected in it.
        The rows of `query` that read tables this transaction wrote to are forgotten too.

        The commit may come inside the block or after it. A function of ``lazy`` that is called in the block once the
        session has written runs without the cache: what it reads is not committed yet.

        What a failure costs: a process that dies between COMMIT and the change of the cache leaves the keys uncached
        for one lease. A COMMIT without an answer, and one that fails, makes the keys forgotten. A cache that is away
        fails no commit: the keys are remembered, and forgotten there before it is trusted again.

        Args:
            session: A Session; of SQLAlchemy's own or one that a replica set or a set of shards made. With
                `AsyncCache` an AsyncSession.

        Raises:
            ConfigurationError: It is no session, or one of the other face.

        Examples:
            The cache is told with the commit:

                with cache.on_commit(session) as after:
                    player = session.get(Player, 17)
                    player.score = 150
                    after.set("player:17", {"score": 150})   # or after.invalidate("player:17")
                    session.commit()
        """
        from resilient.cache._async.on_commit import AsyncOnCommit

        return AsyncOnCommit(self, session)

    async def query(
        self,
        session: Any,
        statement: Any,
        ttl: float | None = None,
        *,
        tags: Iterable[str] = (),
        params: Mapping[str, Any] | None = None,
    ) -> Rows:
        """The rows of a query: from the cache, or from the database and then into the cache.

        Its key is a hash of the statement as its database is sent it, white space aside, and of the parameters with
        their types. Every table it names is a tag, ``table:player``: `on_commit` forgets the rows of tables that were
        written to, and ``invalidate_tags("table:player")`` does so by hand.

        The cache is bypassed in a transaction that has written, or whose session holds changes. In a transaction that
        began to read earlier, and sees the database as it was then, rows are served from the cache but not stored.

        Args:
            session: A Session; with `AsyncCache` an AsyncSession.
            statement: A ``select`` of columns, or ``text``, which needs tags.
            ttl: Seconds the rows live; the cache's own by default.
            tags: Further tags.
            params: Parameters of the statement.

        Raises:
            InvalidInput: The statement writes, locks, selects whole entities, or is text without tags; or a parameter
                or a value cannot be kept.
            ConfigurationError: There is no ttl, or the session is none or one of the other face.

        Examples:
            The ten best, out of the cache for a minute:

                best = select(Player.id, Player.nickname).order_by(Player.score.desc()).limit(10)
                for row in cache.query(session, best, ttl=60):
                    print(row.id, row.nickname)
        """
        from resilient.cache._async.query import query

        return await query(self, session, statement, ttl=ttl, tags=tags, params=params)
