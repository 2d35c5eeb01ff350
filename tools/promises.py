"""Write docs/correctness.md: every promise beside the test or benchmark that proves it.

The promises are kept room by room in docs/promises/*.toml::

    [[promise]]
    text = "An entry that cannot be read is a miss, never an error."
    proof = "tests/unit/cache/test_entry.py::test_garbage_is_a_miss"

A proof is a test (``path::name`` or ``path::Class::name``) or a file, such as one under docs/evidence/.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMISES = ROOT / "docs" / "promises"
HEAD = """# Correctness

Every promise this library makes, beside the test, benchmark or record that proves it. A promise holds as far as it is
worded here, and no further: what voids each guarantee is on [one page](guarantees.md). This page is made from
`docs/promises/`, and the build fails where a named proof does not exist.
"""


def rooms() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Each room's name with its promises."""
    for path in sorted(PROMISES.glob("*.toml")):
        yield path.stem, tomllib.loads(path.read_text())["promise"]


@cache
def tests_of(path: Path) -> frozenset[str]:
    """The names of tests in a file, with and without their class."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
            names.update(f"{node.name}::{item.name}" for item in node.body if isinstance(item, ast.FunctionDef))
            names.update(f"{node.name}::{each.id}" for item in node.body for each in targets(item))
    for item in ast.parse(path.read_text()).body:
        for bound in targets(item):
            names.update({bound.id, f"{bound.id}::runTest"})  # a state machine's TestCase
    return frozenset(names)


def targets(node: ast.stmt) -> Iterator[ast.Name]:
    """Names bound by an assignment: Hypothesis' state machines become tests that way."""
    if isinstance(node, ast.Assign):
        yield from (each for each in node.targets if isinstance(each, ast.Name))


def broken() -> Iterator[str]:
    """Promises whose proof is not there."""
    for room, promises in rooms():
        for promise in promises:
            file, _, name = promise["proof"].partition("::")
            path = ROOT / file
            if not path.is_file():
                yield f"docs/promises/{room}.toml: no file {file}"
            elif name and name.partition("[")[0] not in tests_of(path):
                yield f"docs/promises/{room}.toml: no test {name} in {file}"


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for room, promises in rooms():
        parts += ["", f"## {room.capitalize()}", "", "| promise | proof |", "| --- | --- |"]
        for promise in promises:
            text = promise["text"].replace("|", "\\|")
            file, _, name = promise["proof"].partition("::")
            parts.append(f"| {text} | `{file}` {f'`{name}`' if name else ''} |")
    evidence = sorted(path.name for path in (ROOT / "docs" / "evidence").glob("*.md") if "table" not in path.name)
    if evidence:
        parts += ["", "## Evidence", "", "What the full-size runs printed, with commit, machine and seed:", ""]
        parts += [f"- [{name.removesuffix('.md')}](evidence/{name})" for name in evidence]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    missing = list(broken())
    if missing:
        raise SystemExit("\n".join(missing))
    (ROOT / "docs" / "correctness.md").write_text(page())
