"""The numbers by which entries name the codec that wrote them. They are stable: a number never gets another meaning."""

from __future__ import annotations

__all__ = ["ABSENCE", "EXACT", "JSON", "OWN", "PICKLE", "SIGNED", "TAGGED", "TYPED", "ZLIB", "ZSTD", "describe"]

TYPED = 1  # msgpack, read as one known type
TAGGED = 2  # msgpack, with marks for what it would flatten; needs no type
ABSENCE = 3  # a message: there is no such thing
EXACT = 4  # as TAGGED, with objects of classes that the reader must know
JSON = 5
PICKLE = 6
OWN = 31  # a codec of the user's

SIGNED = 32
ZLIB = 64
ZSTD = 128

_NAMES = {
    TYPED: "typed",
    TAGGED: "tagged",
    ABSENCE: "absence",
    EXACT: "exact",
    JSON: "json",
    PICKLE: "pickle",
    OWN: "own",
}


def describe(number: int) -> str:
    """A number in words.

    Examples:
        >>> describe(TAGGED), describe(JSON | SIGNED | ZSTD), describe(9)
        ('tagged', 'json, signed, zstd', 'unknown')
    """
    words = [_NAMES.get(number & 31, "unknown")]
    words += [word for bit, word in ((SIGNED, "signed"), (ZLIB, "zlib"), (ZSTD, "zstd")) if number & bit]
    return ", ".join(words)
