# Generated from resilient/cache/_async/query.py by tools/unasync.py: do not edit.
"""The cache of SQL queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from resilient.cache._databases import database_of
from resilient.cache._functions import Mode
from resilient.cache._keys import tag_names
from resilient.cache._rows import Rows, packed
from resilient.cache._statements import check, fingerprint, tags_of
from resilient.cache._sync.host import Host
from resilient.cache._transactions import plain, snapshot_of, wrote

__all__ = ["query"]


def query(
    cache: Host,
    session: Any,
    statement: Any,
    *,
    ttl: float | None,
    tags: Iterable[str],
    params: Mapping[str, Any] | None,
    refresh: bool = False,
) -> Rows:
    """What `Cache.query` does."""
    inner = plain(session, asynchronous=Mode.asynchronous)
    own = tuple(tags)
    check(statement, own)

    def load() -> Any:
        result = session.execute(statement, params)
        return packed(result)

    if wrote(inner):
        return Rows(*load())
    dialect, database = database_of(inner, statement)
    key = fingerprint(statement, params, dialect, database)
    names = tag_names(tags_of(statement, own))
    if snapshot_of(inner) is None:
        found = cache.load_lookup(key, load, cache.plan(ttl, names), refresh=refresh)
        return Rows(*found.value)
    # What it reads now is as old as its transaction, and a change since then may have been told already.
    stored = cache.get(key)
    return Rows(*(load() if stored is None else stored))
