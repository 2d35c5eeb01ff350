"""Health behind a real balancer: HAProxy, two instances on gunicorn or uvicorn, a real database and a real Redis.

HAProxy asks every 0.5 s, takes an instance out after two failed answers and in after two good ones. Users send 15
requests a second meanwhile (8 below full size). `make balancer` runs this at full size and writes the table of the page
about balancers.

Each fault is made once, for all rules of shared faults: the two instances answer for each rule on a path of its own,
and each rule has a balancer of its own that asks there. The rolling restarts have instances of their own; below full
size they go on beside the faults.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
import sqlalchemy as sa

from resilient.errors import DeadlineExceeded
from resilient.testing.servers import Gunicorn, HAProxy, MariaDbCluster, RedisServer, TcpProxy
from resilient.testing.servers.server import HOST, find_program, missing_modules, module_command

INTER, FALL, RISE = 0.5, 2, 2
OUT = FALL * INTER + 0.5
IN = RISE * INTER + 0.5
FULL = float(os.environ.get("RESILIENT_SCALE", "0.02")) >= 1
SLACK = 0.0 if FULL else 4.0  # seconds of grace on a busy machine
DELAY = 2.0 if FULL else 5.0  # seconds that a draining instance goes on serving
RATE = 50 if FULL else 20  # requests a second while all is restarted
READERS = 15 if FULL else 8  # requests a second while there are faults
CHECK_TIMEOUT = 2.0 if FULL else 15.0  # seconds: an answer that a busy machine gives late is an answer
PATIENCE = 5.0 if FULL else 20.0  # seconds that whoever asks waits for an answer
MODES = ("warn", "fail", "peers")

T = TypeVar("T")
Figures = Callable[..., None]

APP = """
import os
import sqlalchemy as sa
from flask import Flask
from resilient.flask import health_blueprint
from resilient.health import Health, Peers, checks

limits = {"connect_timeout": 1, "read_timeout": 1, "write_timeout": 1}
engine = sa.create_engine(os.environ["DB"], pool_size=8, max_overflow=0, pool_timeout=1, connect_args=limits)
app = Flask(__name__)
for mode in ("warn", "fail", "peers"):
    peers = Peers(os.environ["REDIS"], service=os.environ["SERVICE"]) if mode == "peers" else None
    health = Health(shared=mode, peers=peers)
    health.add("db", checks.sqlalchemy(engine), ttl=0.2)
    if mode == "peers":
        health.background(every=0.1)
    app.register_blueprint(health_blueprint(health, name=mode), url_prefix=f"/{mode}")

@app.get("/")
def index():
    return "hello"

@app.get("/rows")
def rows():
    with engine.connect() as connection:
        return str(connection.scalar(sa.text("SELECT 1")))
"""

ROLLING = """
import os
from flask import Flask
from resilient.flask import health_blueprint
from resilient.health import Health, checks
from resilient.web import asgi

health = Health()
health.add("db", checks.sqlalchemy(os.environ["DB"]), ttl=0.2)
health.add("warm", lambda: os.path.exists(os.environ["WARM"]), views=["startup"], ttl=0)
app = Flask(__name__)
app.register_blueprint(health_blueprint(health))

@app.get("/name")
def name():
    return os.environ["NAME"]

async def tell_name(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200 if scope["path"] == "/name" else 404, "headers": []})
        await send({"type": "http.response.body", "body": os.environ["NAME"].encode()})
        return
    assert (await receive())["type"] == "lifespan.startup"
    health.drain_on_sigterm(delay=DELAY)
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})

by_asgi = asgi.health(health, otherwise=tell_name)
"""

CONFIG = """
control_socket_disable = True
def post_worker_init(worker):
    from rolling import health
    health.drain_on_sigterm(delay=DELAY)
"""


class Uvicorn(Gunicorn):
    """An ASGI application under uvicorn, one process."""

    @classmethod
    def missing(cls) -> str | None:
        return "no uvicorn (install it)" if missing_modules(["uvicorn"], "") else None

    def _argv(self) -> list[str]:
        options = ["--host", HOST, "--port", str(self.port), "--lifespan", "on", "--no-access-log"]
        return [*module_command("uvicorn"), self._app, *options]


@pytest.fixture(autouse=True)
def _balancer() -> None:
    for server in (HAProxy, Gunicorn, Uvicorn):
        reason = server.missing()
        if reason is not None:
            if os.environ.get("CI", "").lower() in {"1", "true"}:
                pytest.fail(f"{reason} on this machine, and CI demands it", pytrace=False)
            pytest.skip(f"missing server: {reason}")


@dataclass
class Users:
    """Requests through the balancer at a steady rate, each on a connection of its own."""

    port: int
    path: str
    rate: float
    answers: list[tuple[float, int, bytes]] = field(default_factory=list)
    """When each began (monotonic), its status (0: no answer) and its body."""

    def __enter__(self) -> Self:
        self._end = threading.Event()
        self._threads = ThreadPoolExecutor(24)
        self._pacer = threading.Thread(target=self._pace)
        self._pacer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._pacer.join()
        self._threads.shutdown()

    def _pace(self) -> None:
        due = time.monotonic()
        while not self._end.is_set():
            self._threads.submit(self._ask)
            due += 1 / self.rate
            self._end.wait(max(0.0, due - time.monotonic()))

    def _ask(self) -> None:
        began, status, body = time.monotonic(), 0, b""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", self.path, headers={"Connection": "close"})
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        except OSError:
            status = 0
        finally:
            connection.close()
        self.answers.append((began, status, body))

    def failed(self, since: float = 0.0) -> list[tuple[float, int, bytes]]:
        """The requests that began then or later and were not answered well."""
        return [each for each in self.answers if each[0] >= since and each[1] != 200]


def seconds(values: list[float]) -> str:
    return " ".join(f"{each:.2f}" for each in values)


def together(*functions: Callable[[], T]) -> list[T]:
    """Call some functions at the same time, and wait for all."""
    with ThreadPoolExecutor(len(functions)) as threads:
        return [each.result() for each in [threads.submit(function) for function in functions]]


def waited(balancer: HAProxy, name: str, state: str, limit: float) -> tuple[float, float]:
    """How long a state took to come (for ever, if it did not), and when that was."""
    try:
        took = balancer.wait_state(name, state, limit)
    except DeadlineExceeded:
        took = float("inf")
    return took, time.monotonic()


def standing(balancer: HAProxy) -> dict[str, str]:
    """Which instances a balancer has ``UP`` and ``DOWN``, whatever they are on the way to (``UP 1/2``)."""
    return {name: state.split()[0] for name, state in balancer.states().items()}


# ------------------------------------------------------------------------------------------------------- the servers


@dataclass
class Pool:
    """Two instances, each with a way of its own to the database, and a balancer for each rule of shared faults."""

    instances: dict[str, Gunicorn]
    paths: dict[str, TcpProxy]
    balancers: dict[str, HAProxy]

    def settle(self) -> None:
        """All in, and asked often enough for peers to have heard of each other."""
        for path in self.paths.values():
            path.restore()
        for mode, balancer in self.balancers.items():
            for name, instance in self.instances.items():
                balancer.wait_state(name, "UP", 20)
                assert instance.get(f"/{mode}/readyz", timeout=PATIENCE)[0] == 200
        time.sleep(2 * INTER)

    def words(self, mode: str) -> set[tuple[int, bytes]]:
        """What the instances answer to a balancer."""
        return {each.get(f"/{mode}/readyz", timeout=PATIENCE) for each in self.instances.values()}


class Servers:
    """Starts what the tests need, once, side by side; and remembers what was seen of faults that were made once."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack, self._lock = folder, stack, threading.Lock()
        self._seen: dict[str, Any] = {}
        self.beside: dict[str, Future[Rolled]] = {}
        """The rolling restarts that go on beside the other tests, by server."""
        delay = str(DELAY)
        (folder / "balanced.py").write_text(APP)
        (folder / "rolling.py").write_text(ROLLING.replace("DELAY", delay))
        (folder / "conf.py").write_text(CONFIG.replace("DELAY", delay))

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What a function returned when it was called under this name for the first time."""
        if name not in self._seen:
            self._seen[name] = make()
        found: T = self._seen[name]
        return found

    def start(self, server: T) -> T:
        """Start a server that ends with the tests: killed, since nothing waits for how it ends."""
        server.start()  # type: ignore[attr-defined] # any of resilient.testing.servers
        with self._lock:
            self._stack.callback(server.kill)  # type: ignore[attr-defined] # the same
        return server

    def web(self, kind: type[Gunicorn], app: str, env: dict[str, str], arguments: list[str]) -> Gunicorn:
        """Start an instance."""
        env |= {"PYTHONPATH": str(Path(__file__).parents[2])}
        ready = "/warn/livez" if app.startswith("balanced") else "/livez"
        return self.start(kind(app, env=env, cwd=self._folder, threads=16, ready=ready, arguments=arguments))

    def pool(self, mariadb: MariaDbCluster, redis: RedisServer) -> Pool:
        """The instances that meet the faults."""
        return self.once("pool", lambda: self._pool(mariadb, redis))

    def _pool(self, mariadb: MariaDbCluster, redis: RedisServer) -> Pool:
        paths = {name: self._stack.enter_context(TcpProxy(mariadb.primary.port)) for name in "ab"}

        def instance(name: str) -> Gunicorn:
            url = sa.make_url(mariadb.primary.url).set(port=paths[name].port).render_as_string(hide_password=False)
            return self.web(Gunicorn, "balanced:app", {"DB": url, "REDIS": redis.url, "SERVICE": "shop"}, [])

        instances = dict(zip("ab", together(lambda: instance("a"), lambda: instance("b")), strict=True))
        ports = {name: each.port for name, each in instances.items()}
        options: dict[str, Any] = {"inter": INTER, "fall": FALL, "rise": RISE, "check_timeout": CHECK_TIMEOUT}
        balancers = {mode: self.start(HAProxy(ports, check=f"/{mode}/readyz", **options)) for mode in MODES}
        return Pool(instances, paths, balancers)

    def rolling(self, server: str, mariadb: MariaDbCluster, count: int) -> Rolled:
        """Restart the instances of a pool of their own, one after the other."""
        kind = {"gunicorn": Gunicorn, "uvicorn": Uvicorn}[server]
        app = "rolling:app" if server == "gunicorn" else "rolling:by_asgi"
        arguments = ["--config", str(self._folder / "conf.py"), "--graceful-timeout", "20"]
        arguments = arguments if server == "gunicorn" else []
        warm = {name: self._folder / f"warm-{server}-{name}" for name in "ab"}

        def instance(name: str) -> Gunicorn:
            warm[name].touch()
            env = {"DB": mariadb.primary.url, "NAME": name, "WARM": str(warm[name])}
            return self.web(kind, app, env, arguments)

        instances = dict(zip("ab", together(lambda: instance("a"), lambda: instance("b")), strict=True))
        ports = {name: each.port for name, each in instances.items()}
        balancer = self.start(HAProxy(ports, inter=INTER, fall=FALL, rise=RISE, check_timeout=CHECK_TIMEOUT))
        for name in instances:
            balancer.wait_state(name, "UP", 20)
        return roll(balancer, instances, warm, count)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        made = Servers(tmp_path_factory.mktemp("balanced"), stack)
        yield made
        for each in made.beside.values():  # they start servers, which are ended below
            with contextlib.suppress(Exception):
                each.result(120)


@pytest.fixture
def pool(request: pytest.FixtureRequest, mariadb: MariaDbCluster, redis_server: RedisServer, servers: Servers) -> Pool:
    """Two instances with a balancer for each rule."""
    begin_beside(request, servers, mariadb)
    return servers.pool(mariadb, redis_server)


def begin_beside(request: pytest.FixtureRequest, servers: Servers, mariadb: MariaDbCluster) -> None:
    """Begin with the rolling restarts that were chosen, beside the other tests; at full size each is on its own."""
    chosen = [item for item in request.session.items if item.name.startswith(ROLLING_TEST)]
    for server in {item.callspec.params["server"] for item in chosen if hasattr(item, "callspec")}:
        if not FULL and server not in servers.beside:
            future: Future[Rolled] = Future()
            servers.beside[server] = future
            threading.Thread(
                target=fulfil, args=(future, lambda name=server: servers.rolling(name, mariadb, 1))
            ).start()


def fulfil(future: Future[T], function: Callable[[], T]) -> None:
    """Let a future have what a function returns or raises."""
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
        future.set_exception(error)


# ------------------------------------------------------------------------------------------------- a path that is lost


@dataclass
class Lost:
    """What one rule made of a path that was lost, some times over."""

    outs: list[float] = field(default_factory=list)
    ins: list[float] = field(default_factory=list)
    errors: int = 0
    asked: int = 0
    errors_after: list[Any] = field(default_factory=list)
    """Failed requests once the instance was out, and once it was back."""
    during: list[dict[str, str]] = field(default_factory=list)
    words: list[tuple[int, bytes]] = field(default_factory=list)
    """What the instance without its path answered meanwhile."""


def lose_a_path(pool: Pool, times: int) -> dict[str, Lost]:
    pool.settle()
    found = {mode: Lost() for mode in MODES}
    going = ("fail", "peers")
    for _ in range(times):
        with ExitStack() as stack:
            users = {mode: stack.enter_context(Users(pool.balancers[mode].port, "/rows", READERS)) for mode in going}
            time.sleep(0.3)
            pool.paths["a"].cut()
            out = _wait_for(pool, going, "DOWN", OUT + 5)
            time.sleep(1.0)
            for mode, each in found.items():
                each.during.append(standing(pool.balancers[mode]))
                each.words.append(pool.instances["a"].get(f"/{mode}/readyz", timeout=PATIENCE))
            for mode, (took, at) in out.items():
                found[mode].outs.append(took)
                found[mode].errors += len(users[mode].failed())
                found[mode].asked += len(users[mode].answers)
                found[mode].errors_after += users[mode].failed(since=at)
            pool.paths["a"].restore()
            back = _wait_for(pool, going, "UP", IN + 5)
            time.sleep(0.5)
        for mode, (took, at) in back.items():
            found[mode].ins.append(took)
            found[mode].errors_after += users[mode].failed(since=at)
    return found


def _wait_for(pool: Pool, modes: tuple[str, ...], state: str, limit: float) -> dict[str, tuple[float, float]]:
    calls = [lambda mode=mode: waited(pool.balancers[mode], "a", state, limit) for mode in modes]
    return dict(zip(modes, together(*calls), strict=True))


@pytest.fixture
def lost(pool: Pool, servers: Servers, repeat: Callable[[int], int]) -> dict[str, Lost]:
    """What became of instances that lost their path to the database, by rule."""
    return servers.once("lost", lambda: lose_a_path(pool, repeat(5)))


@pytest.mark.parametrize("mode", ["fail", "peers"])
def test_an_instance_that_loses_its_path_to_the_database_is_taken_out_and_back(
    lost: dict[str, Lost], mode: str, figures: Figures
):
    """Out and in within the balancer's thresholds and half a second; no user sees an error once it is out."""
    found = lost[mode]
    figures(
        "balancer",
        scenario="one instance loses its path to the database",
        shared=mode,
        out=f"{seconds(found.outs)} s (limit {OUT:g})",
        back=f"{seconds(found.ins)} s (limit {IN:g})",
        users_met=f"{found.errors} errors in {found.asked} requests until it was out, 0 after",
    )
    assert max(found.outs) <= OUT + SLACK
    assert max(found.ins) <= IN + SLACK
    assert found.errors_after == []
    assert all(states == {"a": "DOWN", "b": "UP"} for states in found.during)


def test_by_default_an_instance_that_loses_its_path_stays_in_with_a_warning(lost: dict[str, Lost], figures: Figures):
    """One instance alone cannot tell its own path from an outage: warn never takes out."""
    found = lost["warn"]
    assert set(found.words) == {(200, b"warn\n")}
    assert all(states == {"a": "UP", "b": "UP"} for states in found.during)
    figures(
        "balancer",
        scenario="one instance loses its path to the database",
        shared="warn",
        out="never",
        back="-",
        users_met="the application's own errors from that instance; pages without the database are served",
    )


# ------------------------------------------------------------------------------------------------------ a shared outage


OUTAGES = {"stop": "the database stops for all", "freeze": "the database freezes for all"}


@dataclass
class Outage:
    """What the rules made of an outage of the database."""

    out: float
    back: float
    probes: list[tuple[int, float, int]]
    """Under the strict rule: the status of readiness, how long it took, and the status of liveness."""
    during: dict[str, dict[str, str]]
    after: dict[str, dict[str, str]]
    words: dict[str, set[tuple[int, bytes]]]
    users: dict[str, Users]


def outage(pool: Pool, mariadb: MariaDbCluster, how: str) -> Outage:
    """Take the database away until the strict rule has emptied its pool, and bring it back until that is full again."""
    pool.settle()
    strict = pool.balancers["fail"]
    with ExitStack() as stack:
        users = {mode: stack.enter_context(Users(pool.balancers[mode].port, "/", READERS)) for mode in MODES}
        time.sleep(0.3)
        mariadb.primary.stop() if how == "stop" else mariadb.primary.freeze()
        began = time.monotonic()
        gone = together(*(lambda name=name: waited(strict, name, "DOWN", 6 + SLACK) for name in "ab"))
        probes = []
        for each in pool.instances.values():
            asked = time.monotonic()
            status = each.get("/fail/readyz", timeout=PATIENCE)[0]
            probes.append((status, time.monotonic() - asked, each.get("/fail/livez", timeout=PATIENCE)[0]))
        _until(began + (FALL + 3) * INTER if FULL else time.monotonic() + INTER)
        during = {mode: standing(pool.balancers[mode]) for mode in MODES}
        words = {mode: pool.words(mode) for mode in MODES}
        mariadb.primary.start() if how == "stop" else mariadb.primary.thaw()
        began_again = time.monotonic()
        back = together(*(lambda name=name: waited(strict, name, "UP", 10 + SLACK) for name in "ab"))
        _until(began_again + (RISE + 2) * INTER if FULL else time.monotonic() + INTER)
        after = {mode: standing(pool.balancers[mode]) for mode in MODES}
    out, again = max(at for _, at in gone) - began, max(at for _, at in back) - began_again
    return Outage(out, again, probes, during, after, words, users)


def _until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


@pytest.fixture
def outages(pool: Pool, mariadb: MariaDbCluster, servers: Servers) -> Callable[[str], Outage]:
    """A function that tells what became of the pools when the database stopped, or froze."""
    return lambda how: servers.once(how, lambda: outage(pool, mariadb, how))


@pytest.mark.parametrize("mode", ["warn", "peers"])
@pytest.mark.parametrize("how", ["stop", "freeze"])
def test_an_outage_of_the_database_empties_no_pool(
    outages: Callable[[str], Outage], mode: str, how: str, figures: Figures
):
    """Both stay in, and the balancer never answers 503 of its own: pages that need no database are served."""
    found = outages(how)
    assert found.during[mode] == {"a": "UP", "b": "UP"}
    assert found.after[mode] == {"a": "UP", "b": "UP"}
    assert found.words[mode] == {(200, b"warn\n")}
    users = found.users[mode]
    figures(
        "balancer",
        scenario=OUTAGES[how],
        shared=mode,
        out="never",
        back="-",
        users_met=f"{len(users.failed())} errors in {len(users.answers)} requests",
    )
    assert users.failed() == []


@pytest.mark.parametrize("how", ["stop", "freeze"])
def test_the_strict_rule_takes_all_out_in_an_outage_and_back_after_it(
    outages: Callable[[str], Outage], how: str, figures: Figures
):
    """The behaviour that ``shared="fail"`` asks for: both out, the balancer's 503 for all, both back by themselves."""
    found, users = outages(how), outages(how).users["fail"]
    figures(
        "balancer",
        scenario=OUTAGES[how],
        shared="fail",
        out=f"both, {found.out:.2f} s",
        back=f"both, {found.back:.2f} s",
        users_met=f"{len(users.failed())} times the balancer's 503 in {len(users.answers)} requests",
    )
    assert {(ready, live) for ready, _, live in found.probes} == {(503, 200)}
    assert max(took for _, took, _ in found.probes) < 1.0 + SLACK
    assert found.during["fail"] == {"a": "DOWN", "b": "DOWN"}
    assert found.after["fail"] == {"a": "UP", "b": "UP"}
    assert {status for _, status, _ in users.failed()} == {503}
    assert found.out <= OUT + 2 * 0.5 + SLACK  # of a frozen server each failing answer takes the check's half a second
    assert found.back <= IN + 0.5 + SLACK


def test_with_peers_and_no_redis_nobody_goes_out(pool: Pool, redis_server: RedisServer):
    """No word from peers proves nothing: a lost path only warns, while the strict rule has long taken it out."""
    pool.settle()
    redis_server.stop()
    pool.paths["a"].cut()
    try:
        pool.balancers["fail"].wait_state("a", "DOWN", OUT + 5)
        time.sleep((FALL + 2) * INTER - OUT if FULL else INTER)
        assert standing(pool.balancers["peers"]) == {"a": "UP", "b": "UP"}
        assert pool.instances["a"].get("/peers/readyz", timeout=PATIENCE) == (200, b"warn\n")
    finally:
        pool.paths["a"].restore()


# ---------------------------------------------------------------------------------------------------- going and coming


@dataclass
class Rolled:
    """What a rolling restart was like."""

    users: Users
    drained: list[float] = field(default_factory=list)
    """Seconds from the signal until readiness was withdrawn."""
    outs: list[float] = field(default_factory=list)
    answers: list[tuple[str, int]] = field(default_factory=list)
    """What instances answered while they drained, and while they warmed up: 200 for liveness, 503 for readiness."""
    ends: list[int] = field(default_factory=list)


def roll(balancer: HAProxy, instances: dict[str, Gunicorn], warm: dict[str, Path], count: int) -> Rolled:
    """With a balancer that repeats nothing: each instance drains, ends, starts, warms up and comes back."""
    found = Rolled(Users(balancer.port, "/name", RATE))
    with found.users:
        time.sleep(0.5)
        for name, instance in list(instances.items()) * count:
            warm[name].unlink()
            os.kill(instance.pid, signal.SIGTERM)  # as a supervisor does: to the master alone
            began = time.monotonic()
            while instance.get("/readyz", timeout=PATIENCE)[0] != 503:
                assert time.monotonic() - began < 2.0 + SLACK, "readiness was not withdrawn"
            found.drained.append(time.monotonic() - began)
            found.answers.append(("draining", instance.get("/livez", timeout=PATIENCE)[0]))
            found.outs.append(balancer.wait_state(name, "DOWN", 4 + SLACK))
            found.ends.append(instance.wait(20))
            instance.restart()
            found.answers.append(("warming up", instance.get("/readyz", timeout=PATIENCE)[0]))
            found.answers.append(("up", instance.get("/livez", timeout=PATIENCE)[0]))
            warm[name].touch()
            balancer.wait_state(name, "UP", 10)
            time.sleep(0.5)
    return found


ROLLING_TEST = "test_a_rolling_restart_fails_no_request"


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_a_rolling_restart_fails_no_request(
    request: pytest.FixtureRequest,
    servers: Servers,
    mariadb: MariaDbCluster,
    server: str,
    repeat: Callable[[int], int],
    figures: Figures,
    limit: Callable[[float], float],
):
    """Told by SIGTERM, each instance goes on serving until the balancer has noticed, and comes back when it is warm."""
    begin_beside(request, servers, mariadb)
    beside = servers.beside.get(server)
    found = beside.result(120) if beside is not None else servers.rolling(server, mariadb, repeat(3))
    users = found.users
    withdrawn = f"readiness withdrawn after {statistics.median(found.drained) * 1000:.0f} ms"
    figures(
        "balancer",
        scenario=f"rolling restart at {RATE} requests a second ({server})",
        shared="warn",
        out=f"{withdrawn}, out after {seconds(found.outs)} s",
        back="each",
        users_met=f"{len(users.failed())} errors in {len(users.answers)} requests",
    )
    assert users.failed() == []
    assert {body for _, _, body in users.answers} == {b"a", b"b"}
    assert len(users.answers) > 200
    assert set(found.answers) == {("draining", 200), ("warming up", 503), ("up", 200)}
    assert set(found.ends) <= {0, -signal.SIGTERM}  # uvicorn ends by the signal once it has served what it had
    assert statistics.median(found.drained) < limit(0.1)


def test_the_configuration_in_the_docs_is_one_that_haproxy_takes(tmp_path: Path):
    """The page about balancers shows it to be copied."""
    page = (Path(__file__).parents[2] / "docs" / "balancers.md").read_text()
    config = tmp_path / "haproxy.cfg"
    config.write_text(page.partition("```haproxy\n")[2].partition("```")[0])
    command = [find_program("haproxy") or "haproxy", "-c", "-f", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
