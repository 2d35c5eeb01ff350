"""Run a command and keep what it printed, with commit, machine and seed, under docs/evidence/.

    python tools/evidence.py NAME [VARIABLE=VALUE ...] -- COMMAND ...

Exits as the command did. A failed run is kept as well, and says so in its head.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def said(*command: str) -> str:
    """The output of a short command, or ``unknown``."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def memory() -> str:
    """How much memory the machine has."""
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (OSError, ValueError):
        return "unknown memory"


def main(arguments: list[str]) -> int:
    """Run the command; see the module's text."""
    divide = arguments.index("--")
    name, *settings = arguments[:divide]
    command = arguments[divide + 1 :]
    seed = os.environ.get("RESILIENT_SEED", "20261121")
    environment = {**os.environ, "RESILIENT_SEED": seed, **dict(setting.split("=", 1) for setting in settings)}
    commit = said("git", "rev-parse", "--short", "HEAD")
    if said("git", "status", "--porcelain", "--", "resilient", "tests", "benchmarks", "examples"):
        commit += " with uncommitted changes"
    started = datetime.now(UTC)
    begun = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line.rstrip().replace(f"{ROOT}/", "").replace(str(ROOT), "."))
    head = [
        f"# {name}",
        "",
        f"- when: {started:%Y-%m-%d %H:%M} UTC, {time.monotonic() - begun:.0f} s, exit status {process.returncode}",
        f"- commit: {commit}",
        f"- machine: {os.cpu_count()} cores, {memory()}, {platform.system()}, Python {platform.python_version()}",
        f"- seed: {seed}" + (f", {' '.join(settings)}" if settings else ""),
        "",
        "```text",
        *lines,
        "```",
        "",
    ]
    target = ROOT / "docs" / "evidence" / f"{name}.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(head))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
