"""A message as a handler sees it, and the three things a handler may raise to decide its fate."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from resilient.errors import ConfigurationError, InvalidInput, ResilientError
from resilient.queue._limits import LONGEST_VISIBILITY

__all__ = ["ID_ATTRIBUTE", "TOKEN_ATTRIBUTE", "Backoff", "Message", "Redeliver", "Reject", "Release"]

ID_ATTRIBUTE = "resilient-id"
"""The message attribute that names a message through all its copies: a send that was repeated, a relay, a redrive."""
TOKEN_ATTRIBUTE = "resilient-token"  # noqa: S105 - the name of an attribute
"""The message attribute that carries what its producer had written, so that the handler reads no older copy."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was received.

    Args:
        id: The id SQS gave it.
        body: Its text.
        attributes: Its attributes, apart from the library's own.
        receive_count: How often it was received, this time included.
        sent_at: Seconds since 1970-01-01 UTC.
        queue: The name of its queue.
        key: What names it through all its copies: the record of work is kept under it.
        token: What its producer had written; the handler runs in a scope with it.
        receipt: The right to delete this copy of it.

    Examples:
        >>> Message(id="1", body='{"order": 1}').json()
        {'order': 1}
    """

    id: str
    body: str
    attributes: Mapping[str, str | bytes] = field(default_factory=dict)
    receive_count: int = 1
    sent_at: float | None = None
    queue: str = ""
    key: str = ""
    token: str = field(default="", repr=False)
    receipt: str = field(default="", repr=False)
    group: str | None = None

    def json(self) -> Any:
        """The body, decoded as JSON. Raises InvalidInput."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError as error:
            raise InvalidInput("the body of the message is not JSON") from error


class Redeliver(ResilientError):
    """Raised by a handler: not now; bring it again.

    Args:
        after: Seconds, at most twelve hours; by default what the consumer's backoff says.

    Examples:
        >>> raise Redeliver(after=60)
        Traceback (most recent call last):
        ...
        resilient.queue...Redeliver: the message is to come again
    """

    def __init__(self, message: str = "the message is to come again", *, after: float | None = None) -> None:
        super().__init__(message, retry_after=after)
        if after is not None and not 0 <= after <= LONGEST_VISIBILITY:
            raise InvalidInput(f"a message can be put off by 0 to {LONGEST_VISIBILITY} seconds")
        self.after = after


class Reject(ResilientError):
    """Raised by a handler: this message can never be handled.

    It is moved to the dead-letter queue at once, with the reason.

    Args:
        reason: Why, in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Release(ResilientError):
    """Raised by a handler: another worker should do it, at once."""

    def __init__(self, message: str = "the message is given back") -> None:
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a message that failed stays away.

    The time grows with each receipt and is drawn at random between half of it and all of it, so that messages that
    failed together do not come back together.

    Args:
        base: Seconds after the first failure.
        factor: By how much each further failure prolongs it.
        cap: Seconds at most.

    Examples:
        >>> Backoff(base=2, factor=2, cap=60).delay(3, draw=1.0)
        8.0
    """

    base: float = 1.0
    factor: float = 2.0
    cap: float = 900.0

    def __post_init__(self) -> None:
        if not (self.base >= 0 and self.factor >= 1 and self.base <= self.cap <= LONGEST_VISIBILITY):
            raise ConfigurationError(f"a backoff needs 0 <= base <= cap <= {LONGEST_VISIBILITY} and factor >= 1")

    def delay(self, receive_count: int, *, draw: float | None = None) -> float:
        """Seconds to stay away after that many receipts; ``draw`` in 0 to 1 replaces chance."""
        exponent = min(max(0, receive_count - 1), 64)
        full = min(self.cap, self.base * min(self.factor**exponent, 1e9))
        chance = random.random() if draw is None else draw  # noqa: S311 - it spreads load, it guards nothing
        return float(full * (0.5 + chance / 2))
