# Generated from resilient/cache/_async/local.py by tools/unasync.py: do not edit.
"""A store of which this process keeps what it has read."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from resilient.cache._functions import Mode
from resilient.cache._local_tier import LocalTier
from resilient.cache._stamps import is_ours
from resilient.cache._values import Claim, Loader, Store, Swap

__all__ = ["LocalStore"]


class LocalStore:
    """Reads from this process what is known to be right, and from the store what is not.

    Only what was read is kept, never what was stored: whether that is still there only the server can tell. What this
    process changes, or tries to change, it forgets at once; what others change they, or the server, tell.

    Args:
        store: The server.
        tier: What is kept, with whoever tells it of changes.
    """

    def __init__(self, store: Store, tier: LocalTier) -> None:
        self.store = store
        self.tier = tier
        self.local = store.local
        self.channel: Any = getattr(store, "channel", None)
        self.table: Any = getattr(store, "table", None)
        """These two are for who keeps a board there, and no entries."""
        self.failures = store.failures
        self._get_many = store.get_many
        self._changes = tier.changes

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes under each key, in order. The server is asked: for those keys that are not kept, or for all.

        Stamps are asked for with whatever else is: a value of this moment bears those of this moment.
        """
        tier = self.tier
        found = tier.look(keys)
        missing = [key for key, raw in zip(keys, found, strict=True) if raw is None or is_ours(key)] or keys
        if self._changes is not None:
            self._changes.ensure()
        ticket, began = tier.ticket(), tier.clock.monotonic()
        asked = self._get_many(missing)
        tier.keep(missing, asked, ticket, began)
        if len(missing) == len(keys):
            return asked
        there = dict(zip(missing, asked, strict=True))
        return [there.get(key, raw) for key, raw in zip(keys, found, strict=True)]

    def _change(self, keys: Sequence[str], operation: Loader[..., Any], *args: Any) -> Any:
        """Run an operation that changes these keys. An operation without an answer may have changed them too."""
        try:
            done = operation(*args)
        finally:
            self.tier.forget(keys)
        self._tell(keys)
        return done

    def _tell(self, keys: Sequence[str]) -> None:
        """Tell the other processes of changes that the server does not tell them of."""
        news = () if self._changes is None else self._changes.news(keys)
        if news:
            with contextlib.suppress(*self.failures):  # who is not told keeps what he has for a second at most
                self.channel.call_many(news)

    def put_many(self, entries: Mapping[str, bytes], life: int) -> None:
        """Store entries with one life, whatever was there."""
        self._change(tuple(entries), self.store.put_many, entries, life)

    def get_or_claim(self, keys: Sequence[str], header: bytes, life: int) -> tuple[list[bytes | None], bool]:
        """Look on the server, and begin to load what is not there."""
        try:
            found, claimed = self.store.get_or_claim(keys, header, life)
        finally:
            self.tier.forget(keys[:1])
        if claimed:  # what was found stays as it is, and nobody need hear of it
            self._tell(keys[:1])
        return found, claimed

    def claim(self, key: str, seen: bytes | None, header: bytes, life: int) -> tuple[bytes | None, float] | None:
        """Begin to load; see `Store`."""
        found: tuple[bytes | None, float] | None = self._change((key,), self.store.claim, key, seen, header, life)
        return found

    def claim_many(self, claims: Sequence[Claim]) -> list[tuple[bytes | None, float] | None]:
        """Begin to load several."""
        keys = [claim[0] for claim in claims]
        found: list[tuple[bytes | None, float] | None] = self._change(keys, self.store.claim_many, claims)
        return found

    def swap(self, key: str, expected: bytes | None, raw: bytes | None, life: int) -> bool:
        """Store or delete only if what is there still begins as expected; ``None`` expects nothing there."""
        done: bool = self._change((key,), self.store.swap, key, expected, raw, life)
        return done

    def write_versioned(self, key: str, fence: bytes | None, raw: bytes, life: int, lease: int) -> int:
        """End a write by versions; see `Store`."""
        done: int = self._change((key,), self.store.write_versioned, key, fence, raw, life, lease)
        return done

    def swap_many(self, swaps: Sequence[Swap]) -> list[bool]:
        """The same for several that expect something."""
        keys = [swap[0] for swap in swaps]
        done: list[bool] = self._change(keys, self.store.swap_many, swaps)
        return done

    def wait(self, key: str, token: int, seconds: float) -> None:
        """Until the lease with that token is over; so many seconds at most."""
        self.store.wait(key, token, seconds)

    def exchange_many(self, marks: Mapping[str, bytes], life: int) -> list[bytes | None]:
        """Store marks, and return what was there; see `Store`."""
        before: list[bytes | None] = self._change(tuple(marks), self.store.exchange_many, marks, life)
        return before

    def close(self) -> None:
        """Be told no more, keep nothing, and close the connections, if they were made for this store."""
        if self._changes is not None:
            self._changes.close(0.0 if Mode.asynchronous else 1.0)  # no event loop waits for a thread
        self.tier.flush()
        self.store.close()
