"""Writes the sync twin of every file that is written once, as async.

Long I/O code stands once, as async, in a folder called ``_async``; its sync twin stands beside it in ``_sync``, is
checked in, and is never edited. ``python tools/unasync.py`` writes the twins of all such folders under ``resilient/``;
``--check`` writes nothing and fails when a twin is missing, stale or left over. A new room only has to make the folder.

What the translation does: ``async`` and ``await`` go; a name ``AsyncThing`` becomes ``Thing``; ``_async`` in an import
becomes ``_sync``; the names of `NAMES` become their sync words; in docstrings also ``asyncio.run(x)`` becomes ``x``.
What it cannot translate (an event loop's future, a lock) is written by hand as a pair with one interface, such as
``AsyncFlights`` and ``Flights``, outside the folder. Keep the async source free of ``asyncio``.
The twins are sorted and formatted with ruff, so ``make check`` judges them like any file.
"""

from __future__ import annotations

import argparse
import importlib
import io
import re
import subprocess
import sys
import tempfile
import tokenize
from pathlib import Path

_TOOLS = Path(__file__).resolve().parent
ROOT = _TOOLS.parent

# This file bears the name of the library it uses, and Python puts a script's own folder first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "tools"]
library = importlib.import_module("unasync")

NAMES = {
    "_async": "_sync",
    "acall": "call",
    "aclose": "close",
    "aenter": "enter",
    "asleep": "sleep",
    "AbstractAsyncContextManager": "AbstractContextManager",
    "AsyncExitStack": "ExitStack",
    "enter_async_context": "enter_context",
    "open_async_channel": "open_channel",
}
"""Words that differ between the two worlds and do not follow the rule of the prefix ``Async``."""

_DOCSTRING = re.compile(r'""".*?"""', re.DOTALL)
_RUN = re.compile(r"asyncio\.run\((.*)\)$", re.MULTILINE)
_WORD = re.compile(r"\b(_?)Async(?=[A-Z])")


def sources() -> list[Path]:
    """Every file that has a twin."""
    return sorted((ROOT / "resilient").glob("**/_async/**/*.py"))


def twin(source: Path) -> Path:
    """Where the twin of a file stands."""
    return Path(*("_sync" if part == "_async" else part for part in source.parts))


def translate(source: Path) -> str:
    """The text of a file's twin."""
    text = source.read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    prefixed = {token.string for token in tokens if token.type == tokenize.NAME and _WORD.match(token.string)}
    names = {name: _WORD.sub(r"\1", name) for name in prefixed} | NAMES
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "_async", source.name), Path(folder, "_sync", source.name)
        before.parent.mkdir()
        before.write_text(text, encoding="utf-8")
        library.unasync_files([str(before)], [library.Rule("/_async/", "/_sync/", additional_replacements=names)])
        made = after.read_text(encoding="utf-8")
    header = f"# Generated from {source.relative_to(ROOT)} by tools/unasync.py: do not edit.\n"
    return header + _DOCSTRING.sub(_translate_docstring, made)


def _translate_docstring(match: re.Match[str]) -> str:
    text = _RUN.sub(r"\1", match.group())
    text = text.replace("await ", "").replace("async def ", "def ").replace("async with ", "with ")
    return _WORD.sub(r"\1", text)


def formatted(texts: dict[Path, str]) -> dict[Path, str]:
    """The texts of files under the root as ruff sorts and formats them; all at once, since it is slow to start."""
    ruff = [sys.executable, "-m", "ruff"]
    ours = 'lint.isort.known-first-party=["resilient"]'  # also before the twins are there for ruff to find
    sort = ["check", "--select", "I,F401,RUF022", "--fix-only", "--quiet", "--no-cache", "--config", ours, "."]
    with tempfile.TemporaryDirectory() as folder:
        places = {path: Path(folder) / path.relative_to(ROOT) for path in texts}
        for path, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(texts[path], encoding="utf-8")
        Path(folder, "pyproject.toml").write_bytes((_TOOLS.parent / "pyproject.toml").read_bytes())
        for command in (sort, ["format", "--quiet", "--no-cache", "."]):
            subprocess.run([*ruff, *command], check=True, cwd=folder)
        return {path: place.read_text(encoding="utf-8") for path, place in places.items()}


def main(arguments: list[str] | None = None) -> int:
    """Write the twins, or check them. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the sync twins of the files in folders called _async.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a twin is not up to date")
    check = parser.parse_args(arguments).check
    wanted = formatted({twin(source): translate(source) for source in sources()})
    leftover = set((ROOT / "resilient").glob("**/_sync/**/*.py")) - wanted.keys()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in sorted({*stale, *leftover}):
        print(f"{'stale' if check else 'removed' if path in leftover else 'written'}: {path.relative_to(ROOT)}")
    if check:
        if stale or leftover:
            print("run: python tools/unasync.py")
        return int(bool(stale or leftover))
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
    for path in leftover:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
