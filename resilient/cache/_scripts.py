"""The steps of the lease protocol on a server, each one script on one key: it all happens, or nothing does.

Their keys stand in one slot of a Cluster: the stream that wakes those who wait bears the value's key in braces. The
offsets are those of `resilient.cache._entry`: a head of 36 bytes, then the byte that says that somebody waits, two of
the length of the tags, eight of the generation, four of busy and eight of the version: 59 in all.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CLAIM", "SETTLE", "SWAP", "wake_key"]

_OLDER = """
local function older(a, b)
  for i = 1, 8 do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return false
end
local none = '\\0\\0\\0\\0\\0\\0\\0\\0'
"""
"""Whether one version is below another: byte by byte, since a number of this language holds only 53 bits."""

CLAIM: Final = """
local seen = redis.call('GETRANGE', KEYS[1], 0, 58)
local same = ARGV[1] ~= '' and string.sub(seen, 1, 36) == ARGV[1]
if math.floor(string.byte(ARGV[2], 3) / 8) % 2 == 1 then
  if same or seen == '' then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return 1
  end
elseif same then
  redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
  local left = redis.call('PTTL', KEYS[1])
  if left >= 0 and left < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
  return 1
end
if seen == '' then return {'', 0} end
if #seen == 59 and string.byte(seen, 1) == 206 and string.byte(seen, 2) == 3 then
  local leased = math.floor(string.byte(seen, 3) / 8) % 2 == 1
  if leased or string.sub(seen, 48, 51) ~= '\\0\\0\\0\\0' then redis.call('SETRANGE', KEYS[1], 36, '\\1') end
end
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}
"""
"""Begin to load: put a lease where nothing is, or where what was seen still is; else say what is there, and how long.

Where somebody else loads, it is noted that somebody waits. Bytes that are no lease are the new header of a value, of
which the rest is kept: it stays there for as long as its load may take, since what is gone cannot be replaced; until
when it is served its header says. Arguments: the head that was seen (empty: nothing), the bytes to put, the lease in
milliseconds.
"""

SWAP: Final = (
    _OLDER
    + """
local seen = redis.call('GETRANGE', KEYS[1], 0, 58)
local done = 0
if seen ~= '' and string.sub(seen, 1, 36) == ARGV[1] then
  local version = string.sub(ARGV[2], 52, 59)
  if #version == 8 and version ~= none and #seen == 59 and older(version, string.sub(seen, 52, 59)) then
    if math.floor(string.byte(seen, 3) / 4) % 2 == 0 then redis.call('SETRANGE', KEYS[1], 47, '\\0\\0\\0\\0') end
  else
    done = 1
    if ARGV[2] == '' then redis.call('DEL', KEYS[1])
    elseif ARGV[3] == '0' then redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
    else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
  end
end
if KEYS[2] and (done == 0 or string.byte(seen, 37) == 1) then
  redis.call('XADD', KEYS[2], '*', 'end', '1')
  redis.call('PEXPIRE', KEYS[2], 5000)
end
return done
"""
)
"""End a load or a write: replace or delete what is there, if it is still what was put there, and wake who waits for it.

Who waits is woken also when it was refused. A value goes over none with a higher version: then that one is left as it
is, and is loaded by nobody any more. Arguments: the head that was put there, the bytes to put (empty: delete),
their life in milliseconds (0: rewrite the header alone).
"""

SETTLE: Final = (
    _OLDER
    + """
local seen = redis.call('GETRANGE', KEYS[1], 0, 58)
local mine = string.sub(ARGV[2], 52, 59)
local ours = #seen == 59 and string.byte(seen, 1) == 206 and string.byte(seen, 2) == 3
local flags = ours and string.byte(seen, 3) or 0
local theirs = ours and string.sub(seen, 52, 59) or none
local function parts()
  local whole = redis.call('GET', KEYS[1])
  local at = 60 + string.byte(whole, 38) * 256 + string.byte(whole, 39)
  if theirs == none then return whole, string.sub(whole, at), '' end
  local ends = at + 1 + string.byte(whole, at) * 256 + string.byte(whole, at + 1)
  return whole, string.sub(whole, at + 2, ends), string.sub(whole, ends + 1)
end
if ARGV[1] ~= '' and string.sub(seen, 1, 36) == ARGV[1] then
  if older(mine, theirs) then
    local _, _, left = parts()
    redis.call('SET', KEYS[1], left, 'PX', ARGV[4])
    return 2
  end
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
if math.floor(flags / 4) % 2 == 1 then
  if not older(theirs, mine) then return 2 end
  local whole, note = parts()
  local size = string.char(math.floor(#note / 256), #note % 256)
  local head = string.sub(whole, 1, 37) .. '\\0\\0' .. string.sub(whole, 40, 51)
  redis.call('SET', KEYS[1], head .. mine .. size .. note .. ARGV[2], 'PX', redis.call('PTTL', KEYS[1]))
  return 3
end
if theirs ~= none and math.floor(flags / 2) % 2 == 0 and math.floor(flags / 8) % 2 == 0 then
  if older(mine, theirs) then return 2 end
  redis.call('SET', KEYS[1], ARGV[2], 'PX', math.min(tonumber(ARGV[3]), tonumber(ARGV[4])))
  return 1
end
if ARGV[1] ~= '' then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
)
"""End a write by versions; see `resilient.cache._values.Store.settle`.

Arguments: the head of the writer's fence (empty: none), the value, its life and the lease in milliseconds.
"""


def wake_key(key: str, stamp: int) -> str:
    """The stream that wakes those who wait for the lease with that stamp.

    Examples:
        >>> wake_key("shop:user:17", 255)
        'shop:wake:{shop:user:17}:ff'
        >>> wake_key("shop:tag:{users}", 255)  # a stamp's key has braces of its own, by which a Cluster finds its slot
        'shop:wake:{users}:ff'
    """
    part = key[key.index("{") :] if "{" in key else f"{{{key}}}"
    return f"{key.partition(':')[0]}:wake:{part}:{stamp:x}"
