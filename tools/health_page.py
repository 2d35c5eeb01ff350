"""Take the picture of the health page that its docs show, with a headless Chromium.

    python tools/health_page.py                  write docs/assets/health-page.png
    python tools/health_page.py --out FILE       write it elsewhere
    python tools/health_page.py --width 420      as on a telephone

The page is served over HTTP with its own headers, by checks whose last ten minutes are played on a clock of their own.
It fails where the browser says anything: a style that the content policy refuses, or something that is missing.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from resilient.health import Check, Health, Result
from resilient.testing import FakeClock
from resilient.testing.servers.server import find_program
from resilient.web import wsgi

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "assets" / "health-page.png"
BEGIN = 1_795_250_000.0  # when the ten minutes begin, in seconds since 1970
STEPS, STEP = 60, 10.0


def played() -> Health:
    """A `Health` after ten minutes in which this and that went wrong."""
    clock = FakeClock(wall=BEGIN)
    now = clock.monotonic()

    def minutes() -> float:
        return (clock.monotonic() - now) / 60

    def check(milliseconds: float, found: Callable[[float], Result | None]) -> Callable[[], Result | None]:
        def run() -> Result | None:
            clock.advance(milliseconds / 1000)
            return found(minutes())

        return run

    health = Health(details="always", page=True, clock=clock)
    orders = check(2.4, lambda at: Result.fail("timeout") if 8.1 < at < 8.4 else Result.ok(read_only=0))
    cache = check(1.3, lambda at: Result.fail("unavailable") if at > 5.2 else Result.ok())
    jobs = check(
        9.8, lambda at: Result.warn("dead_letters", depth=1210, dead_letters=3) if at > 3 else Result.ok(depth=4)
    )
    billing = check(0.2, lambda at: Result.unknown("unprobed") if at < 0.5 else None)
    disk = check(0.3, lambda _: Result.ok(free=0.2895, files=0.9495))
    health.add("orders-db", Check(orders, "datastore", "shared"), ttl=0, fall=2)
    health.add("cache", Check(cache, "datastore"), critical=False, ttl=0)
    health.add("jobs", Check(jobs, scope="shared"), ttl=0)
    health.add("partner-billing-api-with-a-rather-long-name", billing, ttl=0)
    health.add("disk", Check(disk, "system"), ttl=0)
    health.group("reading", ["orders-db", "cache"])
    for _ in range(STEPS - 1):
        health.report("all")
        clock.advance(STEP)
    return health


class Quiet(WSGIRequestHandler):
    """A handler that does not tell each request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base
        """Say nothing."""


def look(url: str, picture: Path, size: str) -> list[str]:
    """Take the picture of a page, and return what the browser had to say about it."""
    browser = find_program("chromium", "chromium-browser", "google-chrome")
    if browser is None:
        raise SystemExit("there is no Chromium on this machine; install it")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",  # it may be started by root, and sees this page alone
                "--disable-gpu",
                "--hide-scrollbars",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--enable-logging=stderr",
                f"--user-data-dir={profile}",
                f"--window-size={size}",
                f"--screenshot={picture}",
                url,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if done.returncode != 0 or not picture.is_file():
        raise SystemExit(f"the browser ended with {done.returncode}\n{done.stderr}")
    return [line for line in done.stderr.splitlines() if re.search(r":CONSOLE[:(]", line)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page, look at it, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PICTURE)
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--height", type=int, default=560)
    options = parser.parse_args(arguments)
    health = played()
    options.out.unlink(missing_ok=True)
    with make_server("127.0.0.1", 0, wsgi.health(health), WSGIServer, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/health/page"
            said = look(url, options.out.resolve(), f"{options.width},{options.height}")
        finally:
            server.shutdown()
            thread.join()
            health.close()
    for line in said:
        print(line, file=sys.stderr)
    print(f"{options.out.name}: {options.out.stat().st_size} bytes")
    return 1 if said else 0


if __name__ == "__main__":
    raise SystemExit(main())
