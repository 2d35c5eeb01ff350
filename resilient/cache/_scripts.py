"""The steps of the lease protocol on a server, each one script on one key: it all happens, or nothing does.

Their keys stand in one slot of a Cluster: the stream that wakes those who wait bears the value's key in braces. The
places of an entry's parts are those of `resilient.cache._entry`, put into the scripts where a name stands after a
dollar sign: ``$WAITED`` is a place as commands count it, from 0; ``$WAITED_1`` is the same as the language counts, from
1; ``$BUSY_END`` is the last of a part by that count.
"""

from __future__ import annotations

from string import Template
from typing import Final

from resilient.cache import _entry as entry

__all__ = ["CLAIM", "REPLACE", "SWAP", "TEMPLATES", "WRITE", "wake_key"]


def _names() -> dict[str, int]:
    """What the scripts call the places and the numbers of an entry."""
    parts = {"BUSY": entry.BUSY, "GENERATION": entry.GENERATION, "TAGGED": entry.TAGGED, "VERSION": entry.VERSION}
    parts["WAITED"] = slice(entry.WAITED, entry.WAITED + 1)
    names = {name: getattr(entry, name) for name in ("FENCE", "FORMAT", "HEAD", "LEASE", "MAGIC", "SIZE", "TOMBSTONE")}
    for name, part in parts.items():
        names |= {name: part.start, f"{name}_1": part.start + 1, f"{name}_END": part.stop}
    return {**names, "SIZE_1": entry.SIZE + 1, "LAST": entry.SIZE - 1, "BYTE": 256, "AWAKE": 5000}


TEMPLATES: Final[dict[str, str]] = {}
"""The scripts as they are written, by their names."""


def _script(name: str, text: str) -> str:
    TEMPLATES[name] = text
    return Template(text).substitute(_names())


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

CLAIM: Final = _script(
    "CLAIM",
    """
local seen = redis.call('GETRANGE', KEYS[1], 0, $LAST)
local same = ARGV[1] ~= '' and string.sub(seen, 1, $HEAD) == ARGV[1]
if math.floor(string.byte(ARGV[2], 3) / $LEASE) % 2 == 1 then
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
if #seen == $SIZE and string.byte(seen, 1) == $MAGIC and string.byte(seen, 2) == $FORMAT then
  local leased = math.floor(string.byte(seen, 3) / $LEASE) % 2 == 1
  local busy = string.sub(seen, $BUSY_1, $BUSY_END) ~= '\\0\\0\\0\\0'
  if leased or busy then redis.call('SETRANGE', KEYS[1], $WAITED, '\\1') end
end
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}
""",
)
"""Begin to load: put a lease where nothing is, or where what was seen still is; else say what is there, and how long.

Where somebody else loads, it is noted that somebody waits. Bytes that are no lease are the new header of a value, of
which the rest is kept: it stays there for as long as its load may take, since what is gone cannot be replaced; until
when it is served its header says. Arguments: the head that was seen (empty: nothing), the bytes to put, the lease in
milliseconds.
"""

SWAP: Final = _script(
    "SWAP",
    _OLDER
    + """
local seen = redis.call('GETRANGE', KEYS[1], 0, $LAST)
local done = 0
if seen ~= '' and string.sub(seen, 1, $HEAD) == ARGV[1] then
  local mine, theirs = string.sub(ARGV[2], $VERSION_1, $VERSION_END), string.sub(seen, $VERSION_1, $VERSION_END)
  if #mine == 8 and mine ~= none and #seen == $SIZE and older(mine, theirs) then
    local fenced = math.floor(string.byte(seen, 3) / $FENCE) % 2 == 1
    if not fenced then redis.call('SETRANGE', KEYS[1], $BUSY, '\\0\\0\\0\\0') end
  else
    done = 1
    if ARGV[2] == '' then redis.call('DEL', KEYS[1])
    elseif ARGV[3] == '0' then redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
    else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
  end
end
if KEYS[2] and (done == 0 or string.byte(seen, $WAITED_1) == 1) then
  redis.call('XADD', KEYS[2], '*', 'end', '1')
  redis.call('PEXPIRE', KEYS[2], $AWAKE)
end
return done
""",
)
"""End a load or a write: replace or delete what is there, if it is still what was put there, and wake who waits for it.

Who waits is woken also when it was refused. A value goes over none with a higher version: then that one is left as it
is, and is loaded by nobody any more. Arguments: the head that was put there, the bytes to put (empty: delete),
their life in milliseconds (0: rewrite the header alone).
"""

WRITE: Final = _script(
    "WRITE",
    _OLDER
    + """
local seen = redis.call('GETRANGE', KEYS[1], 0, $LAST)
local mine = string.sub(ARGV[2], $VERSION_1, $VERSION_END)
local ours = #seen == $SIZE and string.byte(seen, 1) == $MAGIC and string.byte(seen, 2) == $FORMAT
local flags = ours and string.byte(seen, 3) or 0
local theirs = ours and string.sub(seen, $VERSION_1, $VERSION_END) or none
local function parts()
  local whole = redis.call('GET', KEYS[1])
  local at = $SIZE_1 + string.byte(whole, $TAGGED_1) * $BYTE + string.byte(whole, $TAGGED_END)
  if theirs == none then return whole, string.sub(whole, at), '' end
  local ends = at + 1 + string.byte(whole, at) * $BYTE + string.byte(whole, at + 1)
  return whole, string.sub(whole, at + 2, ends), string.sub(whole, ends + 1)
end
if ARGV[1] ~= '' and string.sub(seen, 1, $HEAD) == ARGV[1] then
  if older(mine, theirs) then
    local _, _, left = parts()
    redis.call('SET', KEYS[1], left, 'PX', ARGV[4])
    return 2
  end
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
if math.floor(flags / $FENCE) % 2 == 1 then
  if not older(theirs, mine) then return 2 end
  local whole, note = parts()
  local size = string.char(math.floor(#note / $BYTE), #note % $BYTE)
  local head = string.sub(whole, 1, $WAITED_1) .. '\\0\\0' .. string.sub(whole, $GENERATION_1, $BUSY_END)
  redis.call('SET', KEYS[1], head .. mine .. size .. note .. ARGV[2], 'PX', redis.call('PTTL', KEYS[1]))
  return 3
end
if theirs ~= none and math.floor(flags / $TOMBSTONE) % 2 == 0 and math.floor(flags / $LEASE) % 2 == 0 then
  if older(mine, theirs) then return 2 end
  redis.call('SET', KEYS[1], ARGV[2], 'PX', math.min(tonumber(ARGV[3]), tonumber(ARGV[4])))
  return 1
end
if ARGV[1] ~= '' then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""",
)
"""End a write by versions; see `resilient.cache._values.Store.write_versioned`.

Arguments: the head of the writer's fence (empty: none), the value, its life and the lease in milliseconds.
"""

REPLACE: Final = _script(
    "REPLACE",
    """
local was = redis.pcall('GET', KEYS[1])
redis.call('DEL', KEYS[1])
redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return type(was) == 'string' and was
""",
)
"""Put a mark on a server that has no room for it, or where something stands that is no text: in the place of what was.

A script whose first write takes no room may go on to write, whatever the server's bound: so a mark stands there as it
does elsewhere, though the server is full. One that refuses it all the same has deleted what was there. Returns that, if
it was text. Arguments: the mark, its life in milliseconds.
"""


def wake_key(key: str, token: int) -> str:
    """The stream that wakes those who wait for the lease with that token.

    Examples:
        >>> wake_key("shop:user:17", 255)
        'shop:wake:{shop:user:17}:ff'
        >>> wake_key("shop:tag:{users}", 255)  # a stamp's key has braces of its own, by which a Cluster finds its slot
        'shop:wake:{users}:ff'
    """
    part = key[key.index("{") :] if "{" in key else f"{{{key}}}"
    return f"{key.partition(':')[0]}:wake:{part}:{token:x}"
