"""The table of what users saw: live on the terminal, and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from examples.imagery.tour.tally import Phase

__all__ = ["HEADER", "header", "line", "markdown"]

HEADER = ("phase", "requests", "errors", "retried", "slowest", "images from", "lists from", "recovered")
_WIDTHS = (21, 8, 6, 7, 8, 24, 26, 0)
_RIGHT = {1, 2, 3, 4}


def cells(phase: Phase) -> tuple[str, ...]:
    """One phase as text, cell by cell."""
    cache = Counter({"cache": phase.images["shared"] + phase.images["local"]})
    cache.update({"primary": sum(phase.images.values()) - cache["cache"]})
    lists: Counter[str] = Counter()
    for source, count in phase.lists.items():
        lists["replicas" if source.startswith("replica") else source] += count
    return (
        phase.name,
        str(phase.requests),
        str(phase.errors.total()),
        str(phase.retried),
        f"{phase.slowest:.2f} s",
        _shares(cache, ("cache", "primary")),
        _shares(lists, ("replicas", "primary")),
        phase.recovered,
    )


def _shares(counts: Counter[str], names: Iterable[str]) -> str:
    total = counts.total()
    return ", ".join(f"{name} {counts[name] / total:.0%}" for name in names if total and counts[name]) or "-"


def header() -> str:
    """The head of the table on the terminal."""
    return _row(HEADER)


def line(phase: Phase) -> str:
    """One row of the table on the terminal."""
    return _row(cells(phase))


def _row(texts: Sequence[str]) -> str:
    padded = [
        text.rjust(width) if index in _RIGHT else text.ljust(width)
        for index, (text, width) in enumerate(zip(texts, _WIDTHS, strict=True))
    ]
    return "  ".join(padded).rstrip()


def markdown(phases: Sequence[Phase], parts: Mapping[str, str], verdict: str) -> str:
    """The whole table as Markdown, with what it ran on and how it ended."""
    rows = [HEADER, ("---", *("---:" if index in _RIGHT else "---" for index in range(1, len(HEADER))))]
    rows += [cells(phase) for phase in phases]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    ran = "; ".join(f"{name}: {what}" for name, what in parts.items())
    return f"{table}\n\n{ran}. {verdict}\n"
