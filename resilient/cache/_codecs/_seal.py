"""Bytes that tell whether they are as they were written: by a checksum, or by a signature where there is a secret."""

from __future__ import annotations

import hmac
import zlib
from collections.abc import Sequence
from typing import Any

from resilient.cache._entry import Unreadable
from resilient.errors import ConfigurationError

__all__ = ["ENTRY", "Seal", "keys_of"]

_SUM = 4
_MAC = 32
_SHORTEST = 16  # bytes of a secret
ENTRY = "resilient.cache entry 1"
"""What a cache signs."""


def keys_of(secret: str | bytes | Sequence[str | bytes] | None, purpose: str = ENTRY) -> tuple[bytes, ...]:
    """The keys made of a secret, or of several: the first signs, all of them verify.

    Args:
        secret: The secret, or several.
        purpose: What is signed: a secret that signs other things too gives other keys for them.

    Raises:
        ConfigurationError: A secret is shorter than 16 bytes, or no text or bytes.
    """
    if secret is None:
        return ()
    several = isinstance(secret, list | tuple)
    given: list[Any] = list(secret) if several else [secret]
    raw = [each.encode() if isinstance(each, str) else each for each in given]
    if not raw or not all(isinstance(each, bytes) and len(each) >= _SHORTEST for each in raw):
        raise ConfigurationError(
            f"a secret, such as a SECRET_KEY, has at least {_SHORTEST} bytes; several are a list, the newest first",
            advice="make one with: python -c 'import secrets; print(secrets.token_hex(32))'",
        )
    return tuple(hmac.digest(each, purpose.encode(), "sha256") for each in raw)


class Seal:
    """Puts a checksum or a signature before bytes, and takes it off again.

    Both cover the codec's number too, so that bytes written by one codec are never read by another.

    Args:
        keys: Keys of signatures; without any a checksum is used, which finds damage but no forgery.

    Examples:
        >>> seal = Seal()
        >>> seal.open(5, seal.close(5, b"[1]"))
        b'[1]'
    """

    __slots__ = ("keys",)

    def __init__(self, keys: tuple[bytes, ...] = ()) -> None:
        self.keys = keys

    def close(self, number: int, payload: bytes) -> bytes:
        """The bytes with their seal."""
        if not self.keys:
            return zlib.crc32(payload, number).to_bytes(_SUM, "big") + payload
        return hmac.digest(self.keys[0], bytes((number,)) + payload, "sha256") + payload

    def open(self, number: int, body: bytes) -> bytes:
        """The bytes without their seal.

        Raises:
            Unreadable: The seal is broken, or was made with another secret.
        """
        if not self.keys:
            payload = body[_SUM:]
            if zlib.crc32(payload, number) != int.from_bytes(body[:_SUM], "big"):
                raise Unreadable("bad checksum")
            return payload
        payload = body[_MAC:]
        signed = bytes((number & 255,)) + payload
        good = [hmac.compare_digest(hmac.digest(key, signed, "sha256"), body[:_MAC]) for key in self.keys]
        if not any(good):
            raise Unreadable("bad signature")
        return payload
