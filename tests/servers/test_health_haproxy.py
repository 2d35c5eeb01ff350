"""Health behind a real balancer: HAProxy, two gunicorn instances, a real database and a real Redis.

HAProxy asks every 0.5 s, takes an instance out after two failed answers and in after two good ones. Users send 15
requests a second meanwhile. `make balancer` runs this at full size and writes the table of the page about balancers.
"""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
import sqlalchemy as sa

from resilient.testing.servers import Gunicorn, HAProxy, MariaDbCluster, RedisServer, TcpProxy
from resilient.testing.servers.cluster import MariaDbNode
from resilient.testing.servers.server import find_program

INTER, FALL, RISE = 0.5, 2, 2
OUT = FALL * INTER + 0.5
IN = RISE * INTER + 0.5
SLACK = 0.0 if float(os.environ.get("RESILIENT_SCALE", "0.02")) >= 1 else 1.5  # seconds of grace on a busy machine

Figures = Callable[..., None]

APP = """
import os
import sqlalchemy as sa
from flask import Flask
from resilient.flask import health_blueprint
from resilient.health import Health, Peers, checks

limits = {"connect_timeout": 1, "read_timeout": 1, "write_timeout": 1}
engine = sa.create_engine(os.environ["DB"], pool_size=4, max_overflow=0, pool_timeout=1, connect_args=limits)
mode = os.environ["MODE"]
peers = Peers(os.environ["REDIS"], service=os.environ["SERVICE"]) if mode == "peers" else None
health = Health(shared=mode, peers=peers)
health.add("db", checks.sqlalchemy(engine), ttl=0.2)
if mode == "peers":
    health.background(every=0.1)
if os.environ.get("WARM"):
    health.add("warm", lambda: os.path.exists(os.environ["WARM"]), views=["startup"], ttl=0)
app = Flask(__name__)
app.register_blueprint(health_blueprint(health))

@app.get("/")
def index():
    return "hello"

@app.get("/rows")
def rows():
    with engine.connect() as connection:
        return str(connection.scalar(sa.text("SELECT 1")))

@app.get("/name")
def name():
    return os.environ["NAME"]
"""

CONFIG = """
control_socket_disable = True
def post_worker_init(worker):
    from balanced import health
    health.drain_on_sigterm(delay=DELAY)
"""


@pytest.fixture(autouse=True)
def _balancer() -> None:
    for server in (HAProxy, Gunicorn):
        reason = server.missing()
        if reason is not None:
            if os.environ.get("CI", "").lower() in {"1", "true"}:
                pytest.fail(f"{reason} on this machine, and CI demands it", pytrace=False)
            pytest.skip(f"missing server: {reason}")


@dataclass
class Pool:
    """Two instances behind a balancer, each with a way of its own to the database."""

    balancer: HAProxy
    instances: dict[str, Gunicorn]
    paths: dict[str, TcpProxy]
    warm: dict[str, Path]
    """Files that say that an instance which drains has warmed up."""

    def settle(self) -> None:
        """Both in, and asked often enough for peers to have heard of each other."""
        for name in self.instances:
            self.balancer.wait_state(name, "UP", 10)
            assert self.instances[name].get("/readyz")[0] == 200
        time.sleep(2 * INTER)


class Pools:
    """Starts pools, and keeps them for the tests that follow: they all come back by themselves, as they should."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._made: dict[tuple[object, ...], Pool] = {}
        (folder / "balanced.py").write_text(APP)
        (folder / "conf.py").write_text(CONFIG.replace("DELAY", str(2.0 if SLACK == 0 else 3.0)))

    def get(self, mode: str, database: MariaDbNode, redis: RedisServer, *, drains: bool) -> Pool:
        key = (mode, drains, database.port, redis.port)
        if key not in self._made:
            self._made[key] = self._start(mode, database, redis, drains)
        self._made[key].settle()
        return self._made[key]

    def _start(self, mode: str, database: MariaDbNode, redis: RedisServer, drains: bool) -> Pool:
        paths = {name: self._stack.enter_context(TcpProxy(database.port)) for name in "ab"}
        instances = {}
        for name, path in paths.items():
            url = sa.make_url(database.url).set(port=path.port).render_as_string(hide_password=False)
            env = {"DB": url, "REDIS": redis.url, "MODE": mode, "SERVICE": "shop", "NAME": name}
            warm = self._folder / f"warm-{name}"
            warm.touch()
            env |= {"PYTHONPATH": str(Path(__file__).parents[2]), "WARM": str(warm) if drains else ""}
            made = Gunicorn(
                "balanced:app",
                env=env,
                cwd=self._folder,
                threads=8,
                ready="/livez",
                arguments=["--config", str(self._folder / "conf.py")] if drains else [],
            )
            instances[name] = self._stack.enter_context(made)
        ports = {name: each.port for name, each in instances.items()}
        balancer = self._stack.enter_context(HAProxy(ports, inter=INTER, fall=FALL, rise=RISE))
        return Pool(balancer, instances, paths, {name: self._folder / f"warm-{name}" for name in "ab"})


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pools]:
    with ExitStack() as stack:
        yield Pools(tmp_path_factory.mktemp("balanced"), stack)


@pytest.fixture
def pool(mariadb: MariaDbCluster, redis_server: RedisServer, pools: Pools) -> Callable[..., Pool]:
    """A function that starts a pool in one of the modes for shared faults."""
    return lambda mode, *, drains=False: pools.get(mode, mariadb.primary, redis_server, drains=drains)


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
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
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


# ------------------------------------------------------------------------------------------------- a path that is lost


@pytest.mark.parametrize("mode", ["fail", "peers"])
def test_an_instance_that_loses_its_path_to_the_database_is_taken_out_and_back(
    pool: Callable[..., Pool], mode: str, repeat: Callable[[int], int], figures: Figures
):
    """Out and in within the balancer's thresholds and half a second; no user sees an error once it is out."""
    found = pool(mode)
    outs, ins, errors, asked = [], [], [], []
    for _ in range(repeat(5)):
        with Users(found.balancer.port, "/rows", 15) as users:
            time.sleep(0.3)
            found.paths["a"].cut()
            outs.append(found.balancer.wait_state("a", "DOWN", OUT + 5))
            out_at = time.monotonic()
            time.sleep(1.0)
            assert found.balancer.states()["b"].startswith("UP")
            errors.append(len(users.failed()))
            asked.append(len(users.answers))
            assert users.failed(since=out_at) == []
            found.paths["a"].restore()
            ins.append(found.balancer.wait_state("a", "UP", IN + 5))
            back_at = time.monotonic()
            time.sleep(0.5)
        assert users.failed(since=back_at) == []
    figures(
        "balancer",
        scenario="one instance loses its path to the database",
        shared=mode,
        out=f"{seconds(outs)} s (limit {OUT:g})",
        back=f"{seconds(ins)} s (limit {IN:g})",
        users_met=f"{sum(errors)} errors in {sum(asked)} requests until it was out, 0 after",
    )
    assert max(outs) <= OUT + SLACK
    assert max(ins) <= IN + SLACK


def test_by_default_an_instance_that_loses_its_path_stays_in_with_a_warning(
    pool: Callable[..., Pool], figures: Figures
):
    """One instance alone cannot tell its own path from an outage: warn never takes out."""
    found = pool("warn")
    found.paths["a"].cut()
    try:
        time.sleep((FALL + 2) * INTER)
        assert found.instances["a"].get("/readyz") == (200, b"warn\n")
        assert found.balancer.states() == {"a": "UP", "b": "UP"}
    finally:
        found.paths["a"].restore()
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


BOTH = [("stop", "warn"), ("freeze", "peers"), ("stop", "peers"), ("freeze", "warn")]


@pytest.mark.parametrize(("how", "mode"), BOTH if SLACK == 0 else BOTH[:2])
def test_an_outage_of_the_database_empties_no_pool(
    pool: Callable[..., Pool], mariadb: MariaDbCluster, mode: str, how: str, figures: Figures
):
    """Both stay in, and the balancer never answers 503 of its own: pages that need no database are served."""
    found = pool(mode)
    with Users(found.balancer.port, "/", 15) as users:
        time.sleep(0.3)
        mariadb.primary.stop() if how == "stop" else mariadb.primary.freeze()
        time.sleep((FALL + 3) * INTER)
        during = found.balancer.states()
        words = {name: each.get("/readyz") for name, each in found.instances.items()}
        mariadb.primary.start() if how == "stop" else mariadb.primary.thaw()
        time.sleep((RISE + 2) * INTER)
        after = found.balancer.states()
    assert during == after == {"a": "UP", "b": "UP"}
    assert set(words.values()) == {(200, b"warn\n")}
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
    pool: Callable[..., Pool], mariadb: MariaDbCluster, how: str, figures: Figures
):
    """The behaviour that ``shared="fail"`` asks for: both out, the balancer's 503 for all, both back by themselves."""
    found = pool("fail")
    with Users(found.balancer.port, "/", 15) as users:
        mariadb.primary.stop() if how == "stop" else mariadb.primary.freeze()
        began = time.monotonic()
        for name in "ab":
            found.balancer.wait_state(name, "DOWN", 6)
        out = time.monotonic() - began
        for each in found.instances.values():
            asked = time.monotonic()
            assert each.get("/readyz")[0] == 503
            assert time.monotonic() - asked < 1.0 + SLACK
            assert each.get("/livez")[0] == 200
        time.sleep(0.5)
        mariadb.primary.start() if how == "stop" else mariadb.primary.thaw()
        began = time.monotonic()
        for name in "ab":
            found.balancer.wait_state(name, "UP", 10)
        back = time.monotonic() - began
    figures(
        "balancer",
        scenario=OUTAGES[how],
        shared="fail",
        out=f"both, {out:.2f} s",
        back=f"both, {back:.2f} s",
        users_met=f"{len(users.failed())} times the balancer's 503 in {len(users.answers)} requests",
    )
    assert {status for _, status, _ in users.failed()} == {503}
    assert out <= OUT + 2 * 0.5 + SLACK  # of a frozen server each failing answer takes the check's half a second
    assert back <= IN + 0.5 + SLACK


def test_with_peers_and_no_redis_nobody_goes_out(pool: Callable[..., Pool], redis_server: RedisServer):
    """No word from peers proves nothing: a lost path only warns."""
    found = pool("peers")
    redis_server.stop()
    found.paths["a"].cut()
    try:
        time.sleep((FALL + 2) * INTER)
        assert found.balancer.states() == {"a": "UP", "b": "UP"}
        assert found.instances["a"].get("/readyz") == (200, b"warn\n")
    finally:
        found.paths["a"].restore()


# ---------------------------------------------------------------------------------------------------- going and coming


def test_a_rolling_restart_fails_no_request(
    pool: Callable[..., Pool], repeat: Callable[[int], int], figures: Figures, limit: Callable[[float], float]
):
    """At 50 requests a second, with a balancer that repeats nothing: each instance starts, drains, ends, comes back."""
    found = pool("warn", drains=True)
    drained, outs = [], []
    with Users(found.balancer.port, "/name", 50) as users:
        time.sleep(0.5)
        for name, instance in list(found.instances.items()) * repeat(3):
            found.warm[name].unlink()
            os.kill(instance.pid, signal.SIGTERM)  # as a supervisor does: to the master alone
            began = time.monotonic()
            while instance.get("/readyz")[0] != 503:
                assert time.monotonic() - began < 2.0 + SLACK, "readiness was not withdrawn"
            drained.append(time.monotonic() - began)
            assert instance.get("/livez")[0] == 200
            outs.append(found.balancer.wait_state(name, "DOWN", 4))
            assert instance.wait(10) == 0
            instance.restart()
            assert instance.get("/readyz")[0] == 503  # it is still warming up, and says so
            assert instance.get("/livez")[0] == 200
            found.warm[name].touch()
            found.balancer.wait_state(name, "UP", 6)
            time.sleep(0.5)
    figures(
        "balancer",
        scenario="rolling restart at 50 requests a second",
        shared="warn",
        out=f"readiness withdrawn after {statistics.median(drained) * 1000:.0f} ms, out after {seconds(outs)} s",
        back="each",
        users_met=f"{len(users.failed())} errors in {len(users.answers)} requests",
    )
    assert users.failed() == []
    assert {body for _, _, body in users.answers} == {b"a", b"b"}
    assert len(users.answers) > 200
    assert statistics.median(drained) < limit(0.1)


def test_the_configuration_in_the_docs_is_one_that_haproxy_takes(tmp_path: Path):
    """The page about balancers shows it to be copied."""
    page = (Path(__file__).parents[2] / "docs" / "balancers.md").read_text()
    config = tmp_path / "haproxy.cfg"
    config.write_text(page.partition("```haproxy\n")[2].partition("```")[0])
    command = [find_program("haproxy") or "haproxy", "-c", "-f", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
