"""Sealed tokens: what the server decided about an upload, in the client's hands and out of its reach."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

import msgspec

from resilient.errors import ConfigurationError, Refused

__all__ = ["Grant", "Sealer"]

_MAX_TOKEN = 4096


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """What a token says.

    Args:
        purpose: What it may be used for; a token of one purpose is refused for another.
        bucket: The bucket of the object.
        owner: Whose upload it is.
        key: The object's key.
        min_bytes: The smallest size allowed.
        max_bytes: The largest size allowed.
        content_type: The only content type allowed.
        expires: Seconds since 1970-01-01 UTC after which the token is refused.
    """

    purpose: str
    bucket: str
    owner: str
    key: str
    min_bytes: int
    max_bytes: int
    content_type: str
    expires: int


class Sealer:
    """Seals grants with the first secret and accepts those sealed with any of them.

    Args:
        secrets: The newest first. To change one, put the new one in front and drop the old one when its last token
            has expired.

    Examples:
        >>> grant = Grant("upload", "photos", "alice", "users/alice/1/a.jpg", 1, 10, "image/jpeg", 2_000_000_000)
        >>> token = Sealer(["old secret"]).seal(grant)
        >>> Sealer(["new secret", "old secret"]).open(token, purpose="upload", now=0.0) == grant
        True
    """

    def __init__(self, secrets: Sequence[str | bytes]) -> None:
        if isinstance(secrets, str | bytes):
            raise ConfigurationError("secrets= takes a list of secrets", advice="write secrets=[secret]")
        raw = [secret.encode() if isinstance(secret, str) else bytes(secret) for secret in secrets]
        if not all(raw):
            raise ConfigurationError("a secret is empty", advice="use 32 random bytes")
        # A key derived for this one use: the same secret may sign other things elsewhere.
        self._keys = [hmac.digest(secret, b"resilient.storage.objects/1", "sha256") for secret in raw]

    def seal(self, grant: Grant) -> str:
        """The token of a grant: URL-safe ASCII."""
        if not self._keys:
            raise ConfigurationError("the bucket has no secret to seal a token with", advice="pass secrets=[...]")
        body = msgspec.json.encode(grant)
        return f"{_encode(body)}.{_encode(_mac(self._keys[0], body))}"

    def open(self, token: str, *, purpose: str, now: float) -> Grant:
        """The grant of a token.

        Raises:
            Refused: It was not sealed here, is for another purpose, or has expired.
        """
        if not self._keys:
            raise ConfigurationError("the bucket has no secret to open a token with", advice="pass secrets=[...]")
        given: object = token
        if not isinstance(given, str) or len(given) > _MAX_TOKEN:
            raise Refused("the upload token is malformed")
        text, _, mac = given.partition(".")
        try:
            body, seal = _decode(text), _decode(mac)
        except (ValueError, binascii.Error):
            raise Refused("the upload token is malformed") from None
        # Every key is compared, so that the time taken does not tell which one fitted.
        fits = [hmac.compare_digest(_mac(key, body), seal) for key in self._keys]
        if not any(fits):
            raise Refused("the upload token was not issued here, or was changed")
        try:
            grant = msgspec.json.decode(body, type=Grant)
        except msgspec.DecodeError:
            raise Refused("the upload token is of another version", advice="ask for a new upload") from None
        if grant.purpose != purpose:
            raise Refused("the token is for another purpose")
        if now >= grant.expires:
            raise Refused("the upload token has expired", advice="ask for a new upload")
        return grant


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    if _encode(raw) != text:
        raise ValueError(text)  # one grant has one token: no second spelling of it is accepted
    return raw
