"""Put into the README and other pages what is produced elsewhere: measured tables, and examples of other pages.

    python tools/readme.py            write it
    python tools/readme.py --check    fail where a page is not what it would write

The tables are taken from docs/evidence/, where `make tour` and `make balancer` write them. A page marks the place of
each with two comments, ``<!-- name -->`` and ``<!-- /name -->``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "health.md", ROOT / "docs" / "balancers.md")
MEASURED = ("balancer", "health", "checks", "deadline")


def table() -> str:
    """The tour's table and the line under it."""
    text = (ROOT / "docs" / "evidence" / "tour-table.md").read_text()
    return text[text.index("| phase ") :].strip()


def measured(name: str) -> str:
    """A table as its run left it."""
    return (ROOT / "docs" / "evidence" / f"{name}-table.md").read_text().strip()


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
    for name, part in parts.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, part=part: f"{found.group(1)}\n{part}\n\n{found.group(2)}",  # type: ignore[misc] # a default binds the loop's value
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
