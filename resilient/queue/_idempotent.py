"""Idempotent functions: called twice with one key, done once."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import typing
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from resilient.errors import ConfigurationError, Conflict, InvalidInput, OutcomeUnknown
from resilient.ledger import Done, InProgress, Mismatch, Store
from resilient.queue._inject import is_session
from resilient.queue._process import encode_result

__all__ = ["idempotent"]

T = TypeVar("T")


def idempotent(
    store: Store, *, key: Callable[..., Any], name: str | None = None, lease: float = 60.0
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Make a function take effect once for each key; later calls get the first one's result.

    With `SqlStore` the function takes a session, and its effect through it is committed together with the record: a
    call that dies leaves neither. With other stores a call that dies between its effect and its record is repeated.

    Args:
        store: Keeps the record.
        key: Takes the call's arguments (without the session) and returns what names the work.
        name: What the records are kept under; by default the function's qualified name.
        lease: Seconds after which a call that never came back may be taken over, where the store has leases.

    Returns:
        A decorator. A parameter annotated with a SQLAlchemy ``Session`` is filled in, and must not be passed.

    Raises:
        Conflict: By the call: another call with this key is running, or one with other arguments was made before.

    Examples:
        >>> from resilient.ledger import MemoryStore
        >>> @idempotent(MemoryStore(), key=lambda order: order["id"])
        ... def charge(order: dict) -> str:
        ...     print("charged")
        ...     return "receipt 1"
        >>> charge({"id": 7})
        charged
        'receipt 1'
        >>> charge({"id": 7})
        'receipt 1'
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError("an async function cannot be made idempotent here", advice="write a plain one")
        hints = typing.get_type_hints(function)
        sessions = [each for each, kind in hints.items() if each != "return" and is_session(kind)]
        title = name or f"{function.__module__}.{function.__qualname__}"
        returns = hints.get("return", Any)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> T:
            digest = hashlib.sha256(_text((args, kwargs))).hexdigest()
            outcome = store.claim(
                f"{title}:{key(*args, **kwargs)}", owner=f"pid-{os.getpid()}", lease=lease, payload_hash=digest
            )
            if isinstance(outcome, Done):
                return cast("T", _revive(outcome.result, returns))
            if isinstance(outcome, InProgress):
                raise Conflict("another call with this key is running", retry_after=outcome.retry_after)
            if isinstance(outcome, Mismatch):
                raise Conflict("this key was used before with other arguments", advice="use one key for one request")
            try:
                result = function(*args, **kwargs, **dict.fromkeys(sessions, outcome.claim.session))
                kept = encode_result(result)
                if kept is None and result is not None:
                    raise InvalidInput("the result of an idempotent function is small and can be written as JSON")
            except BaseException:
                store.release(outcome.claim)
                raise
            if not store.complete(outcome.claim, kept):
                raise OutcomeUnknown("the call took longer than its lease, and another has taken over")
            return result

        return call

    return decorate


def _text(value: Any) -> bytes:
    try:
        return json.dumps(msgspec.to_builtins(value), sort_keys=True).encode()
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput("the arguments of an idempotent function can be written as JSON") from None


def _revive(result: bytes | None, kind: Any) -> Any:
    return None if result is None else msgspec.json.decode(result, type=kind if kind is not type(None) else Any)
