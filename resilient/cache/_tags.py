"""The tags that an entry bears, with their stamps, as bytes between its header and its body. Pure: no clock, no I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from resilient.cache._entry import MOST_TAGS, Unreadable
from resilient.errors import InvalidInput

__all__ = ["pack_tags", "unpack_tags"]


def pack_tags(tags: Iterable[tuple[str, int]]) -> bytes:
    """Tags with their stamps, as an entry keeps them.

    Raises:
        InvalidInput: They are more than an entry can bear.

    Examples:
        >>> unpack_tags(pack_tags([("price-list", 7)]))
        [('price-list', 7)]
    """
    parts = []
    for name, stamp in tags:
        text = name.encode()
        parts += [struct.pack(">H", len(text)), text, struct.pack(">Q", stamp)]
    block = b"".join(parts)
    if len(block) > MOST_TAGS:
        raise InvalidInput(
            f"an entry cannot bear {len(parts) // 3} tags",
            advice="give it a tag that several share: all of a table, say, or all of a customer",
        )
    return block


def unpack_tags(block: bytes) -> list[tuple[str, int]]:
    """Read what `pack_tags` wrote.

    Raises:
        Unreadable: These are not such bytes.
    """
    tags: list[tuple[str, int]] = []
    at = 0
    try:
        while at < len(block):
            (length,) = struct.unpack_from(">H", block, at)
            end = at + 2 + length
            (stamp,) = struct.unpack_from(">Q", block, end)
            tags.append((block[at + 2 : end].decode(), stamp))
            at = end + 8
    except (struct.error, UnicodeDecodeError) as error:
        raise Unreadable("bad tags") from error
    return tags
