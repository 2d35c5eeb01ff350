"""Write docs/correctness.md, where every promise links to what proves it, and docs/proofs/, which shows that.

The promises are kept room by room in docs/promises/*.toml::

    [[promise]]
    text = "An entry that cannot be read is a miss, never an error."
    proof = "tests/unit/cache/test_entry.py::test_garbage_is_a_miss"

A proof is a test (``path::name`` or ``path::Class::name``) or a file, such as one under docs/evidence/. The pages of
docs/proofs/ show the proofs as they stand in this checkout: the links of a site lead to what its code was tested by.
"""

from __future__ import annotations

import ast
import shutil
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMISES = ROOT / "docs" / "promises"
PROOFS = ROOT / "docs" / "proofs"
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


def source_of(path: Path, name: str) -> str:
    """The source of one test, from its decorators on."""
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    nodes: list[ast.stmt] = list(ast.parse(text).body)
    for part in name.partition("[")[0].removesuffix("::runTest").split("::"):
        node = next(each for each in nodes if part in named(each))
        nodes = list(node.body) if isinstance(node, ast.ClassDef) else []
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(each.lineno for each in decorators)])
    return textwrap.dedent("".join(lines[first - 1 : node.end_lineno])).rstrip()


def named(node: ast.stmt) -> set[str]:
    """The names that a statement gives."""
    own = {node.name} if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else set()
    return own | {each.id for each in targets(node)}


def link(proof: str) -> str:
    """A proof as a link of the correctness page."""
    file, _, name = proof.partition("::")
    if file.startswith("docs/"):
        return f"[`{file}`]({file.removeprefix('docs/')})"
    place = f"proofs/{slug(file)}.md"
    return f"`{file}` [`{name}`]({place}#{anchor(name)})" if name else f"[`{file}`]({place})"


def slug(file: str) -> str:
    """The name of the page that shows proofs of a file."""
    return file.removesuffix(".py").replace("/", "-")


def anchor(name: str) -> str:
    """Where a test stands on its page."""
    return name.partition("[")[0].replace("::", "-")


def proof_pages() -> Iterator[tuple[str, str]]:
    """Name and text of each page under docs/proofs/: the tests that prove something, or a file that does as a whole."""
    wanted: dict[str, set[str]] = {}
    for _, promises in rooms():
        for promise in promises:
            file, _, name = promise["proof"].partition("::")
            if not file.startswith("docs/"):
                wanted.setdefault(file, set()).add(name.partition("[")[0])
    for file, names in sorted(wanted.items()):
        parts = ["---", "search: { exclude: true }", "---", f"# {file}"]
        for name in sorted(names - {""}):
            parts += ["", f"## `{name}` {{ #{anchor(name)} }}", "", *fenced(source_of(ROOT / file, name))]
        if "" in names:
            parts += ["", "## The whole file", "", *fenced((ROOT / file).read_text().rstrip())]
        yield f"{slug(file)}.md", "\n".join(parts) + "\n"


def fenced(code: str) -> list[str]:
    """Code as a block of Markdown."""
    return ["````python", code, "````"]


def page() -> str:
    """The correctness page as Markdown."""
    parts = [HEAD]
    for room, promises in rooms():
        parts += ["", f"## {room.capitalize()}", "", "| promise | proof |", "| --- | --- |"]
        for promise in promises:
            text = promise["text"].replace("|", "\\|")
            parts.append(f"| {text} | {link(promise['proof'])} |")
    evidence = sorted(path.name for path in (ROOT / "docs" / "evidence").glob("*.md") if "table" not in path.name)
    if evidence:
        parts += ["", "## Evidence", "", "What the full-size runs printed, with commit, machine and seed:", ""]
        parts += [f"- [{name.removesuffix('.md')}](evidence/{name})" for name in evidence]
    return "\n".join(parts) + "\n"


def write() -> None:
    """Write the page and its proofs anew."""
    shutil.rmtree(PROOFS, ignore_errors=True)
    PROOFS.mkdir()
    for name, text in proof_pages():
        (PROOFS / name).write_text(text)
    (ROOT / "docs" / "correctness.md").write_text(page())


if __name__ == "__main__":
    missing = list(broken())
    if missing:
        raise SystemExit("\n".join(missing))
    write()
