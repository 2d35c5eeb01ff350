"""One configured Django for the tests of this folder."""

from __future__ import annotations

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["shop.example"],
        INSTALLED_APPS=["resilient.django"],
        MIDDLEWARE=[],
        ROOT_URLCONF="django.conf.urls.i18n",  # each test names its own
        SECRET_KEY="a secret for tests",
        USE_TZ=True,
    )
    django.setup()
