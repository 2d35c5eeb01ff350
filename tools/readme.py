"""Put into the README and other pages what is produced elsewhere: measured tables, and examples of other pages.

    python tools/readme.py            write it
    python tools/readme.py --check    fail where a page is not what it would write

The tables are taken from docs/evidence/, where `make tour`, `make balancer` and `make bench` write them. A page marks
the place of each with two comments, ``<!-- name -->`` and ``<!-- /name -->``. A part of a benchmark's output is named
by its file and how its heading begins, as in ``<!-- evidence bench-cache: goals -->``; ``run`` tells when and where.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "health.md",
    ROOT / "docs" / "balancers.md",
    ROOT / "docs" / "cache" / "backends.md",
    ROOT / "docs" / "cache" / "memory.md",
    ROOT / "docs" / "cache" / "speed.md",
)
MEASURED = ("balancer", "health", "checks", "deadline")
PART = re.compile(r"<!-- evidence ([\w-]+): (.+?) -->\n")


def table() -> str:
    """The tour's table and the line under it."""
    text = (EVIDENCE / "tour-table.md").read_text()
    return text[text.index("| phase ") :].strip()


def measured(name: str) -> str:
    """A table as its run left it."""
    return (EVIDENCE / f"{name}-table.md").read_text().strip()


def run_of(text: str) -> str:
    """When and where a run was made, as its head says."""
    said = dict(re.findall(r"^- (\w+): (.+)$", text, re.MULTILINE))
    when, machine = said["when"].partition(",")[0], said["machine"]
    return f"Measured {when}, at commit {said['commit']}, with everything on one machine: {machine}."


def part(name: str, heading: str) -> str:
    """What a run printed under the first heading that begins so."""
    text = (EVIDENCE / f"{name}.md").read_text()
    if heading == "run":
        return run_of(text)
    _, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    for section in sections:
        title, _, body = section.partition("\n")
        if title.lower().startswith(heading.lower()):
            return body.partition("```")[0].strip()
    raise SystemExit(f"docs/evidence/{name}.md has no heading that begins with {heading!r}")


def first_example(page: str) -> str:
    """The first Python block of a page, with the hidden set-up it needs."""
    text = (ROOT / "docs" / page).read_text()
    setup = re.search(r"<!-- setup\n.*?-->", text, re.DOTALL)
    block = re.search(r"^```python\n.*?^```$", text, re.DOTALL | re.MULTILINE)
    if block is None:
        raise SystemExit(f"docs/{page} shows no Python")
    hidden = f"{setup.group(0)}\n\n" if setup and setup.start() < block.start() else ""
    return hidden + block.group(0)


def filled(text: str) -> str:
    """A page with each marked place filled."""
    parts = {"tour": table(), "flask": first_example("flask.md"), "django": first_example("django.md")}
    parts |= {f"measured {name}": measured(name) for name in MEASURED if f"<!-- measured {name} -->" in text}
    parts |= {f"evidence {name}: {heading}": part(name, heading) for name, heading in PART.findall(text)}
    for name, found in parts.items():
        text = re.sub(
            rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)",
            lambda place, found=found: f"{place.group(1)}\n{found}\n\n{place.group(2)}",  # type: ignore[misc] # a default binds the loop's value
            text,
            flags=re.DOTALL,
        )
    return text


if __name__ == "__main__":
    stale = [page for page in PAGES if page.is_file() and page.read_text() != filled(page.read_text())]
    if "--check" in sys.argv:
        sys.exit(f"{', '.join(page.name for page in stale)} not up to date: python tools/readme.py" if stale else 0)
    for page in stale:
        page.write_text(filled(page.read_text()))
