"""The two steps of the lease protocol on a server, each one script on one key: it all happens, or nothing does.

Their keys stand in one slot of a Cluster: the stream that wakes those who wait bears the value's key in braces. The
offsets are those of `resilient.cache._entry`: a head of 36 bytes, then the byte that says that somebody waits.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CLAIM", "SWAP", "wake_key"]

CLAIM: Final = """
local seen = redis.call('GETRANGE', KEYS[1], 0, 50)
local same = ARGV[1] ~= '' and string.sub(seen, 1, 36) == ARGV[1]
if ARGV[3] ~= '0' then
  if same or seen == '' then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return 1
  end
elseif same then
  redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
  return 1
end
if seen == '' then return {'', 0} end
if #seen == 51 and string.byte(seen, 1) == 206 and string.byte(seen, 2) == 2 then
  local leased = math.floor(string.byte(seen, 3) / 8) % 2 == 1
  if leased or string.sub(seen, 48, 51) ~= '\\0\\0\\0\\0' then redis.call('SETRANGE', KEYS[1], 36, '\\1') end
end
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}
"""
"""Begin to load: put a lease where nothing is, or where what was seen still is; else say what is there, and how long.

Where somebody else loads, it is noted that somebody waits. A life of 0 rewrites the header of a value and keeps the
rest. Arguments: the head that was seen (empty: nothing), the bytes to put, the lease in milliseconds.
"""

SWAP: Final = """
local seen = redis.call('GETRANGE', KEYS[1], 0, 36)
local done = 0
if seen ~= '' and string.sub(seen, 1, 36) == ARGV[1] then
  done = 1
  if ARGV[2] == '' then redis.call('DEL', KEYS[1])
  elseif ARGV[3] == '0' then redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
  else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
end
if KEYS[2] and (done == 0 or string.byte(seen, 37) == 1) then
  redis.call('XADD', KEYS[2], '*', 'end', '1')
  redis.call('PEXPIRE', KEYS[2], 5000)
end
return done
"""
"""End a load or a write: replace or delete what is there, if it is still what was put there, and wake who waits for it.

Who waits is woken also when it was refused. Arguments: the head that was put there, the bytes to put (empty: delete),
their life in milliseconds (0: rewrite the header alone).
"""


def wake_key(key: str, stamp: int) -> str:
    """The stream that wakes those who wait for the lease with that stamp.

    Examples:
        >>> wake_key("shop:user:17", 255)
        'shop:wake:{shop:user:17}:ff'
    """
    return f"{key.partition(':')[0]}:wake:{{{key}}}:{stamp:x}"
