"""Sessions on real servers: what the scripts do, how they end, outages, and two sites behind a balancer."""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.cookies import SimpleCookie
from pathlib import Path

import pytest

from resilient.errors import CircuitOpen, Unavailable
from resilient.testing.servers import Gunicorn, HAProxy, RedisServer
from resilient.web._session_stores import RedisSessions
from resilient.web._sessions import Gone, Keeper, _key

SECRET = "a secret for tests"
PATIENT = {"connect_timeout": 10.0, "timeout": 10.0}  # a busy machine answers late, and that is not what is tested


@pytest.fixture(params=["redis_server", "redis_cluster", "valkey_server"])
def store(request: pytest.FixtureRequest) -> Iterator[RedisSessions]:
    server = request.getfixturevalue(request.param)
    made = RedisSessions(server.url, namespace="shop", **PATIENT)
    yield made
    made.close()


@pytest.fixture
def keeper(store: RedisSessions) -> Keeper:
    return Keeper(store, life=60, secret=SECRET)


def test_a_session_is_made_read_changed_and_ended(keeper: Keeper) -> None:
    """On one server and in a Cluster; its end is the server's, and a change does not move it."""
    made = keeper.create({"user_id": 17, "cart": [1], "gone": 1})
    read = keeper.load(made.id)
    assert read is not None
    assert read.data == {"user_id": 17, "cart": [1], "gone": 1}
    assert 50 < read.left <= 60
    keeper.prolong(read, 1000)
    keeper.save(read, {"user_id": 17, "cart": [1, 2]})
    again = keeper.load(made.id)
    assert again is not None
    assert again.data == {"user_id": 17, "cart": [1, 2]}
    assert 900 < again.left <= 1000
    assert keeper.end(made.id)
    assert not keeper.end(made.id)
    assert keeper.load(made.id) is None
    with pytest.raises(Gone):
        keeper.save(again, {"user_id": 17, "late": 1})
    assert keeper.load(made.id) is None


def test_what_others_write_while_an_id_is_renewed_goes_along(keeper: Keeper) -> None:
    """The old session is read and ended in one step; what is written to it later is refused."""
    made = keeper.create({"cart": [1]})
    read, other, late = (keeper.load(made.id) for _ in range(3))
    assert read is not None
    assert other is not None
    assert late is not None
    keeper.save(other, {"cart": [1, 2], "seen": True})
    after = keeper.save(read, {**read.data, "user_id": 17})
    found = keeper.load(after.id)
    assert found is not None
    assert found.data == {"cart": [1, 2], "seen": True, "user_id": 17}
    with pytest.raises(Gone):
        keeper.save(late, {"cart": []})


def test_every_key_of_a_session_has_an_end(keeper: Keeper, store: RedisSessions) -> None:
    """So has the list of its owner's, and a later one."""
    made = keeper.create({"user_id": 17})
    ends = [
        store._channel.call("PTTL", key)
        for key in (store._key(_key(made.id)), *(store._list(each) for each in [_key("17")]))
    ]
    assert 50_000 < ends[0] <= 60_000
    assert 110_000 < ends[1] <= 120_000


def test_a_session_ends_by_the_servers_clock(store: RedisSessions) -> None:
    """And one that slides lives on with each use."""
    fixed = Keeper(store, life=1.0, secret=SECRET)
    slides = Keeper(store, life=30.0, sliding=True, secret=SECRET)
    one, other = fixed.create({"a": 1}), slides.create({"a": 1})
    store.change(_key(other.id), {}, [], 5.0)
    found = slides.load(other.id)
    assert found is not None
    record = store.load(_key(other.id), None)
    assert record is not None
    assert record.left > 20
    deadline = time.monotonic() + 20
    while fixed.load(one.id) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_all_sessions_of_an_owner_end_while_others_are_begun(keeper: Keeper, store: RedisSessions) -> None:
    """Of what was there before the call nothing is left after it; the list holds no more than what lives."""
    stop = threading.Event()
    begun = [keeper.create({"user_id": 17}).id for _ in range(40)]  # more than a list is searched from

    def log_in() -> None:
        while not stop.is_set():
            keeper.create({"user_id": 17})

    thread = threading.Thread(target=log_in)
    thread.start()
    try:
        assert keeper.log_out_everywhere(17) >= len(begun)
    finally:
        stop.set()
        thread.join()
    assert [keeper.load(each) for each in begun] == [None] * len(begun)
    keeper.log_out_everywhere(17)
    assert store.members(_key("17")) == []


def test_concurrent_requests_lose_no_field(keeper: Keeper) -> None:
    """Eight at a time, each with a field of its own."""
    made = keeper.create({"user_id": 17})
    barrier = threading.Barrier(8)

    def request(number: int) -> None:
        for turn in range(5):
            read = keeper.load(made.id)
            assert read is not None
            barrier.wait(20)
            keeper.save(read, {**read.data, f"f{number}": turn})

    threads = [threading.Thread(target=request, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    found = keeper.load(made.id)
    assert found is not None
    assert found.data == {"user_id": 17} | {f"f{number}": 4 for number in range(8)}


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_dead_or_frozen_server_is_unavailable_and_soon(redis_server: RedisServer, fault: str) -> None:
    """Never "no such session"; after a few calls the server is not asked any more; then they are all there again."""
    patient = RedisSessions(redis_server.url, namespace="shop", **PATIENT)
    made = Keeper(patient, life=60, secret=SECRET).create({"user_id": 17})
    patient.close()
    store = RedisSessions(redis_server.url, namespace="shop", connect_timeout=1.0, timeout=1.0)
    keeper = Keeper(store, life=60, secret=SECRET)
    if fault == "kill":
        redis_server.kill()
    else:
        redis_server.freeze()
    try:
        for _ in range(4):
            with pytest.raises(Unavailable, match="nobody can be told"):
                keeper.load(made.id)
        for _ in range(10):  # now and then one is let through to ask, more often where the machine is slow
            with pytest.raises(Unavailable) as caught:
                keeper.create({"user_id": 17})
            assert caught.value.retry_after
            if isinstance(caught.value.__cause__, CircuitOpen):
                break
        else:
            pytest.fail("each call waits for a server that is away")
    finally:
        if fault == "kill":
            redis_server.restart()
        else:
            redis_server.thaw()
    deadline = time.monotonic() + 20
    while True:
        try:
            found = keeper.load(made.id)
            break
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert (found is None) is (fault == "kill")  # this server keeps nothing on a disk
    store.close()


# -------------------------------------------------------------------------------------------------- behind a balancer

FLASK = """
import os
from flask import Flask, session
from resilient.flask import Resilient, Sessions

app = Flask(__name__)
app.secret_key = "a secret for tests"
Resilient(app, sessions=Sessions(os.environ["REDIS"], namespace="flask", connect_timeout=1.0, timeout=1.0))

@app.get("/readyz")
def readyz():
    return "pass"

@app.get("/login")
def login():
    session["user_id"] = 17
    return "in"

@app.get("/mine")
def mine():
    return (f"{session['user_id']} {os.environ['NAME']}", 200) if "user_id" in session else ("who?", 401)
"""

DJANGO = """
import os
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="a secret for tests", INSTALLED_APPS=["resilient.django"],
    MIDDLEWARE=["resilient.django.middleware.SessionMiddleware"], SESSION_ENGINE="resilient.django.sessions",
    RESILIENT={"SESSIONS": {"LOCATION": os.environ["REDIS"], "CONNECT_TIMEOUT": 1.0, "TIMEOUT": 1.0}},
)
app = get_wsgi_application()

def login(request):
    request.session.cycle_key()
    request.session["_auth_user_id"] = "17"
    return HttpResponse("in")

def mine(request):
    user = request.session.get("_auth_user_id")
    return HttpResponse(f"{user} {os.environ['NAME']}") if user else HttpResponse("who?", status=401)

urlpatterns = [path("readyz", lambda request: HttpResponse("pass")), path("login", login), path("mine", mine)]
"""


class Browser:
    """Keeps its cookies, and makes a connection for each page, so that the balancer chooses anew."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cookies = SimpleCookie()

    def get(self, path: str) -> tuple[int, str]:
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            told = "; ".join(f"{each.key}={each.value}" for each in self._cookies.values())
            link.request("GET", path, headers={"Cookie": told} if told else {})
            answer = link.getresponse()
            for name, value in answer.getheaders():
                if name.lower() == "set-cookie":
                    self._cookies.load(value)
            return answer.status, answer.read().decode()
        finally:
            link.close()


@pytest.mark.parametrize(("kind", "text"), [("flask", FLASK), ("django", DJANGO)], ids=["flask", "django"])
def test_two_instances_behind_a_balancer_are_one_site(
    kind: str, text: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Log in once: known at both, and at the other when one is killed; with Redis away 503, and never "logged in"."""
    for needed in (HAProxy, Gunicorn):
        if (missing := needed.missing()) is not None:
            if os.environ.get("CI", "").lower() in {"1", "true"}:
                pytest.fail(f"{missing}, and CI demands it", pytrace=False)
            pytest.skip(f"missing server: {missing}")
    (tmp_path / f"{kind}_site.py").write_text(text)
    with ExitStack() as stack:
        instances = {}
        for name in "ab":
            env = {"REDIS": redis_server.url, "NAME": name, "PYTHONPATH": str(Path(__file__).parents[2])}
            made = Gunicorn(f"{kind}_site:app", env=env, cwd=tmp_path, ready="/readyz")
            instances[name] = stack.enter_context(made)
        ports = {name: each.port for name, each in instances.items()}
        balancer = stack.enter_context(HAProxy(ports, retries=2))
        for name in instances:
            balancer.wait_state(name, "UP", 20)
        browser, stranger = Browser(balancer.port), Browser(balancer.port)
        assert browser.get("/mine")[0] == 401
        assert browser.get("/login") == (200, "in")
        answers = [browser.get("/mine") for _ in range(50)]
        assert {status for status, _ in answers} == {200}
        assert {body for _, body in answers} == {"17 a", "17 b"}
        instances["a"].kill()
        balancer.wait_state("a", "DOWN", 20)
        assert {browser.get("/mine") for _ in range(10)} == {(200, "17 b")}
        assert stranger.get("/mine")[0] == 401
        redis_server.freeze()
        try:
            assert {browser.get("/mine")[0] for _ in range(5)} == {503}
            assert {stranger.get("/login")[0] for _ in range(5)} == {503}
            assert browser.get("/readyz")[0] == 200
        finally:
            redis_server.thaw()
        deadline = time.monotonic() + 20
        while browser.get("/mine") != (200, "17 b"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
