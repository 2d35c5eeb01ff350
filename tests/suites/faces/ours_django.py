"""Django's own tests of caches and of sessions, over ours. test_faces.py lays this file into the folder of their tests.

``FACE_URL`` is the server; without it entries live in the process.
"""

import os

import django
import pytest
from django.conf import settings
from django.test import SimpleTestCase, TestCase, override_settings
from django.test.utils import setup_databases, setup_test_environment, teardown_databases, teardown_test_environment

URL = os.environ.get("FACE_URL", "")
# what is asked here is what a backend does, not whether a busy machine answers within 50 ms
PATIENT = {"timeout": 5.0} if URL else {}
OURS = {"BACKEND": "resilient.django.cache.Cache", "LOCATION": URL, "OPTIONS": PATIENT}

settings.configure(
    CACHES={"default": OURS},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[
        *("django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"),
        *("cache", "sessions_tests", "resilient.django"),
    ],
    RESILIENT={"SESSIONS": {"LOCATION": URL or None}},
    ROOT_URLCONF="cache.urls",
    SECRET_KEY="a secret for the tests of others",
    USE_TZ=False,
)
django.setup()

import cache.tests as theirs
import sessions_tests.tests as theirs_too
from django.core.cache import cache

from resilient.django.sessions import SessionStore


@pytest.fixture(scope="session", autouse=True)
def database():
    setup_test_environment()
    old = setup_databases(verbosity=0, interactive=False)
    yield
    teardown_databases(old, verbosity=0)
    teardown_test_environment()


# A server makes room by its own policy: Django's own backend for Redis is tested without culling, too.
@override_settings(CACHES=theirs.caches_setting_for_tests(base=OURS, exclude={"cull", "zero_cull"} if URL else set()))
class OurCacheTests(theirs.BaseCacheTests, TestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(cache.clear)


class OurSessionTests(theirs_too.SessionTestsMixin, SimpleTestCase):
    backend = SessionStore
