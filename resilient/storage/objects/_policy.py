"""What may be uploaded."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resilient.errors import ConfigurationError, InvalidInput

__all__ = ["LONGEST_EXPIRY", "UploadPolicy", "check_expiry"]

LONGEST_EXPIRY = 604_800
"""Seconds: signature version 4 allows no link or form to live longer than seven days."""

_LARGEST_POST = 5 * 1024**3  # bytes: S3 takes no larger object in one request
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")


def check_expiry(seconds: float) -> int:
    """Whole seconds within what S3 allows. Raises InvalidInput."""
    given: object = seconds
    if isinstance(given, bool) or not isinstance(given, int | float) or not 1 <= given <= LONGEST_EXPIRY:
        raise InvalidInput(f"expires is 1 to {LONGEST_EXPIRY} seconds")
    return int(given)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPolicy:
    """What may be uploaded, by whom, and for how long the form is good.

    S3 itself enforces all of it: the form is signed with these limits.

    Args:
        prefix: Where the objects go; ``{owner}`` stands for the owner. Ends with ``/``.
        max_bytes: The largest size, in bytes.
        content_types: The content types allowed, each exactly. A form is good for one of them.
        min_bytes: The smallest size, in bytes.
        expires: Seconds for which the form can be used.

    Raises:
        ConfigurationError: A limit makes no sense.

    Examples:
        >>> policy = UploadPolicy(prefix="users/{owner}/", max_bytes=10_485_760, content_types=["image/jpeg"])
        >>> policy.type_for("a.jpg")
        'image/jpeg'
    """

    prefix: str
    max_bytes: int
    content_types: Sequence[str]
    min_bytes: int = 1
    expires: int = 300

    def __post_init__(self) -> None:
        object.__setattr__(self, "content_types", _types(self.content_types))
        parts = self.prefix.split("/")
        if not self.prefix.endswith("/") or self.prefix.startswith("/") or any(p in (".", "..") for p in parts):
            raise ConfigurationError("a prefix is relative, ends with '/' and holds no '..'")
        if re.search(r"[{}]", self.prefix.replace("{owner}", "")):
            raise ConfigurationError("{owner} is the only placeholder of a prefix")
        given: tuple[object, ...] = (self.min_bytes, self.max_bytes)
        if any(isinstance(each, bool) or not isinstance(each, int) for each in given):
            raise ConfigurationError("sizes are numbers of bytes", advice="write max_bytes=10_000_000 for 10 MB")
        if not 0 <= self.min_bytes <= self.max_bytes <= _LARGEST_POST:
            raise ConfigurationError("sizes need 0 <= min_bytes <= max_bytes <= 5 GiB")
        try:
            check_expiry(self.expires)
        except InvalidInput as error:
            raise ConfigurationError(error.message) from None

    def type_for(self, filename: str, declared: str | None = None) -> str:
        """The content type a form for this file is signed with.

        Args:
            filename: Its ending tells the type where several are allowed.
            declared: The type the client wants.

        Raises:
            InvalidInput: That type is not allowed, or it cannot be told.
        """
        if declared is not None:
            if declared.lower() not in self.content_types:
                raise InvalidInput("this content type is not allowed", advice=f"allowed: {self._allowed}")
            return declared.lower()
        if len(self.content_types) == 1:
            return self.content_types[0]
        guessed = mimetypes.guess_type(filename)[0]
        if guessed is None or guessed not in self.content_types:
            raise InvalidInput(
                "the content type cannot be told from the file name",
                advice=f"pass content_type=, one of: {self._allowed}",
            )
        return guessed

    @property
    def _allowed(self) -> str:
        return ", ".join(self.content_types)

    def conditions(self, content_type: str) -> tuple[dict[str, str], list[Any]]:
        """The fields of a form and the conditions it is signed with, apart from bucket and key."""
        fields = {"Content-Type": content_type, "success_action_status": "201"}
        limits = ["content-length-range", self.min_bytes, self.max_bytes]
        return fields, [*({name: value} for name, value in fields.items()), limits]


def _types(given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str) or not given:
        raise ConfigurationError("content_types is a list with at least one type", advice='as in ["image/jpeg"]')
    types = tuple(each.lower() for each in given)
    for each in types:
        if not _TYPE.fullmatch(each):
            raise ConfigurationError("a content type is written exactly, as in image/jpeg; no patterns")
    return types
