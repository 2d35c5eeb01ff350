"""A pytest plugin for Flask-Caching's own suite: where their tests ask for SimpleCache, they get our backend."""

import itertools
import os

import cachelib.simple
import flask_caching.backends

from resilient.cache import Cache
from resilient.contrib._sync.values import Values
from resilient.contrib.flask_caching import ResilientCache

_COUNT = itertools.count()


class _TheirClock:
    """The time that their tests turn forward."""

    def wall(self):
        return cachelib.simple.time()

    monotonic = wall

    def sleep(self, seconds):
        raise NotImplementedError

    async def asleep(self, seconds):
        raise NotImplementedError


class SwappedCache(ResilientCache):
    """Our backend, each with a namespace of its own: a SimpleCache shares nothing either."""

    def __init__(self, *args, **options):
        options = {"secret": "a secret for the tests of others", **options}
        options["namespace"] = f"swap-{os.getpid()}-{next(_COUNT)}"
        args = args if args and isinstance(args[0], int) else args[1:]  # the server is ours to name
        super().__init__(os.environ.get("FACE_URL") or None, *args, **options)
        if "FACE_URL" not in os.environ:  # a server's time nobody turns forward
            given = {"secret": options["secret"], "codec": "pickle", "jitter": 0.0, "size": options.get("size", 10_000)}
            self._values = Values(Cache(namespace=options["namespace"], clock=_TheirClock(), **given))


flask_caching.backends.SimpleCache = SwappedCache
