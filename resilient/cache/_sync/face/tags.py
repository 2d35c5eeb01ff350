# Generated from resilient/cache/_async/face/tags.py by tools/unasync.py: do not edit.
"""The part of a cache's face that forgets by tag, and everything."""

from __future__ import annotations

from resilient.cache._sync.face.base import Face

__all__ = ["Tagging"]


class Tagging(Face):
    """Forgetting without naming keys."""

    def invalidate_tags(self, *tags: str) -> None:
        """Forget all values that bear one of these tags: nothing loaded before this call is served after it.

        It costs the same however many values there are, and takes effect in all processes that share the server. While
        the server is away the tags are remembered, and told there before it is trusted again.

        Args:
            *tags: The tags, as texts.

        Raises:
            InvalidInput: A tag is no text, or empty.

        Examples:
            ::

                cache.set("user:17", {"name": "Ada"}, tags=["users"])
                cache.invalidate_tags("users")
                cache.get("user:17")   # None
        """
        self._engine.invalidate_tags(tags)

    def clear(self) -> None:
        """Forget all values of this namespace, in all processes that share the server.

        No key is deleted: the entries count as absent from now on, and go when their time is over.
        """
        self._engine.clear()
