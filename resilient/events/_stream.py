"""The stream itself: what an event is, who listens, and how it reaches them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from resilient.runtime import fork_safe_lock

__all__ = ["Event", "Metric", "Sink", "emit", "stream", "subscribe", "wanted"]

_log = logging.getLogger("resilient.events")
_log.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Metric:
    """How an event is counted, in the field's semantic names.

    Args:
        name: The OpenTelemetry instrument, as in ``db.client.operation.duration``.
        kind: ``counter`` adds, ``histogram`` records a distribution, ``gauge`` keeps the last value.
        unit: UCUM, as in ``s``, ``By``, ``{call}``.
        value: The event's field that holds the number; ``None`` counts each event as one.
        labels: Pairs of attribute name and the event's field that holds it. Few values each: never a key or an id.
    """

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    value: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, as a frozen value. Each room of the library declares its own kinds.

    A kind sets ``level`` (a `logging` level: changes of state are INFO or WARNING, single operations DEBUG) and, where
    it is worth counting, ``metric``.
    """

    level: ClassVar[int] = logging.DEBUG
    metric: ClassVar[Metric | None] = None


class Sink(Protocol):
    """Whoever takes events: any callable with one argument. It must be quick; wrap a slow one in `QueuedSink`."""

    def __call__(self, event: Event, /) -> None:
        """Take one event. What it raises is counted and dropped; the call that caused the event goes on."""
        ...


@dataclass(frozen=True, slots=True)
class _Subscription:
    sink: Sink
    kinds: tuple[type[Event], ...]
    level: int

    def takes(self, kind: type[Event]) -> bool:
        return kind.level >= self.level and issubclass(kind, self.kinds)


class _Stream:
    """The subscriptions of this process, with the route of each kind worked out once."""

    def __init__(self) -> None:
        self._subscriptions: tuple[_Subscription, ...] = ()
        self.routes: dict[type[Event], tuple[Sink, ...]] = {}
        """The sinks of those kinds that were asked for since the last change; another object after each change."""
        self.failures = 0
        self._lock = fork_safe_lock()

    def add(self, subscription: _Subscription) -> None:
        with self._lock:
            self._subscriptions = (*self._subscriptions, subscription)
            self.routes = {}

    def remove(self, subscription: _Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(each for each in self._subscriptions if each is not subscription)
            self.routes = {}

    def route(self, kind: type[Event]) -> tuple[Sink, ...]:
        routes = self.routes
        try:
            return routes[kind]
        except KeyError:
            found = tuple(each.sink for each in self._subscriptions if each.takes(kind))
            routes[kind] = found
            return found

    def failed(self, sink: Sink) -> None:
        with self._lock:
            self.failures += 1
            first = self.failures == 1
        if first:
            _log.exception("the event sink %r failed; further failures are only counted", sink)


_stream = stream = _Stream()


def subscribe(sink: Sink, *, kinds: Sequence[type[Event]] = (Event,), level: int = logging.DEBUG) -> Callable[[], None]:
    """Send events to a sink, for the whole process.

    Args:
        sink: Called with each event on the thread where it happened. If it raises, the event is dropped for this
            sink; the call that caused the event goes on.
        kinds: The kinds it wants, with their subclasses.
        level: The lowest `logging` level it wants.

    Returns:
        A function that ends the subscription.

    Examples:
        >>> seen = []
        >>> unsubscribe = subscribe(seen.append)
        >>> emit(Event())
        >>> unsubscribe(); len(seen)
        1
    """
    subscription = _Subscription(sink, tuple(kinds), level)
    _stream.add(subscription)
    return lambda: _stream.remove(subscription)


def wanted(kind: type[Event]) -> bool:
    """Whether anybody listens to this kind; ask before building an event on a hot path."""
    try:
        return bool(_stream.routes[kind])
    except KeyError:
        return bool(_stream.route(kind))


def emit(event: Event) -> None:
    """Hand an event to whoever wants its kind. Never raises."""
    for sink in _stream.route(type(event)):
        try:
            sink(event)
        except Exception:  # noqa: BLE001 - a sink must never break the call it watches
            _stream.failed(sink)
