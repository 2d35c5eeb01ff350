"""Object keys: made by the server, unguessable, under their owner's prefix, with a harmless name at the end."""

from __future__ import annotations

import re
import secrets
import unicodedata
from urllib.parse import quote

from resilient.errors import ConfigurationError, InvalidInput

__all__ = ["check_bucket", "check_filename", "check_key", "check_owner", "disposition", "make_key", "sanitise"]

_MAX_KEY = 1024  # bytes, S3's own limit
_MAX_OWNER = 128
_MAX_FILENAME = 255
_MAX_NAME = 100
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")  # names from S3's first years are this wide
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def _hidden(text: str) -> bool:
    """Whether it holds control characters, line separators, or characters that turn the direction of text."""
    return any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def check_bucket(name: str) -> str:
    """The name, if a bucket can have it; also the name of an access point. Raises ConfigurationError."""
    if not _is_text(name) or ".." in name or not (_BUCKET.fullmatch(name) or name.startswith("arn:")):
        raise ConfigurationError(
            "that is no bucket's name", advice="write the name alone, as in Bucket('photos'); an address is endpoint="
        )
    return name


def check_owner(owner: str) -> str:
    """The owner, if it can be one level of a key. Raises InvalidInput."""
    if not _is_text(owner) or not 0 < len(owner) <= _MAX_OWNER:
        raise InvalidInput(f"an owner has 1 to {_MAX_OWNER} characters")
    if "/" in owner or "\\" in owner or owner.startswith(".") or ".." in owner or _hidden(owner):
        raise InvalidInput(
            "an owner may hold no slash, no '..', no control character and no leading dot",
            advice="name the owner by an id",
        )
    if "${" in owner:  # S3 puts the name of the uploaded file in the place of ${filename}, wherever the key holds it
        raise InvalidInput("an owner may hold no '${'", advice="name the owner by an id")
    return owner


def check_filename(name: str) -> str:
    """The file name, if it is a plain one. Raises InvalidInput."""
    if not _is_text(name) or not 0 < len(name) <= _MAX_FILENAME:
        raise InvalidInput(f"a file name has 1 to {_MAX_FILENAME} characters")
    if "/" in name or "\\" in name or ".." in name or name == "." or _hidden(name) or not name.strip():
        raise InvalidInput("a file name may hold no folder, no '..' and no control character")
    return name


def check_key(key: str) -> str:
    """The key, if a link to it means what it says. Raises InvalidInput."""
    if not _is_text(key) or not key or len(key.encode("utf-8", "surrogatepass")) > _MAX_KEY:
        raise InvalidInput(f"a key has 1 to {_MAX_KEY} bytes")
    if any(part in (".", "..") for part in key.split("/")):
        raise InvalidInput("a key may hold no '.' or '..' as a part", advice="clients would shorten its link")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in key):
        raise InvalidInput("a key may hold no control character")
    return key


def sanitise(filename: str) -> str:
    """A file name made harmless: ASCII letters, digits, dot, dash and underscore, at most 100 of them.

    Examples:
        >>> sanitise("Übung 1 (final).JPG")
        'Ubung_1_final_.JPG'
        >>> sanitise("日本")
        'file'
    """
    plain = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode("ascii")
    name = _UNSAFE.sub("_", plain).lstrip("._-")
    stem, dot, ending = name.rpartition(".")
    if dot and len(ending) <= 10:
        return f"{stem[: _MAX_NAME - 1 - len(ending)]}.{ending}"
    return name[:_MAX_NAME] or "file"


def make_key(prefix: str, owner: str, filename: str) -> str:
    """A new key: the prefix with its owner, 128 random bits, the sanitised name."""
    random = secrets.token_hex(16)
    key = f"{prefix.replace('{owner}', check_owner(owner))}{random}/{sanitise(check_filename(filename))}"
    return check_key(key)


def disposition(filename: str, *, inline: bool) -> str:
    r"""A Content-Disposition header that no file name can break out of.

    Examples:
        >>> disposition('a"b.jpg', inline=False)
        'attachment; filename="a_b.jpg"; filename*=UTF-8\'\'a%22b.jpg'
    """
    check_filename(filename)
    kind = "inline" if inline else "attachment"
    return f"{kind}; filename=\"{sanitise(filename)}\"; filename*=UTF-8''{quote(filename, safe='')}"
