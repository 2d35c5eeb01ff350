"""Every code block of the README and the docs is executed, in the order of its page."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PRODUCED = {"evidence", "proofs"}
"""Folders of the docs that hold what was printed, and what is tested elsewhere."""
PAGES = [
    ROOT / "README.md",
    *(each for each in sorted(ROOT.glob("docs/**/*.md")) if each.parent.name not in PRODUCED),
]
GENERATED = {"correctness.md"}
SHOWN = {"text", "toml", "yaml", "ini", "json", "mermaid", "http", "haproxy", "nginx"}
"""Languages that are looked at, not run."""

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_SETUP = re.compile(r"<!-- setup\n(?P<code>.*?)-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A piece of a page."""

    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The code of a page, hidden set-up included, in page order."""
    text = page.read_text()
    found = [(each.start(), "python", each["code"]) for each in _SETUP.finditer(text)]
    for each in _BLOCK.finditer(text):
        code = re.sub(f"^{each['indent']}", "", each["code"], flags=re.MULTILINE)
        found.append((each.start(), each["language"], code))
    return [Block(language, code, text.count("\n", 0, at) + 2) for at, language, code in sorted(found)]


def pages_with(language: str) -> list[Path]:
    """The pages that hold a block of that language."""
    return [
        page
        for page in PAGES
        if page.name not in GENERATED and any(block.language == language for block in blocks(page))
    ]


def name(page: Path) -> str:
    """What a page is called in the report."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages_with("python"), ids=name)
def test_python_blocks_run(page: Path, addresses: dict[str, str], tmp_path: Path) -> None:
    """The page's Python, run from top to bottom in one fresh interpreter, ends without an error."""
    lines: list[str] = []
    for block in blocks(page):
        if block.language == "python":
            lines += [""] * (block.line - 1 - len(lines))  # so that a traceback names the page's own lines
            lines += block.code.splitlines()
    code = "\n".join(lines) + "\n"
    for written, served in addresses.items():
        code = code.replace(written, served)
    script = tmp_path / f"page_{page.stem}.py"  # never the name of a package that the page imports
    script.write_text(code)
    workplace = tmp_path / "here"
    workplace.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(script)],
        cwd=workplace,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "eu-west-1",
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, f"{name(page)} fails when run as it stands:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", pages_with("console"), ids=name)
def test_console_lines_exist(page: Path) -> None:
    """Each command on the page is one that a reader has: a target of the Makefile, a subcommand, a known tool."""
    for block in blocks(page):
        if block.language != "console":
            continue
        for line in block.code.splitlines():
            words = line.removeprefix("$ ").partition("  #")[0].split()
            if not line.startswith("$ ") or not words:
                continue
            while "=" in words[0]:
                words.pop(0)
            where = f"{name(page)}:{block.line}: {line}"
            if words[0] == "make":
                done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{where}\n{done.stderr}"
            elif words[0] == "resilient":
                command = [sys.executable, "-m", "resilient.cli", *words[1:3], "--help"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{where}\n{done.stderr}"
            else:
                known = {"pip", "git", "cd", "flask", "python", "gunicorn", "curl", "pre-commit", "pytest", "apt-get"}
                assert words[0] in known or shutil.which(words[0]), where


def test_every_block_names_its_language() -> None:
    """No block escapes these checks for want of a known language."""
    strays = [
        f"{name(page)}:{block.line} ({block.language or 'none'})"
        for page in PAGES
        if page.name not in GENERATED
        for block in blocks(page)
        if block.language not in SHOWN | {"python", "console"}
    ]
    assert strays == []
