"""What a probe meets: this library's health routes and those of others, each behind its usual server, in one run.

    python benchmarks/health.py [--hang 10] [--only NAME]

Each contender is mounted as its documentation says and asked over HTTP, one after the other: by a thread server
(gunicorn, 32 threads) where it is for WSGI, by uvicorn where it is for ASGI. Checks are blocking functions, as drivers
are; fastapi-healthchecks takes coroutines only and gets those. py-healthcheck remembers as long as ours does; all else
of a peer is as it is by default. What is asked of ours is a goal, beside each row; the others are measured with the
same questions. Where a goal is missed all is measured again, up to twice, and the best of each contender counts,
theirs as well as ours. A library that is not installed is left out (``pip install --group bench``). Exits with 1 where
one of our goals is missed then too.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import importlib.util
import itertools
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HANG = float(os.environ.get("HANG", "10"))
PATIENCE = 5.0  # seconds for which a client waits while others hang

# ------------------------------------------------------------------------------------------------- what is checked

HITS: dict[str, int] = {}
hanging = threading.Event()
DOWN = threading.Event()


def hit(name: str) -> int:
    HITS[name] = HITS.get(name, 0) + 1
    return HITS[name]


def slow() -> None:
    hit("slow")
    time.sleep(0.1)


def partner() -> None:
    hit("partner")
    if hanging.is_set():
        time.sleep(HANG)


def fine() -> None:
    hit("fine")


def flap() -> None:
    if hit("flap") % 3 == 0:
        raise ConnectionError("a packet was lost")


def leak() -> None:
    secret = Path(os.environ["SECRET"]).read_text()
    kind = [OSError, ValueError, RuntimeError, ConnectionRefusedError, TimeoutError][hit("leak") % 5]
    raise kind(f"Access denied for user '{secret}'@'10.0.0.7' (using password: {secret})")


def database() -> None:
    raise ConnectionRefusedError("the one that all instances use")


GROUPS: dict[str, list[Callable[[], None]]] = {
    "five": [slow] * 5,
    "one": [slow],
    "hung": [partner],
    "fine": [fine],
    "flap": [flap],
    "leak": [leak],
    "shared": [database],
}

# --------------------------------------------------------------------------------------------------- the contenders


def _told(path: str) -> str:
    """Routes that every application has, for the one who measures."""
    if path == "/hang":
        hanging.set()
    if path == "/hits":
        return json.dumps(HITS)
    return "pong"


def _registry(name: str) -> Any:
    from resilient.health import Health

    health = Health(details="always")
    for number, each in enumerate(GROUPS[name]):
        options: dict[str, Any] = {"ttl": 0} if name in {"five", "flap", "leak"} else {}
        if name == "flap":
            options |= {"fall": 2, "rise": 2}
        if name == "shared":
            options |= {"scope": "shared"}
        health.add(f"{each.__name__}{number}", each, **options)
    return health


def resilient_wsgi() -> Any:
    from flask import Flask

    from resilient.flask import health_blueprint

    app = Flask("bench")
    for name in GROUPS:
        app.register_blueprint(health_blueprint(_registry(name), name=name), url_prefix=f"/{name}")
    app.add_url_rule("/<word>", "word", lambda word: _told(f"/{word}"))
    return app


def resilient_asgi() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    from resilient.web import asgi

    async def word(request: Any) -> Any:
        return PlainTextResponse(_told(request.url.path))

    mounts = [Mount(f"/{name}", asgi.health(_registry(name))) for name in GROUPS]
    return Starlette(routes=[*mounts, Route("/{word}", word)])


def py_healthcheck() -> Any:
    from flask import Flask
    from healthcheck import HealthCheck

    app = Flask("bench")
    for name, given in GROUPS.items():
        lasting = 0 if name in {"five", "flap", "leak"} else 1  # as ours; by its default it remembers for 27 s
        health = HealthCheck(success_ttl=lasting, failed_ttl=lasting)
        for number, each in enumerate(given):

            def checker(each: Any = each) -> tuple[bool, str]:
                each()
                return True, "fine"

            checker.__name__ = f"{each.__name__}{number}"
            health.add_check(checker)
        app.add_url_rule(f"/{name}/health", name, view_func=health.run)
    app.add_url_rule("/<word>", "word", lambda word: _told(f"/{word}"))
    return app


def _django() -> None:
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path
    from health_check.base import HealthCheck
    from health_check.views import HealthCheckView

    def kind(function: Any, number: int) -> Any:
        body = {"run": lambda self: function(), "__repr__": lambda self: f"{function.__name__}{number}"}
        return type(f"{function.__name__}{number}", (HealthCheck,), body)

    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="x",
        ROOT_URLCONF="django_urls",
        INSTALLED_APPS=["health_check"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        LOGGING_CONFIG=None,
    )
    django.setup()
    urls = type(sys)("django_urls")
    urls.urlpatterns = [  # type: ignore[attr-defined] # made here, instead of a file
        *(
            path(f"{name}/health", HealthCheckView.as_view(checks=[kind(each, at) for at, each in enumerate(given)]))
            for name, given in GROUPS.items()
        ),
        path("<word>", lambda request, word: HttpResponse(_told(f"/{word}"))),
    ]
    sys.modules["django_urls"] = urls


def django_wsgi() -> Any:
    _django()
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def django_asgi() -> Any:
    _django()
    from django.core.asgi import get_asgi_application

    return get_asgi_application()


def fastapi() -> Any:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse
    from fastapi_healthchecks.api.router import HealthcheckRouter, Probe
    from fastapi_healthchecks.checks import Check, CheckResult

    class Coroutine(Check):
        def __init__(self, function: Any) -> None:
            self.function = function

        async def __call__(self) -> CheckResult:
            name = self.function.__name__
            if self.function is slow:
                hit("slow")
                await asyncio.sleep(0.1)
            elif self.function is partner:
                hit("partner")
                await asyncio.sleep(HANG if hanging.is_set() else 0)
            else:
                try:  # as its own checks do
                    self.function()
                except Exception as error:  # noqa: BLE001
                    return CheckResult(name=name, passed=False, details=str(error))
            return CheckResult(name=name, passed=True)

    app = FastAPI()
    probes = [Probe(name="health", checks=[Coroutine(each) for each in given]) for given in GROUPS.values()]
    for name, probe in zip(GROUPS, probes, strict=True):
        app.include_router(HealthcheckRouter(probe), prefix=f"/{name}")

    @app.get("/{word}")
    async def word(word: str) -> Any:
        return PlainTextResponse(_told(f"/{word}"))

    return app


@dataclass(frozen=True)
class Contender:
    name: str
    factory: str
    asgi: bool = False
    needs: str = "resilient"


CONTENDERS = (
    Contender("resilient, gunicorn", "resilient_wsgi"),
    Contender("resilient, uvicorn", "resilient_asgi", asgi=True, needs="starlette"),
    Contender("py-healthcheck, gunicorn", "py_healthcheck", needs="healthcheck"),
    Contender("django-health-check, gunicorn", "django_wsgi", needs="health_check"),
    Contender("django-health-check, uvicorn", "django_asgi", asgi=True, needs="health_check"),
    Contender("fastapi-healthchecks, uvicorn", "fastapi", asgi=True, needs="fastapi_healthchecks"),
)

# ------------------------------------------------------------------------------------------------------- the asking


class Web:
    """A running contender."""

    def __init__(self, port: int, secret: Path) -> None:
        self.port, self.secret = port, secret

    def get(self, path: str, timeout: float = HANG + 10) -> tuple[int, bytes, float]:
        """Status (0: none came), body and seconds."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Accept": "application/json", "Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read(), time.monotonic() - began
        except OSError:
            return 0, b"", time.monotonic() - began
        finally:
            connection.close()

    def probe(self, name: str, timeout: float = HANG + 10) -> tuple[int, bytes, float]:
        return self.get(f"/{name}/health", timeout)

    def hits(self, name: str) -> int:
        return int(json.loads(self.get("/hits")[1]).get(name, 0))


@contextmanager
def serving(contender: Contender, folder: Path) -> Iterator[Web]:
    from resilient.testing.servers.server import free_port

    port, secret = free_port(), folder / "secret"
    secret.write_text("nothing")
    target, here = f"health:{contender.factory}", Path(__file__).parent
    if contender.asgi:
        command = ["uvicorn", "--factory", target, "--port", str(port), "--log-level", "critical", "--no-access-log"]
    else:
        threads = ["--worker-class", "gthread", "--threads", "32", "--no-control-socket", "--log-level", "critical"]
        command = ["gunicorn", f"{target}()", "--bind", f"127.0.0.1:{port}", *threads]
    env = {**os.environ, "PYTHONPATH": f"{here}:{here.parent}", "SECRET": str(secret), "HANG": str(HANG)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", *command], cwd=here, env=env, stdout=log, stderr=log)
    web = Web(port, secret)
    try:
        end = time.monotonic() + 30
        while web.get("/ping", 1)[0] != 200:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{contender.name} did not start:\n{(folder / 'log').read_text()}")
            time.sleep(0.1)
        yield web
    finally:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def five_checks(web: Web) -> float:
    """Milliseconds for five checks of 100 ms. Their memory of a good answer, if they have one, is let lapse first."""
    first = web.probe("five")[2]
    again = [web.probe("five")[2] for _ in range(6)]
    lasting = [seconds for seconds in again if seconds > 0.09]  # what came from memory was not run
    return statistics.median([first, *lasting][-5:]) * 1000


def fifty_at_once(web: Web) -> tuple[int, float]:
    """Hits on the dependency, and the slowest answer in milliseconds."""
    before = web.hits("slow")
    with ThreadPoolExecutor(50) as threads:
        took = [seconds for _, _, seconds in threads.map(lambda _: web.probe("one"), range(50))]
    return web.hits("slow") - before, max(took) * 1000


def crowd(web: Web, seconds: float = 3.0) -> tuple[int, int]:
    """Probes that 20 clients had answered, and the hits they cost."""
    time.sleep(1.5)
    before, end = web.hits("fine"), time.monotonic() + seconds

    def client(_: int) -> int:
        count = 0
        while time.monotonic() < end:
            count += web.probe("fine")[0] > 0
        return count

    with ThreadPoolExecutor(20) as threads:
        answered = sum(threads.map(client, range(20)))
    return answered, web.hits("fine") - before


def leaks(web: Web, count: int) -> int:
    """In how many of so many failures a piece of the exception's text left the process."""
    found = 0
    for _ in range(count):
        secret = secrets.token_hex(random.randint(4, 16))
        web.secret.write_text(secret)
        status, body, _ = web.get("/leak/health")
        assert status >= 500, status
        found += secret.encode() in body or b"10.0.0.7" in body
    return found


def changes(web: Web) -> int:
    """How often a balancer sees another answer while one run of three fails."""
    seen = []
    for _ in range(12):
        seen.append(web.probe("flap")[0] == 200)
        time.sleep(0.02)
    return sum(before != after for before, after in itertools.pairwise(seen))


def hung(web: Web) -> dict[str, float]:
    """What happens while a dependency hangs."""
    web.probe("hung"), web.probe("fine")
    time.sleep(1.5)
    web.get("/hang")
    before = web.hits("partner")
    with ThreadPoolExecutor(50) as threads:
        first = threads.submit(web.probe, "hung")
        time.sleep(1.2)
        seconds = []
        while len(seconds) < 5 and float("inf") not in seconds:
            status, _, took = web.probe("hung", PATIENCE)
            seconds.append(took * 1000 if status else float("inf"))
        more = [threads.submit(web.probe, "hung", HANG) for _ in range(40)]
        time.sleep(0.4)
        other = [threads.submit(web.get, "/ping", PATIENCE) for _ in range(3)]
        healthy = web.probe("fine", PATIENCE)
        ordinary = statistics.median(each.result()[2] for each in other)
        found = {
            "next": statistics.median(seconds),
            "ordinary": ordinary * 1000 if ordinary < PATIENCE else float("inf"),
            "healthy": healthy[2] * 1000 if healthy[0] == 200 else float("inf"),
        }
        found["first"] = first.result()[2]
        for each in more:
            each.result()
    end = time.monotonic() + HANG
    while (answer := web.get("/hits", 2))[0] != 200 and time.monotonic() < end:
        time.sleep(0.2)
    found["starts"] = json.loads(answer[1])["partner"] - before if answer[0] == 200 else float("nan")
    return found


# ---------------------------------------------------------------------------------------------------- in one process


def ticks() -> dict[str, float]:
    """Microseconds of processor time for one report of one check that does nothing, in this process."""
    from resilient.health import Health

    def nothing() -> None:
        return

    kept, anew = Health(), Health()
    kept.add("it", nothing, ttl=3600)
    anew.add("it", nothing, ttl=0)
    found = {"resilient, the outcome is fresh": spent(kept.ready), "resilient, the check is run": spent(anew.ready)}
    try:
        from healthcheck import HealthCheck as Theirs
    except ImportError:
        return found
    for name, ttl in (("py-healthcheck, the outcome is fresh", 3600), ("py-healthcheck, the check is run", 0)):
        health = Theirs(success_ttl=ttl)
        health.add_check(lambda: (True, "fine"))
        found[name] = spent(health.run)
    try:
        from fastapi_healthchecks.api.router import HealthcheckRouter, Probe
        from fastapi_healthchecks.checks import Check, CheckResult
    except ImportError:
        return found

    class Nothing(Check):
        async def __call__(self) -> CheckResult:
            return CheckResult(name="it", passed=True)

    probe = Probe(name="health", checks=[Nothing()])
    router = HealthcheckRouter(probe)

    async def many() -> float:
        begun = time.process_time()
        for _ in range(500):
            await router._handle_request(probe)  # noqa: SLF001 - what its route calls
        return (time.process_time() - begun) / 500 * 1e6

    found["fastapi-healthchecks, the check is run"] = min(asyncio.run(many()) for _ in range(5))
    return found


def spent(function: Callable[[], object]) -> float:
    """The least of some rounds; processor time of all threads."""
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        for _ in range(500):
            function()
        best = min(best, (time.process_time() - begun) / 500 * 1e6)
    return best


# ------------------------------------------------------------------------------------------------------------- table


@dataclass(frozen=True)
class Row:
    what: str
    goal: str
    key: str
    limit: float
    unit: str = ""

    def cell(self, value: float) -> str:
        if value == float("inf"):
            return f"> {PATIENCE:g} s, or failed"
        return (
            "-" if value != value else f"{value:,.2f}{self.unit}" if self.unit == " s" else f"{value:,.0f}{self.unit}"
        )


ROWS = (
    Row("5 checks of 100 ms", "≤ 115 ms", "five", 115, " ms"),
    Row(f"a dependency hangs for {HANG:g} s: the answer", "≤ 0.85 s", "first", 0.85, " s"),
    Row("the next probe while it hangs", "≤ 10 ms", "next", 10, " ms"),
    Row("the check is started, in more than 40 probes while it hangs", "once", "starts", 1),
    Row("an ordinary route while 40 probes hang", "< 50 ms", "ordinary", 50, " ms"),
    Row("a healthy group while 40 probes hang", "< 200 ms", "healthy", 200, " ms"),
    Row("50 concurrent probes of a check of 100 ms: hits", "1", "hits", 1),
    Row("20 clients for 3 s: hits", "≤ 4", "crowd", 4),
    Row("the same: probes answered", "-", "answered", float("inf")),
    Row("100 exceptions with secrets: texts that left", "0", "leaks", 0),
    Row("one run of three fails: answers that changed, in 12 probes", "0", "changes", 0),
    Row("a dependency that all share is down: status", "200", "shared", 200),
)


def measure(contender: Contender, folder: Path) -> dict[str, float]:
    """Everything about one contender. What hangs comes last, since some do not come back from it."""
    with serving(contender, folder) as web:
        found: dict[str, float] = {"five": five_checks(web)}
        found["hits"], found["slowest"] = fifty_at_once(web)
        found["answered"], found["crowd"] = crowd(web)
        found["leaks"], found["changes"] = leaks(web, 100), changes(web)
        found["shared"] = web.probe("shared")[0]
        return found | hung(web)


def better(best: dict[str, float], seen: dict[str, float]) -> None:
    """Keep the better of each figure."""
    for key, value in seen.items():
        choose = max if key == "answered" else min
        best[key] = choose(value, best.get(key, value))


def misses(results: dict[str, dict[str, float]]) -> list[str]:
    """Our goals that were missed."""
    return [
        f"{name}: {row.what}, {found[row.key]:.2f}"
        for name, found in results.items()
        if name.startswith("resilient")
        for row in ROWS
        if not found[row.key] <= row.limit
    ]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--hang", type=float, default=HANG)
    options.add_argument("--only", default="")
    chosen = options.parse_args()
    if chosen.hang != HANG:
        os.environ["HANG"] = str(chosen.hang)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    results: dict[str, dict[str, float]] = {}
    installed = [each for each in CONTENDERS if chosen.only in each.name and importlib.util.find_spec(each.needs)]
    for each in {each.name: each for each in CONTENDERS if importlib.util.find_spec(each.needs) is None}.values():
        print(f"# {each.name}: left out, {each.needs} is not installed")
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            for each in installed:
                better(results.setdefault(each.name, {}), measure(each, Path(folder)))
        missed = misses(results)
        if not missed:
            break
    print("\n| | goal | " + " | ".join(results) + " |\n|---|---:|" + "---:|" * len(results))
    for row in ROWS:
        cells = [row.cell(found[row.key]) for found in results.values()]
        print(f"| {row.what} | {row.goal} | " + " | ".join(cells) + " |")
    print("\n## in one process\n\n| a report of one check that does nothing | µs of processor time |\n|---|---:|")
    for name, cost in ticks().items():
        print(f"| {name} | {cost:,.1f} |")
    print("\n" + ("\n".join(f"MISSED {each}" for each in missed) or "all goals met"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
