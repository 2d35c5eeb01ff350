"""A report as a page for people: one row for each check, with its last ten minutes drawn as a strip.

No script, nothing loaded from anywhere, and all text escaped: it may stand behind the strictest content policy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from resilient.health._core import Status
from resilient.health._health import Health
from resilient.health._history import History
from resilient.health._report import CheckReport, Report, written
from resilient.health._streak import SLOT_SECONDS, SLOTS

__all__ = ["PAGE", "POLICY", "page"]

PAGE: Final = "text/html; charset=utf-8"
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""The page's content policy."""

_STEP, _HEIGHT = 4, 20
_TALL: Final = {Status.PASS: 8, Status.WARN: 14, Status.UNKNOWN: 14, Status.FAIL: 20}  # seen without colours too

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#5b6570;--line:#d8dde3;--back:#fff;
--pass:#1a7f4b;--warn:#b26a00;--unknown:#6e5aa8;--fail:#c62828;--none:#e6e9ed}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--dim:#9aa5b1;--line:#333a42;--back:#14171a;
--pass:#45b87c;--warn:#e0a030;--unknown:#a593e0;--fail:#f06a6a;--none:#2a3037}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--back);margin:0 auto;padding:2rem 1rem;
max-width:70rem}
h1{font-size:1.3rem;margin:0 0 1rem}
p,td small,th{color:var(--dim)}
ul{list-style:none;display:flex;flex-wrap:wrap;gap:.5rem;margin:0 0 1.5rem;padding:0}
li{border:1px solid var(--line);border-radius:.4rem;padding:.25rem .7rem}
div{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th{font-weight:500;text-align:left;font-size:.85rem}
th,td{padding:.5rem .8rem .5rem 0;border-bottom:1px solid var(--line);vertical-align:top;white-space:nowrap}
td small{display:block}
svg{display:block}
b{font-weight:600}
.pass{color:var(--pass);fill:var(--pass)}.warn{color:var(--warn);fill:var(--warn)}
.unknown{color:var(--unknown);fill:var(--unknown)}.fail{color:var(--fail);fill:var(--fail)}.none{fill:var(--none)}
@media(max-width:46rem){body{padding-top:1rem}table,tbody{display:block}tr:first-child{display:none}
tr{display:grid;grid-template-columns:1fr auto;gap:.2rem 1rem;padding:.7rem 0;border-bottom:1px solid var(--line)}
td{border:0;padding:0;white-space:normal;overflow-wrap:anywhere}td:nth-child(even){text-align:right}
td:nth-child(n+5){grid-column:1/3;text-align:left}td:last-child:not(:empty)::before{content:"last failure: "}
td:last-child small{display:inline;margin-left:.4rem}svg{width:100%}}
"""


def page(health: Health, report: Report) -> str:
    """The page of a report of the view ``all``. It asks to be loaded again every ten seconds.

    Args:
        health: Whose report it is.
        report: The report.

    Examples:
        >>> health = Health()
        >>> health.add("db", lambda: True)
        >>> page(health, health.report("all"))[:15]
        '<!doctype html>'
    """
    now, moment = health.clock.monotonic(), health.clock.wall()
    said = "".join(f"<li>{escape(view)} {_word(status)}</li>" for view, status in health.statuses(report).items())
    rows = "".join(_row(each, health.history(each.name), now, moment) for each in report.checks.values())
    head = "<tr><th>Check<th>State<th>Why<th>Took<th>Last ten minutes<th>Last failure</tr>"
    draining = "<p>This instance is draining.</p>" if report.draining else ""
    table = f"<div><table>{head}{rows}</table></div>" if rows else "<p>There are no checks.</p>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="10">'
        '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
        f"<title>{report.word} - health</title><style>{_STYLE}</style></head><body>"
        f"<h1>Health</h1>{draining}<ul>{said}</ul>{table}<p>{_time(moment)}</p></body></html>"
    )


def _row(check: CheckReport, history: History, now: float, moment: float) -> str:
    why = [escape(check.reason)] if check.reason is not None else []
    why += [f"<small>{escape(name)} {value:g}</small>" for name, value in check.values.items()]
    if check.fault is not None:
        why.append(f"<small>fault: {escape(check.fault)}</small>")
    effect = f"<small>counts as {check.effect.value}</small>" if check.effect is not check.status else ""
    last = ""
    if history.last_failure is not None:
        reason, at = history.last_failure
        last = f"{escape(reason)}<small>{_ago(moment - at)}</small>"
    cells = (
        f"<b>{escape(check.name)}</b><small>{escape(check.kind)}</small>",
        f"{_word(check.status)}{effect}",
        "".join(why),
        f"{check.outcome.seconds * 1000:.1f} ms",
        _strip(history.strip.read(now), check.name),
        last,
    )
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"


def _word(status: Status) -> str:
    return f'<b class="{status.value}">{status.value}</b>'


def _strip(slots: Sequence[Status | None], name: str) -> str:
    width = SLOTS * _STEP
    title = f"{escape(name)}: {escape(', '.join(_told(slots)))}"
    size = f'width="{width}" height="{_HEIGHT}" viewBox="0 0 {width} {_HEIGHT}" preserveAspectRatio="none"'
    return f'<svg {size} role="img"><title>{title}</title>{"".join(_bars(slots))}</svg>'


def _runs(slots: Sequence[Status | None]) -> Iterator[tuple[int, int, Status | None]]:
    """Slots of the same state in a row: where they begin and end."""
    begin = 0
    for at in range(1, len(slots) + 1):
        if at == len(slots) or slots[at] is not slots[begin]:
            yield begin, at, slots[begin]
            begin = at


def _bars(slots: Sequence[Status | None]) -> Iterator[str]:
    for begin, end, status in _runs(slots):
        kind = status.value if status is not None else "none"
        tall = _TALL[status] if status is not None else 2
        place = f'x="{begin * _STEP}" y="{_HEIGHT - tall}" width="{(end - begin) * _STEP}" height="{tall}"'
        yield f'<rect class="{kind}" {place}/>'


def _told(slots: Sequence[Status | None]) -> Iterator[str]:
    """The same in words, for who hears the page."""
    for begin, end, status in _runs(slots):
        if status is not None:
            yield f"{status.value} for {(end - begin) * SLOT_SECONDS / 60:.1f} minutes"


def _ago(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ""
    if seconds < 90:
        return f"{max(0, round(seconds))} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 5400 else f"{seconds / 3600:.0f} h ago"


def _time(moment: float) -> str:
    told = written(moment, timespec="seconds")
    return "" if told is None else told.replace("T", " ").replace("+00:00", " UTC")
