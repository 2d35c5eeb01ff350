"""The part of a cache's face that forgets by tag, and everything."""

from __future__ import annotations

from resilient.cache._async.face.base import AsyncFace

__all__ = ["AsyncTagging"]


class AsyncTagging(AsyncFace):
    """Forgetting without naming keys."""

    async def invalidate_tags(self, *tags: str) -> None:
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
        await self._engine.invalidate_tags(tags)

    async def clear(self) -> None:
        """Forget all values of this namespace, in all processes that share the server.

        No key is deleted: the entries count as absent from now on, and go when their time is over.
        """
        await self._engine.clear()
