"""Counts events for Prometheus. Needs the extra ``prometheus``."""

from __future__ import annotations

from typing import Any

from resilient.errors import needs_extra
from resilient.events._stream import Event, Metric
from resilient.runtime import fork_safe_lock

with needs_extra("prometheus"):
    import prometheus_client

__all__ = ["PrometheusSink"]

_UNITS = {"s": "seconds", "By": "bytes"}


class PrometheusSink:
    """Turns each counted event into a sample of a Prometheus metric.

    The names follow from the OpenTelemetry ones: ``resilient.cache.reads`` becomes ``resilient_cache_reads_total``,
    ``db.client.operation.duration`` becomes ``resilient_db_client_operation_duration_seconds``.

    Args:
        registry: Where the metrics are registered; by default prometheus_client's own registry.
    """

    def __init__(self, registry: prometheus_client.CollectorRegistry | None = None) -> None:
        self._registry = registry or prometheus_client.REGISTRY
        self._metrics: dict[str, Any] = {}
        self._lock = fork_safe_lock()

    def __call__(self, event: Event, /) -> None:
        """Record the event, if its kind is counted."""
        metric = event.metric
        if metric is None:
            return
        amount = 1 if metric.value is None else getattr(event, metric.value)
        sample = self._metrics.get(metric.name) or self._make(metric)
        if metric.labels:
            sample = sample.labels(*(str(getattr(event, field)) for _, field in metric.labels))
        if metric.kind == "counter":
            sample.inc(amount)
        elif metric.kind == "histogram":
            sample.observe(amount)
        else:
            sample.set(amount)

    def _make(self, metric: Metric) -> Any:
        kinds: dict[str, Any] = {
            "counter": prometheus_client.Counter,
            "histogram": prometheus_client.Histogram,
            "gauge": prometheus_client.Gauge,
        }
        name = metric.name.replace(".", "_")
        name = name if name.startswith("resilient_") else f"resilient_{name}"
        unit = _UNITS.get(metric.unit)
        labels = [label.replace(".", "_") for label, _ in metric.labels]
        with self._lock:
            if metric.name not in self._metrics:
                self._metrics[metric.name] = kinds[metric.kind](
                    f"{name}_{unit}" if unit else name,
                    f"{metric.name} in {metric.unit}",
                    labels,
                    registry=self._registry,
                )
        return self._metrics[metric.name]
