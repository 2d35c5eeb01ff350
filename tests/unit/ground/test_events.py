"""The stream of events and its sinks."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar

import pytest
from opentelemetry.metrics import NoOpMeter
from prometheus_client import CollectorRegistry

from resilient import events
from resilient.errors import ConfigurationError
from resilient.events.opentelemetry import OpenTelemetrySink
from resilient.events.prometheus import PrometheusSink


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(events.Event):
    """Something was read."""

    metric: ClassVar[events.Metric] = events.Metric(
        "resilient.shop.reads", "counter", "{read}", labels=(("shop.source", "source"),)
    )
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Served(events.Event):
    """Something was served, in so many seconds."""

    metric: ClassVar[events.Metric] = events.Metric("shop.duration", "histogram", "s", "seconds")
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth(events.Event):
    """So many wait."""

    metric: ClassVar[events.Metric] = events.Metric("shop.depth", "gauge", "{message}", "waiting")
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TierLost(events.Event):
    """A change of state."""

    level: ClassVar[int] = logging.WARNING
    tier: str


@pytest.fixture
def memory() -> Iterator[events.MemorySink]:
    sink = events.MemorySink(capacity=3)
    unsubscribe = events.subscribe(sink)
    yield sink
    unsubscribe()


def of_the_library() -> list[type[events.Event]]:
    """Every kind of event of the library."""
    for room in ("cache", "health", "policy", "queue", "storage.objects", "storage.replicas", "storage.shards"):
        importlib.import_module(f"resilient.{room}")
    importlib.import_module("resilient.web.purging")
    found, open_ = [], [events.Event]
    while open_:
        kinds = [kind for kind in open_.pop().__subclasses__() if kind.__module__.startswith("resilient.")]
        found += kinds
        open_ += kinds
    return found


def test_events_and_their_labels_are_named_by_one_rule() -> None:
    """Kinds stand in the module of events of their room; labels bear OpenTelemetry's name or the room's prefix."""
    kinds = of_the_library()
    assert len(kinds) > 30
    for kind in kinds:
        *_, room, module = kind.__module__.split(".")
        assert module in {"_events", "events"} or kind.__module__ == "resilient.causality", kind
        if kind.metric is None:
            continue
        prefix = "resilience." if room == "policy" else f"resilient.{room}."
        for label, field in kind.metric.labels:
            assert field in kind.__dataclass_fields__, (kind, field)
            assert label in {"error.type", "messaging.destination.name"} or label.startswith(prefix), (kind, label)
        if kind.metric.unit == "s":
            assert kind.metric.value == "seconds", kind


def test_events_are_values() -> None:
    """An event cannot be changed, and equals another with the same content."""
    assert Read(source="loader") == Read(source="loader")
    with pytest.raises(FrozenInstanceError):
        Read(source="loader").source = "shared"  # type: ignore[misc] # what the test is about


def test_a_memory_sink_keeps_the_last(memory: events.MemorySink) -> None:
    """It keeps as many as its capacity, oldest first, and tells them apart by kind."""
    for number in range(4):
        events.emit(Read(source=str(number)))
    events.emit(TierLost(tier="shared"))
    assert [type(event) for event in memory.events] == [Read, Read, TierLost]
    assert [event.source for event in memory.of(Read)] == ["2", "3"]
    memory.clear()
    assert memory.events == ()


def test_a_sink_gets_the_kinds_it_asked_for() -> None:
    """A subscription is limited by kind and by level, and can be ended."""
    kinds, loud = [], []
    stop = [events.subscribe(kinds.append, kinds=[Read]), events.subscribe(loud.append, level=logging.WARNING)]
    for event in (Read(source="shared"), TierLost(tier="shared")):
        events.emit(event)
    for each in stop:
        each()
    events.emit(Read(source="after"))
    assert kinds == [Read(source="shared")]
    assert loud == [TierLost(tier="shared")]


def test_nobody_listens_nobody_pays() -> None:
    """`wanted` is false for a quiet kind until somebody subscribes, and again when they leave."""
    assert not events.wanted(Read)
    unsubscribe = events.subscribe(lambda event: None, kinds=[Read])
    assert events.wanted(Read)
    assert not events.wanted(Served)
    unsubscribe()
    assert not events.wanted(Read)


def test_a_failing_sink_breaks_nothing(memory: events.MemorySink, caplog: pytest.LogCaptureFixture) -> None:
    """A sink that raises harms neither the call nor the other sinks, and fills no log."""

    def fail(event: events.Event) -> None:
        raise RuntimeError("disk full")

    unsubscribe = events.subscribe(fail)
    for _ in range(5):
        events.emit(Read(source="loader"))
    unsubscribe()
    assert len(memory.events) == 3
    assert sum(record.name == "resilient.events" for record in caplog.records) <= 1


def test_changes_of_state_are_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    """A loud event is one line with its fields; a quiet one is none."""
    caplog.set_level(logging.DEBUG)
    events.emit(TierLost(tier="shared"))
    events.emit(Read(source="loader"))
    lines = [record for record in caplog.records if getattr(record, "resilient_event", None)]
    assert [record.getMessage() for record in lines] == ["tier lost tier=shared"]
    assert lines[0].levelno == logging.WARNING


def test_a_queue_protects_from_a_slow_sink() -> None:
    """While the sink hangs, a full queue drops and counts; what was queued arrives in order."""
    gate, taken = threading.Event(), []

    def slow(event: events.Event) -> None:
        gate.wait(5)
        taken.append(event)

    queued = events.QueuedSink(slow, capacity=2)
    queued(Read(source="0"))
    while queued._queue.qsize():  # the thread has taken the first and hangs in it
        threading.Event().wait(0.001)
    for number in range(1, 6):
        queued(Read(source=str(number)))
    assert queued.dropped == 3
    gate.set()
    queued.close(timeout=5)
    assert [event.source for event in taken] == ["0", "1", "2"]
    queued(Read(source="late"))
    assert queued.dropped == 4


def test_a_queue_outlives_a_failing_sink() -> None:
    """A sink that raises behind a queue is counted, and the next event is tried."""
    queued = events.QueuedSink(lambda event: 1 / 0)
    queued(Read(source="a"))
    queued(Read(source="b"))
    queued.close(timeout=5)
    assert queued.failures == 2


def test_a_queue_without_room_is_refused() -> None:
    """A capacity below one is a mistake, told at once."""
    with pytest.raises(ConfigurationError, match="capacity=0"):
        events.QueuedSink(print, capacity=0)


def test_prometheus_counts_by_label() -> None:
    """Counters, histograms and gauges get the table's names, in base units, and the labels of the kind."""
    registry = CollectorRegistry()
    sink = PrometheusSink(registry)
    for event in (Read(source="shared"), Read(source="shared"), Read(source="loader"), Served(seconds=0.25)):
        sink(event)
    sink(Depth(waiting=7))
    sink(TierLost(tier="shared"))
    assert registry.get_sample_value("resilient_shop_reads_total", {"shop_source": "shared"}) == 2
    assert registry.get_sample_value("resilient_shop_reads_total", {"shop_source": "loader"}) == 1
    assert registry.get_sample_value("resilient_shop_duration_seconds_sum") == 0.25
    assert registry.get_sample_value("resilient_shop_depth") == 7


def test_opentelemetry_gets_the_instruments() -> None:
    """Each kind is recorded once on the instrument it names, with its attributes."""
    calls: list[tuple[object, ...]] = []

    class Instrument:
        def __init__(self, kind: str, name: str) -> None:
            self.key = (kind, name)

        def record(self, amount: float, attributes: dict[str, str]) -> None:
            calls.append((*self.key, amount, attributes))

        add = set = record

    class Meter(NoOpMeter):
        def create_counter(self, name, unit="", description=""):
            return Instrument("counter", name)

        def create_histogram(self, name, unit="", description="", **rest):
            return Instrument("histogram", name)

        def create_gauge(self, name, unit="", description=""):
            return Instrument("gauge", name)

    sink = OpenTelemetrySink(Meter("test"))
    for event in (Read(source="shared"), Served(seconds=0.25), Depth(waiting=7), TierLost(tier="x")):
        sink(event)
    assert calls == [
        ("counter", "resilient.shop.reads", 1, {"shop.source": "shared"}),
        ("histogram", "shop.duration", 0.25, {}),
        ("gauge", "shop.depth", 7, {}),
    ]
