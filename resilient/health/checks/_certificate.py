"""When a certificate ends."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Final

from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError, InvalidInput
from resilient.health._core import Check, Result, Scope
from resilient.policy import deadline

__all__ = ["certificate"]

_LIMIT = 0.5  # seconds for one wait; the check's own deadline may be nearer
_DAY = 86_400.0
_MAX_FILE = 1_048_576


def certificate(
    target: str | PathLike[str], *, warn_days: float = 14, server_name: str | None = None, clock: Clock = SYSTEM
) -> Check:
    """A certificate has begun and has not ended. It warns some days before its end (``expiring``).

    Whether anybody trusts it is not looked at. A handshake costs a few milliseconds on both sides, so give such a check
    a ``ttl`` of a minute or more.

    Args:
        target: ``host:port`` of a TLS server, which is asked for it, or a `pathlib.Path` of a PEM file, whose first
            certificate counts.
        warn_days: Days before its end from which it warns.
        server_name: The name to ask the server for, where it is not the host.
        clock: Where the time comes from.

    Raises:
        ConfigurationError: The target is neither.

    Examples:
        >>> certificate("shop.example:443").scope
        'shared'
    """
    scope: Scope = "shared"
    if isinstance(target, str):
        host, colon, port = target.rpartition(":")
        if not (colon and host and port.isdecimal()):
            raise ConfigurationError(f"{target!r} is no place", advice="write host:port, or give a Path of a PEM file")
        place = (host.strip("[]"), int(port))

        def fetch() -> bytes:
            return _served(place, server_name or place[0])
    else:
        path, scope = Path(target), "local"

        def fetch() -> bytes:
            return _first(path)

    def look() -> Result:
        begins, ends = validity(fetch())
        now = clock.wall()
        days = round((ends - now) / _DAY, 2)
        if now > ends:
            return Result.fail("expired", days=days)
        if now < begins:
            return Result.fail("not_yet_valid", days=days)
        return Result.warn("expiring", days=days) if days < warn_days else Result.ok(days=days)

    return Check(look, "component", scope, dependency=scope == "shared")


def _served(place: tuple[str, int], name: str) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # one that has ended shall be read too; nothing is said to this server
    with (
        socket.create_connection(place, timeout=deadline.bound(_LIMIT)) as plain,
        context.wrap_socket(plain, server_hostname=name) as link,
    ):
        found = link.getpeercert(binary_form=True)
    if found is None:
        raise InvalidInput("the server showed no certificate")
    return found


def _first(path: Path) -> bytes:
    with path.open() as file:
        text = file.read(_MAX_FILE)
    begin, end = text.find("-----BEGIN CERTIFICATE-----"), text.find("-----END CERTIFICATE-----")
    if begin < 0 or end < begin:
        raise InvalidInput("the file holds no certificate")
    return ssl.PEM_cert_to_DER_cert(text[begin : end + len("-----END CERTIFICATE-----")])


# --------------------------------------------------------------------------------------------------- reading the form

_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17


def validity(der: bytes) -> tuple[float, float]:
    """When a certificate begins and ends, in seconds since 1970. Raises InvalidInput for what is no certificate.

    The standard library tells this only of certificates it has verified, and the one that has ended is of interest.
    """
    try:
        inner = _parts(_parts(_parts(der)[0][1])[0][1])
        if inner[0][0] == _VERSION:
            inner = inner[1:]
        _serial, _algorithm, _issuer, (tag, content), *_ = inner
        if tag != _SEQUENCE:
            raise InvalidInput("this is no certificate")
        begins, ends = (_moment(*each) for each in _parts(content))
    except (IndexError, ValueError) as error:
        raise InvalidInput("this is no certificate") from error
    return begins, ends


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """The elements that stand one after another: the tag and the content of each."""
    parts, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length >= 0x80:  # the length of the length
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size]), at + size
        if at + length > len(der):
            raise InvalidInput("this is no certificate")
        parts.append((tag, der[at : at + length]))
        at += length
    return parts


def _moment(tag: int, content: bytes) -> float:
    text = content.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:  # two digits of the year: 50 to 99 are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
