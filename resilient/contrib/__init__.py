"""Faces for other libraries: the cache as a backend of cachelib, Flask-Caching and dogpile.cache.

Each module imports the library it is for, so that this package itself needs none of them:

* `resilient.contrib.cachelib`: ``ResilientCache``, a ``cachelib.BaseCache``;
* `resilient.contrib.flask_caching`: ``ResilientCache``, for ``CACHE_TYPE``;
* `resilient.contrib.dogpile`: ``ResilientBackend``, by the name ``resilient``.

They keep what those libraries promise: any object may be a value (written as signed pickle), and a value may live
without end. What they add is what stands behind them: no call waits long for a server that is away, none raises for it,
and what was deleted meanwhile is deleted there before it is trusted again.
"""
