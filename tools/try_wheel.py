"""Build the wheel, install it in a clean environment and try it there: that is what users get."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

BARE = """
import sys, time
begun = time.perf_counter()
import resilient
took = time.perf_counter() - begun
assert "site-packages" in resilient.__file__, resilient.__file__
foreign = {name.partition(".")[0] for name in sys.modules} & {"tenacity", "msgspec", "redis", "sqlalchemy", "boto3"}
assert not foreign, f"import resilient loaded {foreign}"
from resilient.policy import Breaker, Pipeline, Retry
pipeline = Pipeline("sums", Retry(attempts=2), Breaker())
assert pipeline.call(sum, [1, 2]) == 3
from resilient.errors import MissingExtra
needs = {"resilient.storage.replicas": "sql", "resilient.flask": "flask", "resilient.django": "django"}
for module, extra in needs.items():
    try:
        __import__(module)
    except MissingExtra as error:
        assert error.extra == extra and f"resilient-patterns[{extra}]" in str(error), str(error)
    else:
        raise AssertionError(f"{module} imported without its extra")
from pathlib import Path
assert (Path(resilient.__file__).parent / "py.typed").is_file()
print(f"bare wheel: imported in {took * 1000:.1f} ms, loads no other package, names the missing extras")
"""

FULL = """
from flask import Flask
from sqlalchemy import text
from resilient.cache import Cache
from resilient.flask import Resilient, health_blueprint
from resilient.health import Health, checks
from resilient.storage.replicas import ReplicaSet

db = ReplicaSet("sqlite:///app.db", replicas=[])
cache = Cache(namespace="shop", ttl=60)
health = Health()
health.add("db", checks.sqlalchemy("sqlite:///app.db"), critical=True)
app = Flask("shop")
Resilient(app, cache=cache, replicas=db, health=health)
app.register_blueprint(health_blueprint(health))

@cache.lazy("square:{n}", ttl=60)
def square(n: int) -> int:
    with db.sessionmaker()() as session:
        return session.execute(text("select :n * :n"), {"n": n}).scalar_one()

assert square(7) == square(7) == 49
client = app.test_client()
assert client.get("/livez").status_code == 200
assert client.get("/readyz").status_code == 200, client.get("/readyz").text
cache.close(); db.close()
print("wheel with extras: cache, replicas, health and Flask work together")
"""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command; its failure is ours."""
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def main() -> None:
    """Build, install and try."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
        wheel = next(folder.glob("resilient_patterns-*.whl"))
        clean = folder / "clean"
        venv.create(clean, with_pip=True)
        python = clean / "bin" / "python"
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
        run(python, "-c", BARE, cwd=folder)
        run(clean / "bin" / "resilient", "--version", cwd=folder)
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{wheel}[redis,sql,flask]")
        run(python, "-c", FULL, cwd=folder)


if __name__ == "__main__":
    main()
