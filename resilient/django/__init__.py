"""The Django app: ``"resilient.django"`` in ``INSTALLED_APPS`` (label ``resilient``), one dict ``settings.RESILIENT``.

    INSTALLED_APPS = [..., "resilient.django"]
    MIDDLEWARE = [
        "resilient.django.middleware.HealthMiddleware",  # first: probes name the machine's address as host
        "resilient.django.middleware.ScopeMiddleware",
        ...,
    ]
    RESILIENT = {"HEALTH": "shop.health:health", "REPLICAS": "shop.db:replicas", "DEADLINE": 5.0}

Needs the extra ``django``.
"""

from resilient.errors import needs_extra

with needs_extra("django"):
    import django as _django  # noqa: F401 - only to say which extra is missing

from resilient.django._caching import http_cached
from resilient.django._on_commit import on_commit
from resilient.django._urls import health_urls

__all__ = ["health_urls", "http_cached", "on_commit"]
