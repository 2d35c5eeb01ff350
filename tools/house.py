"""Rules of the house that no linter knows.

- Every test says in a docstring which behaviour it checks.
- A module of the library stays below 400 lines (a generated file is measured by its source).
- No tracked file names a package registry's download address or a path of somebody's machine.
- Other rooms enter the cache by its doors, not by its modules with an underscore.
- Every promise names a test or a benchmark that exists (see tools/promises.py).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import promises

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 400
INSIDE = re.compile(r"^\s*(?:from|import) resilient\.cache\._", re.MULTILINE)
GUESTS = ("resilient/cache/", "resilient/cli.py")
FOREIGN = re.compile(r"https?://[^\s\"')]+/(?:simple|packages|npm)/|(?<![\w.])/(?:root|home|work|Users)/\w+")


def tracked() -> list[Path]:
    """The files that are, or are about to be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


def tests_without_docstring(path: Path) -> Iterator[str]:
    """Test functions that do not say what they check."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("test_") and not ast.get_docstring(node):
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has no docstring that states the behaviour"


def complaints() -> Iterator[str]:
    """Everything that is against the rules, a line each."""
    for path in tracked():
        name = path.relative_to(ROOT)
        if path.suffix == ".py" and name.parts[0] == "tests":
            yield from tests_without_docstring(path)
        if path.suffix == ".py" and name.parts[0] == "resilient":
            length = len(path.read_text().splitlines())
            if length > LONGEST:
                yield f"{name}: {length} lines; a room of more than {LONGEST} wants to be two"
            if not str(name).startswith(GUESTS) and INSIDE.search(path.read_text()):
                yield f"{name}: takes what is inside of the cache: see resilient.cache.rooms"
        if path.name != Path(__file__).name:
            try:
                text = path.read_text()
            except UnicodeDecodeError:
                continue
            for found in FOREIGN.finditer(text):
                yield f"{name}: names {found.group(0)!r}, an address or path that is not the project's"
    yield from promises.broken()


if __name__ == "__main__":
    found = list(complaints())
    print("\n".join(found) if found else "the rules of the house are kept")
    sys.exit(bool(found))
