"""Tags and the namespace: random stamps, compared for equality.

Every tag has a stamp of its own under a key of its own, and so has the namespace. An entry bears the stamps that were
there before its load began; it is worth something while they are still there. To invalidate a tag is to put another
stamp: one key, however many entries bear it. A stamp that is absent, evicted for example, makes its entries a miss.

A stamp is a marker of `resilient.cache._entry`: a *tombstone* whose token is the stamp, and whose body is what
the writer has seen. So a tombstone that is put there after an outage is a new stamp too. A *fence* says that a writer
is about to commit: nothing that bears the tag is served or stored meanwhile. A stamp that lives for one lease only is
*short*: another writer may be at work, and if it dies nobody but time tells of what it wrote.

The pure part: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping

from resilient.cache._causal import merged
from resilient.cache._entry import (
    FORMAT,
    GENERATION,
    HEADER,
    MAGIC,
    SIZE,
    TAGGED,
    TOKEN,
    TOMBSTONE,
    Entry,
    Unreadable,
    bearing,
    marker,
    noted_in,
    pack,
    pack_bearing,
    unpack,
)
from resilient.cache._tags import pack_tags, unpack_tags

__all__ = [
    "LIFE",
    "UNKNOWN",
    "Stamps",
    "extended",
    "invalidated",
    "is_ours",
    "is_unsure",
    "life_for",
    "namespace_key",
    "number",
    "planted",
    "recent_note",
    "tag_key",
    "tags_of",
    "unknown",
]

_DAY = 86_400.0
LIFE = 30 * _DAY
"""Seconds that a stamp lives at least, unless it is short."""
_OURS = bytes([MAGIC, FORMAT])
"""How an entry begins."""
_STAMP = bytes([MAGIC, FORMAT, TOMBSTONE])
"""How a stamp begins."""
_NOTED = 3600.0  # seconds; whatever copies a database has are past what a writer had seen so long ago


def namespace_key(namespace: str) -> str:
    """Where the namespace's stamp stands. No key of a user has braces.

    Examples:
        >>> namespace_key("shop")
        'shop:all:{shop}'
    """
    return f"{namespace}:all:{{{namespace}}}"


def tag_key(namespace: str, tag: str) -> str:
    """Where the stamp of a tag stands, which is as `resilient.cache._keys.tag_name` gives it.

    Examples:
        >>> tag_key("shop", "user:17")
        'shop:tag:{user:17}'
    """
    return f"{namespace}:tag:{{{tag}}}"


def is_ours(key: str) -> bool:
    """Whether a key of the store holds no value: a stamp, or a stream by which processes wake each other."""
    return "{" in key


def number(raw: bytes | None) -> int:
    """The stamp that these bytes are; 0 where they are none, or a fence, so that nothing can bear it."""
    if raw is None or raw[:3] != _STAMP or len(raw) < SIZE:
        return 0
    return int.from_bytes(raw[TOKEN], "big")


def planted(now: float, life: float, note: bytes = b"") -> bytes:
    """A new stamp.

    Args:
        now: What the wall clock shows.
        life: Seconds it lives.
        note: What the writer has seen that changes it.
    """
    return marker(TOMBSTONE, now, life, note)


def _times(raw: bytes) -> tuple[float, float]:
    """When a marker was made, and how many seconds it lives."""
    header = HEADER.unpack_from(raw)
    return header[6], header[8]


def is_unsure(raw: bytes | None) -> bool:
    """Whether another writer may be at work on what these bytes stand for: a fence, or a short stamp."""
    if raw is None or len(raw) < SIZE:
        return False
    return not number(raw) or _times(raw)[1] < LIFE / 2


def life_for(keep: float) -> float:
    """Seconds that a stamp lives which is borne by entries that are kept for so long."""
    return max(LIFE, 2 * keep)


def extended(raw: bytes | None, now: float, keep: float) -> bytes | None:
    """The same stamp with a longer life; ``None`` where its life is long enough, or it is none.

    A short one is never extended.

    Args:
        raw: The stamp's bytes.
        now: What the wall clock shows.
        keep: Seconds that entries are kept which bear it.
    """
    if raw is None or not number(raw) or is_unsure(raw):
        return None
    created, life = _times(raw)
    wanted = life_for(keep)
    if now - created < life / 2 and life >= wanted * 0.99:
        return None
    return pack(Entry(b"", 0, 0, TOMBSTONE, number(raw), now, 0.0, wanted, 0.0))


def recent_note(raw: bytes | None, now: float) -> bytes:
    """What the writer had seen who put this stamp, or this fence, unless that is long ago."""
    if raw is None or len(raw) <= SIZE:
        return b""
    return noted_in(raw) if now - _times(raw)[0] < _NOTED else b""


def invalidated(now: float, lease: float, note: bytes = b"") -> Entry:
    """What an entry counts as whose stamps have moved: as if a tombstone were there."""
    return Entry(note, 0, 0, TOMBSTONE, 0, now, 0.0, lease, 0.0)


def tags_of(entry: Entry) -> tuple[str, ...]:
    """The names of an entry's tags.

    Raises:
        Unreadable: They cannot be read.
    """
    return tuple(name for name, _ in unpack_tags(entry.tags)) if entry.tags else ()


class Stamps:
    """The stamps of the namespace and of some tags, as they stood at one moment; nobody changes them.

    What is asked of them again and again is found out once, since those of a namespace hardly ever change.

    Args:
        names: The tags.
        raws: The bytes under the namespace's key, then under each tag's; nothing where the store did not answer.
    """

    __slots__ = ("_block", "_borne", "_tokens", "generation", "names", "numbers", "raws", "whole")

    def __init__(self, names: tuple[str, ...] = (), raws: tuple[bytes | None, ...] = ()) -> None:
        self.names = names
        self.raws = raws
        self.numbers = tuple([number(raw) for raw in raws])
        """The stamps; 0 where there is none."""
        self.generation = self.numbers[0] if raws else 0
        """The namespace's."""
        self.whole = bool(raws) and 0 not in self.numbers
        """Whether every stamp is there, so that what is loaded now may be stored."""
        self._block: bytes | None = None if names else b""
        self._borne: tuple[bytes, bytes] | None = None
        self._tokens: tuple[bytes | None, ...] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stamps) and (self.names, self.raws) == (other.names, other.raws)

    def __hash__(self) -> int:
        return hash((self.names, self.raws))

    def __repr__(self) -> str:
        return f"Stamps({self.names!r}, {self.raws!r})"

    def note(self, now: float) -> bytes:
        """What the writers had seen who put these stamps: a load that begins now reads no older database."""
        for raw in self.raws:
            if raw is not None and len(raw) > SIZE:
                return merged(*[recent_note(each, now) for each in self.raws])
        return b""

    @property
    def tokens(self) -> tuple[bytes | None, ...]:
        """What tells these stamps, and fences, from any others: whoever finds the same may share a load."""
        if self._tokens is None:
            self._tokens = tuple([None if raw is None else raw[TOKEN] for raw in self.raws])
        return self._tokens

    def block(self) -> bytes:
        """The tags as an entry bears them."""
        block = self._block
        if block is None:
            block = self._block = pack_tags(zip(self.names, self.numbers[1:], strict=True))
        return block

    def borne(self) -> tuple[bytes, bytes]:
        """The same, after what stands in the header of an entry that bears these stamps.

        Nothing where one is not there, so that nothing can bear it.
        """
        if self._borne is None:
            block = self.block() if self.whole else b""
            self._borne = (bearing(self.generation, block), block) if self.whole else (b"", b"")
        return self._borne

    def pack(self, entry: Entry) -> bytes:
        """The bytes of what was loaded while these stood, with them."""
        return pack_bearing(entry, self.generation, self.block()) if self.whole else pack(entry)

    def on(self, entry: Entry) -> Entry:
        """An entry with these stamps; without a generation, so that nobody reads it, where one of its tags has none."""
        if not entry.tags and not self.names:
            return entry._replace(generation=self.generation)
        names = tags_of(entry)
        if names == self.names:
            return entry._replace(generation=self.generation, tags=self.block()) if self.whole else _bare(entry)
        known = self._known()
        numbers = [known.get(name, 0) for name in names]
        if not self.generation or not all(numbers):
            return _bare(entry)
        return entry._replace(generation=self.generation, tags=pack_tags(zip(names, numbers, strict=True)))

    def _known(self) -> dict[str, int]:
        return dict(zip(self.names, self.numbers[1:], strict=False))

    def changed(self, places: Mapping[int, bytes | None]) -> Stamps:
        """The same with other bytes at some places: 0 is the namespace's, 1 that of the first tag."""
        return Stamps(self.names, tuple([places.get(at, raw) for at, raw in enumerate(self.raws)]))

    def lacking(self, raw: bytes | None) -> tuple[str, ...]:
        """The tags of an entry, if it can be read, that are not among these."""
        if raw is None or len(raw) < SIZE or raw[0] != MAGIC or raw[TAGGED] == b"\0\0":
            return ()
        try:
            names = tags_of(unpack(raw))
        except Unreadable:
            return ()
        return tuple(name for name in names if name not in self.names)

    def borne_by(self, raw: bytes | None) -> bool:
        """Whether the bytes of an entry, if it bears stamps at all, bear these and no others."""
        if raw is None or len(raw) < SIZE or raw[:2] != _OURS:
            return True
        generation = int.from_bytes(raw[GENERATION], "big")
        if not generation:
            return True
        block = raw[SIZE : SIZE + int.from_bytes(raw[TAGGED], "big")]
        return generation == self.generation and block == self.block()

    def stand(self, entry: Entry, more: Mapping[str, bytes | None] | None = None) -> bool:
        """Whether an entry still bears the stamps that are there; and every tag that its reader asks for.

        A value that was stored without a tag of its reader's could outlive an invalidation of that tag.

        Args:
            entry: The entry.
            more: The bytes of stamps that are not among these, by tag.

        Raises:
            Unreadable: Its tags cannot be read.
        """
        if not entry.generation or entry.generation != self.generation:
            return False
        if not entry.tags:
            return not self.names
        known = self._known()
        if more:
            known = {**{name: number(raw) for name, raw in more.items()}, **known}
        borne = dict(unpack_tags(entry.tags))
        return all(stamp and known.get(name) == stamp for name, stamp in borne.items()) and all(
            name in borne for name in self.names
        )


UNKNOWN = Stamps()
"""The store was not asked, or did not answer."""


def unknown(tags: tuple[str, ...]) -> Stamps:
    """The same, for who asks for these tags."""
    return Stamps(tags) if tags else UNKNOWN


def _bare(entry: Entry) -> Entry:
    return entry._replace(generation=0)
