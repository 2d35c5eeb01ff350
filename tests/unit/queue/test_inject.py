"""What a handler is given."""

import functools
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest
from sqlalchemy.orm import Session

from resilient.errors import ConfigurationError
from resilient.queue import Message, Reject
from resilient.queue._inject import plan


@dataclass
class Order:
    number: int


class Struct(msgspec.Struct):
    number: int


class Typed(TypedDict):
    number: int


class MySession(Session):
    pass


def message(body='{"number": 7}'):
    return Message(id="1", body=body)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Order, Order(7)),
        (Struct, Struct(7)),
        (Typed, {"number": 7}),
        (dict, {"number": 7}),
        (Any, {"number": 7}),
        (str, '{"number": 7}'),
        (bytes, b'{"number": 7}'),
    ],
)
def test_the_payload_is_what_its_annotation_says(kind, expected):
    """Text, bytes, JSON, and types that are checked."""

    def handle(order):
        return order

    handle.__annotations__ = {"order": kind}
    compiled = plan(handle)
    assert compiled.call(compiled.read(message()), message(), None) == expected


def test_without_annotation_the_payload_is_json():
    """The plainest handler gets what was sent."""
    compiled = plan(lambda order: order["number"])
    assert compiled.call(compiled.read(message()), message(), None) == 7


def test_session_and_message_are_told_by_their_types():
    """In any order and under any name; a subclass of Session counts; defaults are left alone."""

    def handle(tx: MySession, order: Order, *, note: Message, retries: int = 3) -> Any:
        return tx, order, note, retries

    compiled, given = plan(handle), message()
    assert compiled.call(Order(1), given, "tx") == ("tx", Order(1), given, 3)
    assert (compiled.session, compiled.message, compiled.payload) == (("tx",), ("note",), "order")


def test_a_handler_needs_no_payload():
    """It may ask for the message alone, whatever its body is."""

    def handle(note: Message) -> str:
        return note.body

    compiled = plan(handle)
    assert compiled.call(compiled.read(message("not json")), message("not json"), None) == "not json"


def test_a_builtin_is_a_handler():
    """Its one parameter cannot be passed by name, and need not be."""
    seen = []
    plan(seen.append).call({"number": 7}, message(), None)
    assert seen == [{"number": 7}]


def test_methods_partials_and_callable_objects_are_handlers():
    """Anything callable whose parameters can be read."""

    class Handler:
        def __call__(self, order: Order) -> int:
            return order.number

        def method(self, order: Order) -> int:
            return order.number

    def scaled(order: Order, factor: int) -> int:
        return order.number * factor

    for handler in (Handler(), Handler().method, functools.partial(scaled, factor=1)):
        compiled = plan(handler)
        assert compiled.call(compiled.read(message()), message(), None) == 7


@pytest.mark.parametrize("body", ["not json", '{"number": "x"}', "{}", "[]"])
def test_a_body_that_does_not_fit_is_rejected(body):
    """It can never be handled, and says so without repeating the body."""
    with pytest.raises(Reject) as caught:
        plan(_typed).read(message(body))
    assert body not in str(caught.value)


def _typed(order: Order) -> None: ...


def test_a_handler_that_cannot_be_called_is_refused_at_once():
    """Two payloads, positional-only parameters, async, a generator, and names that cannot be resolved."""

    async def slow(order: Order) -> None: ...

    def two(a: Order, b: Order) -> None: ...

    def positional(a: Session, /) -> None: ...

    def unknown(a: "Nowhere") -> None: ...  # noqa: F821

    def undecodable(a: Order | Struct) -> None: ...

    def steps(a: Order):
        yield a

    for handler in (slow, steps, two, positional, unknown, undecodable, lambda *a: None):
        with pytest.raises(ConfigurationError):
            plan(handler)
