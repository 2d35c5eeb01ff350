"""What a handler wants: its parameters, told by their annotations, worked out once."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from resilient.errors import ConfigurationError
from resilient.queue._message import Message, Reject

__all__ = ["Handler", "Plan", "is_session", "plan"]

Handler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a handler is called.

    Args:
        handler: The handler.
        payload: The parameter that takes the decoded body, if any.
        message: The parameters that take the `Message`.
        session: The parameters that take the SQLAlchemy session.
        decode: Turns the text of a body into the payload.
        positional: Whether the payload cannot be passed by name, as with ``list.append``.
    """

    handler: Handler
    payload: str | None
    message: tuple[str, ...]
    session: tuple[str, ...]
    decode: Callable[[str], Any]
    positional: bool = False

    def read(self, message: Message) -> Any:
        """The payload. Raises Reject where the body is not what the handler takes."""
        try:
            return self.decode(message.body)
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            raise Reject(f"the body does not fit the handler: {type(error).__name__}") from error

    def call(self, payload: Any, message: Message, session: Any) -> Any:
        """Call the handler."""
        arguments: dict[str, Any] = dict.fromkeys(self.message, message) | dict.fromkeys(self.session, session)
        if self.positional:
            return self.handler(payload, **arguments)
        if self.payload is not None:
            arguments[self.payload] = payload
        return self.handler(**arguments)


def _refuse_generator(handler: Handler) -> None:
    if inspect.isgeneratorfunction(handler):
        raise ConfigurationError("the handler yields, so that calling it does nothing", advice="write a plain function")


def plan(handler: Handler) -> Plan:
    """Work out how to call a handler.

    Args:
        handler: A function. A parameter annotated `Message` takes the message, one annotated with a SQLAlchemy
            ``Session`` the session; the other one takes the body: as it is (``str``, ``bytes``), decoded from JSON
            (``dict``, or no annotation), or decoded and checked (a dataclass, a ``msgspec.Struct``, a ``TypedDict``).

    Raises:
        ConfigurationError: The handler cannot be called like that.

    Examples:
        >>> def handle(order: dict, message: Message) -> None: ...
        >>> plan(handle).payload
        'order'
    """
    if inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler):
        raise ConfigurationError(
            "the handler is async, and this consumer runs threads", advice="write a plain function"
        )
    _refuse_generator(handler)
    try:
        signature, hints = inspect.signature(handler), _hints(handler)
    except (NameError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the annotations of the handler cannot be read: {error}", advice="define its types at module level"
        ) from error
    by_position = False
    payload: list[str] = []
    message: list[str] = []
    session: list[str] = []
    for name, parameter in signature.parameters.items():
        wanted = hints.get(name, Any)
        positional = parameter.kind is parameter.POSITIONAL_ONLY
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigurationError(f"a handler names its parameters; this one takes any number as {name!r}")
        if positional and (wanted is Message or is_session(wanted) or payload):
            raise ConfigurationError(f"the handler's parameter {name!r} cannot be passed by name")
        if wanted is Message:
            message.append(name)
        elif is_session(wanted):
            session.append(name)
        elif parameter.default is parameter.empty:
            payload.append(name)
            by_position = positional
    if len(payload) > 1:
        raise ConfigurationError(
            f"a handler takes one payload, this one asks for {', '.join(payload)}",
            advice="annotate the others as Message or Session",
        )
    taken = payload[0] if payload else None
    kind = str if taken is None else hints.get(taken, Any)
    return Plan(handler, taken, tuple(message), tuple(session), _decoder(kind), by_position)


def _hints(handler: Handler) -> dict[str, Any]:
    plain = inspect.unwrap(handler)
    while hasattr(plain, "func"):  # functools.partial
        plain = plain.func
    return typing.get_type_hints(plain if inspect.isroutine(plain) or inspect.isclass(plain) else plain.__call__)


def is_session(wanted: Any) -> bool:
    """Whether an annotation asks for a SQLAlchemy session."""
    orm = sys.modules.get("sqlalchemy.orm")  # where it was never imported, no annotation can mean it
    return orm is not None and isinstance(wanted, type) and issubclass(wanted, orm.Session)


def _decoder(kind: Any) -> Callable[[str], Any]:
    if kind is str:
        return lambda body: body
    if kind is bytes:
        return str.encode
    validate: Callable[[str], Any] | None = getattr(kind, "model_validate_json", None)
    if validate is not None:  # pydantic
        return validate
    try:
        return msgspec.json.Decoder(kind).decode
    except TypeError as error:
        raise ConfigurationError(f"a message body cannot be decoded as {kind!r}: {error}") from error
