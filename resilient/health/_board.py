"""The board on which instances leave their words, in one hash of a Redis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from resilient.clock import SYSTEM, Clock
from resilient.errors import needs_extra
from resilient.wire.redis import Script, classify, open_channel

with needs_extra("redis"):
    import redis

__all__ = ["RedisBoard"]

# One field for each instance: the moment its words were said, the moment they lapse, and the words. All moments are the
# server's, so that nobody's clock matters. They are of when the words were *said*: a server that stalls, or a network
# that holds them up, may run this long after, and old words that pass for new ones would be false witnesses. So the
# caller says what the server's time was when it spoke; without words it only asks for that time. Whatever has lapsed
# is cleared away by whoever comes next, and so is what was said in the future: that is the time of another server.
_EXCHANGE: Final = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local told = {string.format('%.0f', now)}
if ARGV[1] == '' then return told end
local life, said = tonumber(ARGV[3]), math.min(now, tonumber(ARGV[4]))
local all, newest = redis.call('HGETALL', KEYS[1]), said
for i = 1, #all, 2 do
  local at, lapses, words = string.match(all[i + 1], '^(%d+) (%d+) (.*)$')
  if not at or tonumber(lapses) <= now or tonumber(at) > now then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] == ARGV[1] then
    newest = math.max(newest, tonumber(at))
  else
    told[#told + 1] = all[i]
    told[#told + 1] = now - tonumber(at)
    told[#told + 1] = words
  end
end
if newest == said and said + life > now then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f ', said, said + life) .. ARGV[2])
  if redis.call('PTTL', KEYS[1]) < life then redis.call('PEXPIRE', KEYS[1], life) end
end
return told
"""
)


class RedisBoard:
    """A `resilient.health.PeerBoard` in Redis or Valkey.

    Args:
        target: Its address (also of a Cluster or of Sentinels), or a client of redis-py.
        timeout: Seconds for one exchange.
        clock: Where our own time comes from.
    """

    classify = staticmethod(classify)

    def __init__(self, target: Any, *, timeout: float, clock: Clock = SYSTEM) -> None:
        self._channel = open_channel(target, connect_timeout=timeout, timeout=timeout)
        self._clock = clock
        self._offset: float | None = None  # what the server's time is ahead of ours, at least; None where not known

    def exchange(self, service: str, instance: str, words: bytes, ttl: float) -> Mapping[str, tuple[bytes, float]]:
        """See `resilient.health.PeerBoard`."""
        said = self._clock.monotonic()
        try:
            told = self._exchange(service, instance, words, ttl, said)
        except redis.ConnectionError:  # perhaps only a connection of before a restart; saying it twice does no harm
            self._offset = None
            told = self._exchange(service, instance, words, ttl, said)
        return {
            told[at].decode(errors="replace"): (told[at + 2], int(told[at + 1]) / 1000) for at in range(1, len(told), 3)
        }

    def _exchange(self, service: str, instance: str, words: bytes, ttl: float, said: float) -> list[Any]:
        offset, self._offset = self._offset, None  # after a failure it may be another server
        if offset is None:
            _, offset = self._run(service, "", b"", 0, 0)
        life = max(1, int(ttl * 1000))
        told, self._offset = self._run(service, instance, words, life, int((said + offset) * 1000))
        return told

    def _run(self, service: str, instance: str, words: bytes, life: int, said: int) -> tuple[list[Any], float]:
        """What the script returned, and how far the server's time is ahead of ours, at least."""
        told = self._channel.script(_EXCHANGE, [_key(service)], (instance, words, life, said))
        return told, int(told[0]) / 1000 - self._clock.monotonic()

    def leave(self, service: str, instance: str) -> None:
        """See `resilient.health.PeerBoard`."""
        self._channel.call("HDEL", _key(service), instance)

    def close(self) -> None:
        """Close the connections that were made here."""
        self._channel.close()


def _key(service: str) -> str:
    return f"resilient:health:{service}"
