"""The backends for other libraries where those libraries' own tests do not look: outages, safety, locks."""

from __future__ import annotations

import os
import pickle
import threading
import time

import pytest
from dogpile.cache import make_region, register_backend
from dogpile.cache.api import NO_VALUE
from flask import Flask
from flask_caching import Cache as FlaskCaching

from resilient.cache import Cache
from resilient.contrib._faces import MISSING, seconds_of
from resilient.contrib.cachelib import ResilientCache
from resilient.contrib.dogpile import ResilientBackend
from resilient.errors import ConfigurationError
from resilient.testing import FakeClock

AWAY = "redis://127.0.0.1:1/0"  # nothing listens there
SECRET = "a secret for tests"

register_backend("resilient", "resilient.contrib.dogpile", "ResilientBackend")


def test_lives_are_bounded_by_ten_years():
    """What never ends, and what ends after that, is kept for so long; what is over is not kept."""
    assert seconds_of(None) == seconds_of(1e12)
    assert seconds_of(0) == seconds_of(-5) == 0
    assert not MISSING
    assert repr(MISSING) == "MISSING"


# ---------------------------------------------------------------------------------------------------------- cachelib


def test_a_server_that_is_away_is_an_empty_cachelib_cache():
    """Each method answers, and what stores says that nothing was stored."""
    cache = ResilientCache(AWAY, secret=SECRET, key_prefix=lambda: "p:")
    for _ in range(4):
        cache.set("k", 1)  # until the breaker knows it
    assert (cache.set("k", 1), cache.set_many({"a": 1}), cache.add("k", 1)) == (False, [], False)
    assert (cache.get("k"), cache.get_many("k", "a"), cache.has("k"), cache.inc("k")) == (
        None,
        [None, None],
        False,
        None,
    )
    assert (cache.delete("k"), cache.delete_many("k"), cache.clear()) == (False, ["k"], True)
    cache.close()


def test_values_on_a_server_are_signed():
    """Without a secret it is refused, unless no value can execute anything."""
    with pytest.raises(ConfigurationError, match="signed"):
        ResilientCache(AWAY)
    ResilientCache(AWAY, codec="safe").close()


@pytest.mark.parametrize("option", ["host", "password", "db", "PASSWORD"])
def test_an_address_in_parts_is_told_what_to_write(option):
    """As cachelib's own cache takes it."""
    with pytest.raises(
        ConfigurationError, match=rf"no option is called '{option}' here; the address is one text: redis:"
    ):
        ResilientCache(secret=SECRET, **{option: "x"})
    with pytest.raises(ConfigurationError, match="there are: codec, compress"):
        ResilientCache(secret=SECRET, nonsense=1)


def test_an_error_of_pickle_goes_through_as_it_is():
    """As cachelib promises."""

    class Unwilling:
        def __reduce__(self):
            raise pickle.PicklingError("not me")

    with pytest.raises(pickle.PicklingError, match="not me"):
        ResilientCache().set("k", Unwilling())


# ------------------------------------------------------------------------------------------------------ Flask-Caching


@pytest.mark.parametrize("part", ["CACHE_REDIS_HOST", "CACHE_REDIS_SENTINELS", "CACHE_REDIS_CLUSTER"])
def test_a_server_named_in_parts_is_not_taken_for_none(part):
    """As Flask-Caching's own backends take it: unheard, each process would keep its own values."""
    app = Flask("shop")
    app.config.update(CACHE_TYPE="resilient.contrib.flask_caching.ResilientCache", **{part: "10.0.0.5"})
    with pytest.raises(ConfigurationError, match=rf"{part} is set, .*; write CACHE_REDIS_URL"):
        FlaskCaching(app)


def test_flask_caching_finds_it_by_its_name():
    """Signed with the application's secret; prefix, size and life come from its configuration."""
    app = Flask("shop")
    app.secret_key = SECRET
    app.config.update(
        CACHE_TYPE="resilient.contrib.flask_caching.ResilientCache",
        CACHE_KEY_PREFIX="shop:",
        CACHE_DEFAULT_TIMEOUT=0,
        CACHE_THRESHOLD=50,
        CACHE_OPTIONS={"namespace": "pages"},
    )
    cache = FlaskCaching(app)
    with app.app_context():
        cache.set("k", {1: "v"})
        assert cache.get("k") == {1: "v"}
        assert cache.cache.cache.namespace == "pages"
        assert cache.cache.cache.get("shop:k") == {1: "v"}
    app.config["CACHE_REDIS_URL"] = AWAY
    FlaskCaching(app).cache.close()
    app.secret_key = None
    with pytest.raises(ConfigurationError, match="signed"):
        FlaskCaching(app)


# ------------------------------------------------------------------------------------------------------------ dogpile


def test_a_region_goes_on_while_its_server_is_away():
    """Each process loads for itself, one of its threads at a time, and nothing raises."""
    region = make_region().configure("resilient", expiration_time=60, arguments={"url": AWAY, "secret": SECRET})
    running, most = [], []

    def load():
        running.append(1)
        most.append(len(running))
        time.sleep(0.001)
        running.pop()
        return "v"

    threads = [threading.Thread(target=region.get_or_create, args=("k", load)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert set(most) == {1}
    assert region.get("k") is NO_VALUE
    assert not region.key_is_locked("k")
    region.backend.cache.close()  # or its thread would try to reach the server as long as other tests run


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_lock_that_a_thread_of_the_parent_holds_is_free_in_a_child():
    """Its holder does not exist there, so that nobody would give it back; the server's part is for both."""
    backend = ResilientBackend({"url": AWAY, "secret": SECRET})
    held, done = threading.Event(), threading.Event()

    def hold():
        mutex = backend.get_mutex("k")
        mutex.acquire()
        held.set()
        done.wait(20)
        mutex.release()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(20)
        assert not backend.get_mutex("k").acquire(wait=False)
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if backend.get_mutex("k").acquire(wait=False) else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        done.set()
        holder.join()


def test_bytes_with_another_signature_are_never_given_to_a_region():
    """It would unpickle them."""
    ours, theirs = ResilientBackend({"secret": SECRET}), ResilientBackend({"secret": "another secret here"})
    theirs.set_serialized("k", b"harm")
    with ours.cache.use(theirs.cache):
        assert ours.get_serialized("k") is NO_VALUE
        ours.set_serialized("k", b"good")
        assert ours.get_serialized("k") == b"good"


def test_a_region_on_a_server_needs_a_secret():
    """Its values are pickle where nothing else is said."""
    with pytest.raises(ConfigurationError, match="signed"):
        ResilientBackend({"url": AWAY})


@pytest.mark.parametrize(
    ("argument", "instead"),
    [("host", "url="), ("connection_pool", "url="), ("redis_expiration_time", "expiration_time=")],
)
def test_arguments_of_dogpiles_own_backend_are_told_what_to_write(argument, instead):
    """Unheard, each process would keep its own values, or the server for ever; others' arguments are of no concern."""
    with pytest.raises(ConfigurationError, match=f"'{argument}' is no argument of this backend; write {instead}"):
        make_region().configure("resilient", arguments={argument: "x"})
    make_region().configure("resilient", arguments={"filename": "x"})


def test_values_go_by_themselves_where_a_life_is_named():
    """Without it they stay, and the region's own time decides."""
    clock = FakeClock()
    backend = ResilientBackend({"expiration_time": 60})
    backend._values.cache = Cache(clock=clock, jitter=0.0)
    backend.set_serialized_multi({"a": b"1", "b": b"2"})
    clock.advance(59)
    assert backend.get_serialized_multi(["a", "x", "b"]) == [b"1", NO_VALUE, b"2"]
    clock.advance(1)
    assert backend.get_serialized("a") is NO_VALUE
