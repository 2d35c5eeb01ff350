"""Run the unit tests against the lowest supported version of each dependency, in an environment of their own.

The versions are the lower bounds written in pyproject.toml: what is declared is what is tested.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-lowest"
NOT_OURS = {"resilient-patterns", "moto", "fakeredis", "pytest"}
"""Test tools: their age is no concern of the library's users."""
COMPANIONS = ["Werkzeug<3"]
"""What a lowest version needs of its own dependencies: the test client of Flask 2.3.0 does not know Werkzeug 3."""


def pins() -> list[str]:
    """Each dependency of the library at its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    found = set()
    for requirement in declared:
        name, extras, lowest = re.fullmatch(r"([\w.-]+)(\[[\w,]+\])?(?:>=([\d.]+).*)?", requirement).groups()  # type: ignore[union-attr] # every requirement of ours has this form
        if lowest and name not in NOT_OURS:
            found.add(f"{name}{extras or ''}=={lowest}" + (".0" if lowest.count(".") == 0 else ""))
    return [*sorted(found), *COMPANIONS]


def main() -> int:
    """Make the environment where it is missing or outdated, then test in it."""
    python = FOLDER / "bin" / "python"
    wanted = "\n".join(pins())
    made = FOLDER / "pins.txt"
    if not made.exists() or made.read_text() != wanted:
        venv.create(FOLDER, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
        subprocess.run([*pip, "-e", f"{ROOT}[testing]", "--group", f"{ROOT}/pyproject.toml:test", *pins()], check=True)
        made.write_text(wanted)
    print("lowest versions:", ", ".join(pins()))
    arguments = sys.argv[1:] or ["tests/unit", "-n", "2", "-q"]
    return subprocess.run([python, "-m", "pytest", *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
