"""Rate limits that several processes share: the state of a `resilient.policy.RateLimit`, kept in Redis.

One script does the whole of GCRA on the server, by the server's clock: no two processes can take the same turn, and
their own clocks do not matter. Needs the extra ``redis``.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError, Unavailable, needs_extra
from resilient.wire.redis import AsyncConnector, Connector

with needs_extra("redis"):
    import redis
    import redis.exceptions

__all__ = ["RedisRate"]

_log = logging.getLogger("resilient.limits")

# The key holds the moment, in microseconds, when the next turn is due if none is saved up. It goes when that is past.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, wait = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local pause = due - interval * (burst - 1) - now
if pause < 1 then pause = 0 end
if pause <= wait then
  due = due + interval
  redis.call('SET', KEYS[1], string.format('%.3f', due), 'PX', math.ceil((due - now) / 1000))
end
return string.format('%.0f', math.ceil(pause))
"""
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class RedisRate:
    """What several processes share of a `RateLimit`: give it as ``shared=``, with the same rate in all of them.

    Pipelines of the same name share a limit. Together the processes begin at most ``burst`` calls plus ``rate`` per
    second. While Redis does not answer, the pipeline limits its own process alone, and Redis is asked again only after
    a pause, so that calls do not wait for a dead server. A Redis that lost its data begins with a full burst.

    Args:
        target: The address of a Redis server, for sync and async callers alike; or a ready client of redis-py, for
            callers of its own face only.
        namespace: What the keys begin with.
        timeout: Seconds for one answer.
        pause: Seconds after a failure before Redis is asked again.
        clock: Where the pause is measured.

    Raises:
        ConfigurationError: The address is none, or the client has no time limit.

    Examples:
        >>> from resilient.policy import Pipeline, RateLimit
        >>> shared = RedisRate("redis://127.0.0.1:6379/0")
        >>> sms = Pipeline("sms", RateLimit(10, burst=2, shared=shared))
    """

    def __init__(
        self,
        target: Any,
        *,
        namespace: str = "resilient",
        timeout: float = 0.05,
        pause: float = 1.0,
        clock: Clock = SYSTEM,
    ) -> None:
        ready = not isinstance(target, str)
        is_async = ready and type(target).__module__.startswith(("redis.asyncio", "fakeredis.aioredis"))
        self._connector = None if is_async else Connector(target, timeout=timeout)
        self._async_connector = None if ready and not is_async else AsyncConnector(target, timeout=timeout)
        self._namespace = namespace
        self._pause = pause
        self._clock = clock
        self._ask_again: float | None = None

    def take(self, name: str, interval: float, burst: int, wait: float) -> float:
        """Take a turn; see `resilient.policy.SharedRate`.

        Raises:
            Unavailable: Redis failed within the last ``pause`` seconds, and was not asked.
            redis.RedisError: It failed now.
        """
        connector = self._checked(self._connector, "an async", "acall")
        arguments = self._arguments(name, interval, burst, wait)
        try:
            try:
                answer = connector.get().evalsha(_SHA, 1, *arguments)
            except redis.exceptions.NoScriptError:  # a server that was just started, or told to forget its scripts
                answer = connector.get().eval(_SCRIPT, 1, *arguments)
        except (redis.RedisError, OSError) as error:
            self._failed(error)
            raise
        return self._answered(answer)

    async def atake(self, name: str, interval: float, burst: int, wait: float) -> float:
        """The same for async callers."""
        connector = self._checked(self._async_connector, "a sync", "call")
        arguments = self._arguments(name, interval, burst, wait)
        try:
            try:
                answer = await connector.get().evalsha(_SHA, 1, *arguments)
            except redis.exceptions.NoScriptError:  # as above
                answer = await connector.get().eval(_SCRIPT, 1, *arguments)
        except (redis.RedisError, OSError) as error:
            self._failed(error)
            raise
        return self._answered(answer)

    def close(self) -> None:
        """Close the sync connections, if they were made here."""
        if self._connector is not None:
            self._connector.close()

    async def aclose(self) -> None:
        """Close the running loop's connections, if they were made here."""
        if self._async_connector is not None:
            await self._async_connector.aclose()

    def _checked(self, connector: Any, given: str, way: str) -> Any:
        if connector is None:
            # The pipeline limits alone whatever is raised here; without this line nobody would know.
            _log.error("a rate limit is not shared: it was made with %s client", given)
            raise ConfigurationError(
                f"this rate was made with {given} client",
                advice=f"use pipeline.{way}(...), or pass the address of the server instead of a client",
            )
        if self._ask_again is not None and self._clock.monotonic() < self._ask_again:
            raise Unavailable("Redis failed a moment ago, and was not asked")
        return connector

    def _arguments(self, name: str, interval: float, burst: int, wait: float) -> tuple[Any, ...]:
        return f"{self._namespace}:rate:{name}", repr(interval * 1e6), burst, repr(wait * 1e6)

    def _failed(self, error: Exception) -> None:
        if self._ask_again is None:
            _log.warning("rate limits are not shared for now: Redis failed with %s", type(error).__name__)
        self._ask_again = self._clock.monotonic() + self._pause

    def _answered(self, answer: Any) -> float:
        if self._ask_again is not None:
            self._ask_again = None
            _log.warning("rate limits are shared again")
        return int(answer) / 1e6
