"""cachelib's common tests, over ours. test_faces.py lays this file into the folder of their tests."""

import itertools
import os

import pytest
from clear import ClearTests
from common import CommonTests
from delete_many_with_prefix import DeleteManyWithPrefixTests
from has import HasTests

from resilient.contrib.cachelib import ResilientCache

COUNT = itertools.count()
URL = os.environ.get("FACE_URL") or None
PATIENT = (
    {"timeout": 5.0} if URL else {}
)  # what is asked here is what a backend does, not whether a busy machine answers within 50 ms


@pytest.fixture(autouse=True, params=["pickle", "safe"])
def cache_factory(request, key_prefix):
    made = []

    def factory(self, *args, **options):
        options = {"key_prefix": key_prefix, "secret": "a secret for the tests of others", **PATIENT, **options}
        namespace = f"cachelib-{os.getpid()}-{next(COUNT)}"
        cache = ResilientCache(URL, *args, namespace=namespace, codec=request.param, **options)
        made.append(cache)
        return cache

    request.cls.cache_factory = factory
    yield
    for cache in made:
        cache.close()


class TestOurCache(CommonTests, ClearTests, HasTests, DeleteManyWithPrefixTests):
    pass
