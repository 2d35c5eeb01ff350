"""dogpile.cache's generic tests of backends, over ours. test_faces.py lays this file into the folder of their tests."""

import os

from dogpile.cache import register_backend
from dogpile.testing.fixtures import _GenericBackendTestSuite, _GenericMutexTestSuite, _GenericSerializerTestSuite

register_backend("resilient", "resilient.contrib.dogpile", "ResilientBackend")

URL = os.environ.get("FACE_URL") or None


PATIENT = (
    {"timeout": 5.0} if URL else {}
)  # what is asked here is what a backend does, not whether a busy machine answers within 50 ms


def arguments(namespace):
    return {"arguments": {**PATIENT, "url": URL, "secret": "a secret for the tests of others", "namespace": namespace}}


class OurBackendTest(_GenericBackendTestSuite):
    backend = "resilient"
    config_args = arguments("plain")


class OurSerializedTest(_GenericSerializerTestSuite, _GenericBackendTestSuite):
    backend = "resilient"
    config_args = arguments("serialized")


if URL is not None:  # without a server the lock is dogpile's own

    class OurMutexTest(_GenericMutexTestSuite):
        backend = "resilient"
        config_args = arguments("mutex")
