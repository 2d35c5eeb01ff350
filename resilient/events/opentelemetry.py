"""Counts events with OpenTelemetry. Needs the extra ``otel``; the application brings the SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilient.errors import needs_extra
from resilient.events._stream import Event, Metric

with needs_extra("otel"):
    from opentelemetry import metrics

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

__all__ = ["OpenTelemetrySink"]


class OpenTelemetrySink:
    """Turns each counted event into a measurement of the instrument its kind names.

    Args:
        meter: Where to make the instruments; by default the meter ``resilient`` of the global provider.

    Examples:
        >>> from resilient import events
        >>> from resilient.events.opentelemetry import OpenTelemetrySink
        >>> unsubscribe = events.subscribe(OpenTelemetrySink())
        >>> unsubscribe()
    """

    def __init__(self, meter: Meter | None = None) -> None:
        self._meter = meter or metrics.get_meter("resilient")
        self._instruments: dict[str, Any] = {}

    def __call__(self, event: Event, /) -> None:
        """Record the event, if its kind is counted."""
        metric = event.metric
        if metric is None:
            return
        amount = 1 if metric.value is None else getattr(event, metric.value)
        attributes = {label: str(getattr(event, field)) for label, field in metric.labels}
        instrument = self._instruments.get(metric.name) or self._make(metric)
        if metric.kind == "counter":
            instrument.add(amount, attributes)
        elif metric.kind == "histogram":
            instrument.record(amount, attributes)
        else:
            instrument.set(amount, attributes)

    def _make(self, metric: Metric) -> Any:
        make = getattr(self._meter, f"create_{metric.kind}")
        return self._instruments.setdefault(metric.name, make(metric.name, unit=metric.unit))
