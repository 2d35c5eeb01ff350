"""What S3 decides about an upload form, decided here: a pure function over a policy document and a form."""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resilient.errors import InvalidInput

__all__ = ["Refusal", "evaluate"]

# S3 does not ask for conditions on these; `x-ignore-...` fields are free as well.
_FREE = frozenset({"x-amz-signature", "policy", "file", "awsaccesskeyid", "signature", "bucket"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a form is refused.

    Args:
        code: The error code of S3, such as ``EntityTooLarge``.
        reason: The same in words.
    """

    code: str
    reason: str

    @property
    def status(self) -> int:
        """The HTTP status that S3 answers with."""
        return 403 if self.code == "AccessDenied" else 400


def evaluate(
    document: Mapping[str, Any], fields: Mapping[str, str], *, bucket: str, size: int, now: float
) -> Refusal | None:
    """Decide about an upload form as S3 does, apart from its signature.

    Args:
        document: The decoded policy document: ``expiration`` and ``conditions``.
        fields: The form's fields without the file.
        bucket: The bucket the form is posted to.
        size: The file's size in bytes.
        now: Seconds since 1970-01-01 UTC.

    Returns:
        ``None`` if S3 would take it, else why not.

    Raises:
        InvalidInput: The document is no policy.

    Examples:
        >>> document = {"expiration": "2030-01-01T00:00:00Z", "conditions": [["content-length-range", 1, 10]]}
        >>> evaluate(document, {}, bucket="b", size=11, now=0.0).code
        'EntityTooLarge'
    """
    if now >= _moment(document.get("expiration")):
        return Refusal("AccessDenied", "the form has expired")
    conditions = document.get("conditions")
    if not isinstance(conditions, Sequence) or isinstance(conditions, str):
        raise InvalidInput("a policy document needs a list of conditions")
    given = {name.lower(): value for name, value in fields.items()} | {"bucket": bucket}
    covered: set[str] = set()
    for condition in conditions:
        refusal = _check(condition, given, covered, size)
        if refusal is not None:
            return refusal
    for name in given:
        if name not in covered and name not in _FREE and not name.startswith("x-ignore-"):
            return Refusal("AccessDenied", f"the form has the field {name}, which its policy does not name")
    return None


def _check(condition: Any, given: Mapping[str, str], covered: set[str], size: int) -> Refusal | None:
    if isinstance(condition, Mapping) and len(condition) == 1:
        name, wanted = next(iter(condition.items()))
        return _match("eq", str(name).lower(), wanted, given, covered)
    if not isinstance(condition, Sequence) or isinstance(condition, str) or len(condition) != 3:
        raise InvalidInput("a condition of a policy document is malformed")
    verb, first, second = condition
    if str(verb).lower() == "content-length-range":
        if size < int(first):
            return Refusal("EntityTooSmall", f"the file has {size} bytes, at least {first} are asked for")
        if size > int(second):
            return Refusal("EntityTooLarge", f"the file has {size} bytes, at most {second} are allowed")
        return None
    if str(verb).lower() not in ("eq", "starts-with") or not str(first).startswith("$"):
        raise InvalidInput("a condition of a policy document is malformed")
    return _match(str(verb).lower(), str(first)[1:].lower(), second, given, covered)


def _match(verb: str, name: str, wanted: Any, given: Mapping[str, str], covered: set[str]) -> Refusal | None:
    covered.add(name)
    value = given.get(name)
    if value is None:
        return Refusal("AccessDenied", f"the form lacks the field {name}")
    good = value == wanted if verb == "eq" else value.startswith(str(wanted))
    return None if good else Refusal("AccessDenied", f"the field {name} is not what the policy asks for")


def _moment(text: Any) -> float:
    """Seconds since 1970 of ``2030-01-01T00:00:00Z``, with or without milliseconds."""
    if not isinstance(text, str):
        raise InvalidInput("a policy document needs an expiration")
    plain, _, fraction = text.removesuffix("Z").partition(".")
    try:
        return calendar.timegm(time.strptime(plain, "%Y-%m-%dT%H:%M:%S")) + (
            float(f"0.{fraction}") if fraction else 0.0
        )
    except ValueError:
        raise InvalidInput("the expiration of a policy document is no UTC time") from None
