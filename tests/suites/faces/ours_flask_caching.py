"""Flask-Caching's generic tests of backends, over ours. test_faces.py lays this file into the folder of their tests."""

import itertools
import os

import pytest
from flask import Flask
from test_backend_cache import GenericCacheTests

from resilient.contrib.flask_caching import ResilientCache

COUNT = itertools.count()
URL = os.environ.get("FACE_URL")
PATIENT = (
    {"timeout": 5.0} if URL else {}
)  # what is asked here is what a backend does, not whether a busy machine answers within 50 ms


class TestOurBackend(GenericCacheTests):
    _can_use_fast_sleep = False

    @pytest.fixture
    def make_cache(self):
        made = []

        def make():
            app = Flask("ours")
            app.secret_key = "a secret for the tests of others"
            options = {"namespace": f"flask-caching-{os.getpid()}-{next(COUNT)}", "default_timeout": 300, **PATIENT}
            made.append(ResilientCache.factory(app, {"CACHE_REDIS_URL": URL}, [], options))
            return made[-1]

        yield make
        for cache in made:
            cache.close()
