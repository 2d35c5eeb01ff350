"""The board on which instances leave their words, in one hash of a Redis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from resilient.errors import needs_extra
from resilient.wire.redis import Channel, Script, classify

with needs_extra("redis"):
    import redis

__all__ = ["RedisBoard"]

# One field for each instance: the moment it was written, the moment it lapses, and the words. All moments are the
# server's, so that nobody's clock matters. Whatever has lapsed is cleared away by whoever comes next.
_EXCHANGE: Final = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local life = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f ', now, now + life) .. ARGV[2])
if redis.call('PTTL', KEYS[1]) < life then redis.call('PEXPIRE', KEYS[1], life) end
local all, told = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  local at, lapses, words = string.match(all[i + 1], '^(%d+) (%d+) (.*)$')
  if not at or tonumber(lapses) <= now then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= ARGV[1] then
    told[#told + 1] = all[i]
    told[#told + 1] = math.max(0, now - tonumber(at))
    told[#told + 1] = words
  end
end
return told
"""
)


class RedisBoard:
    """A `resilient.health.PeerBoard` in Redis or Valkey.

    Args:
        target: Its address (also of a Cluster or of Sentinels), or a client of redis-py.
        timeout: Seconds for one exchange.
    """

    classify = staticmethod(classify)

    def __init__(self, target: Any, *, timeout: float) -> None:
        self._channel = Channel.open(target, connect_timeout=timeout, timeout=timeout)

    def exchange(self, service: str, instance: str, words: bytes, ttl: float) -> Mapping[str, tuple[bytes, float]]:
        """See `resilient.health.PeerBoard`."""
        args = (instance, words, max(1, int(ttl * 1000)))
        try:
            told = self._channel.script(_EXCHANGE, [_key(service)], args)
        except redis.ConnectionError:  # perhaps only a connection of before a restart; saying it twice does no harm
            told = self._channel.script(_EXCHANGE, [_key(service)], args)
        return {
            told[at].decode(errors="replace"): (told[at + 2], int(told[at + 1]) / 1000) for at in range(0, len(told), 3)
        }

    def leave(self, service: str, instance: str) -> None:
        """See `resilient.health.PeerBoard`."""
        self._channel.call("HDEL", _key(service), instance)

    def close(self) -> None:
        """Close the connections that were made here."""
        self._channel.close()


def _key(service: str) -> str:
    return f"resilient:health:{service}"
