"""Put into the README what is produced elsewhere: the tour's table, and the examples of the framework pages.

    python tools/readme.py            write it
    python tools/readme.py --check    fail where the README is not what it would write

The tour's table is taken from docs/evidence/tour-table.md, which `make tour` writes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def table() -> str:
    """The tour's table and the line under it."""
    text = (ROOT / "docs" / "evidence" / "tour-table.md").read_text()
    return text[text.index("| phase ") :].strip()


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
    """The README with each marked place filled."""
    parts = {"tour": table(), "flask": first_example("flask.md"), "django": first_example("django.md")}
    for name, part in parts.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda found, part=part: f"{found.group(1)}\n{part}\n\n{found.group(2)}",  # type: ignore[misc] # a default binds the loop's value
            text,
            flags=re.DOTALL,
        )
    return text


if __name__ == "__main__":
    written, wanted = README.read_text(), filled(README.read_text())
    if "--check" in sys.argv:
        sys.exit("the README is not up to date: python tools/readme.py" if written != wanted else 0)
    README.write_text(wanted)
