"""Compression of long bodies, and decompression that cannot be made to fill the memory."""

from __future__ import annotations

import threading
import zlib
from typing import Any

from resilient.cache._codecs._numbers import ZLIB, ZSTD
from resilient.cache._entry import Unreadable
from resilient.errors import ConfigurationError, needs_extra

__all__ = ["METHODS", "check_method", "grow", "shrink"]

METHODS = {"zlib": ZLIB, "zstd": ZSTD}

_LONGEST = 64 * 1024 * 1024  # bytes; a longer body is stored as it is
_STEEPEST = 1000  # a body that shrinks further than by this factor is stored as it is, and taken for a bomb when read
_WORTH = 0.9  # of the length; a body that shrinks by less is stored as it is
_LEVEL = {ZLIB: 3, ZSTD: 3}

_local = threading.local()  # zstd's contexts cost microseconds to make, and serve one thread at a time


def check_method(method: str | None) -> int:
    """The bit of a method; 0 for none.

    Raises:
        ConfigurationError: There is no such method.
        MissingExtra: It needs a library that is not installed.
    """
    if method is None:
        return 0
    if method not in METHODS:
        raise ConfigurationError(f"compress is one of {', '.join(METHODS)} or None, not {method!r}")
    if method == "zstd":
        with needs_extra("zstd"):
            import zstandard  # noqa: F401 - only whether it is there
    return METHODS[method]


def shrink(payload: bytes, method: int) -> tuple[int, bytes]:
    """The bytes, compressed where that is worth it, and the bit that tells so."""
    if not method or len(payload) > _LONGEST:
        return 0, payload
    small = zlib.compress(payload, _LEVEL[ZLIB]) if method == ZLIB else _compressor().compress(payload)
    if len(small) > len(payload) * _WORTH or len(payload) > len(small) * _STEEPEST:
        return 0, payload
    return method, small


def grow(payload: bytes, method: int) -> bytes:
    """The bytes decompressed.

    Raises:
        Unreadable: They are no compressed bytes, or would become more than 64 MiB or a thousand times their length.
    """
    limit = min(_LONGEST, len(payload) * _STEEPEST)
    try:
        if method == ZLIB:
            whole = _inflate(payload, limit)
        elif method == ZSTD:
            whole = _unzstd(payload, limit)
        else:
            raise Unreadable("other codec")
    except ImportError as error:
        raise Unreadable("no zstandard here") from error
    except Exception as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable("bad bytes") from error  # zlib's and zstandard's errors have no common class
    return whole


def _inflate(payload: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj()
    whole = stream.decompress(payload, limit)
    if not stream.eof or stream.unused_data:
        raise Unreadable("too long")
    return whole


def _unzstd(payload: bytes, limit: int) -> bytes:
    import zstandard

    # The frame tells its length, and is believed only within the limit: that much memory is taken at once.
    length = zstandard.frame_content_size(payload)
    if not 0 <= length <= limit:
        raise Unreadable("too long")
    whole: bytes = _decompressor().decompress(payload, max_output_size=limit)
    return whole


def _compressor() -> Any:
    import zstandard

    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=_LEVEL[ZSTD])
    return _local.compressor


def _decompressor() -> Any:
    import zstandard

    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor(max_window_size=_LONGEST)
    return _local.decompressor
