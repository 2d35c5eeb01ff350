"""What Django is told of the app."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from resilient.django._checks import problems

__all__ = ["ResilientConfig"]


class ResilientConfig(AppConfig):  # type: ignore[misc]  # Django is untyped
    """The app ``resilient``."""

    name = "resilient.django"
    label = "resilient"
    verbose_name = "Resilience"

    def ready(self) -> None:
        """Register the system check."""
        checks.register(problems, checks.Tags.compatibility)
