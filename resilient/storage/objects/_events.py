"""What happens to uploads, as events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from resilient.events import Event, Metric

__all__ = ["UploadConfirmed", "UploadRejected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadConfirmed(Event):
    """An upload was found in the bucket, as its policy demands."""

    metric: ClassVar[Metric | None] = Metric("resilient.objects.confirmed", "counter", "{object}")
    bucket: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRejected(Event):
    """An upload was not confirmed."""

    metric: ClassVar[Metric | None] = Metric(
        "resilient.objects.rejected", "counter", "{object}", labels=(("resilient.objects.reason", "reason"),)
    )
    bucket: str
    reason: str
