"""Keeping probes that went well out of the access log: one line every few seconds for each checker is noise."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from resilient.errors import ConfigurationError
from resilient.health.answer import PATHS

__all__ = ["ProbeFilter", "quiet_probes"]

_OWN: Final = frozenset(f"/health/{view}" for view in ("live", "ready", "startup", "all", "metrics"))
_LOGGERS: Final = ("gunicorn.access", "uvicorn.access", "werkzeug", "django.server")
_REQUEST: Final = re.compile(r"\b(GET|HEAD) (\S+)(?: HTTP/[\d.]+)?")
_LINE: Final = re.compile(r'"[^"]*?\b(?P<method>GET|HEAD) (?P<path>\S+)(?: HTTP/[\d.]+)?[^"]*" (?P<status>\d{3})\b')


class ProbeFilter(logging.Filter):
    """Hides the access-log lines of health probes that were answered with 2xx; all other lines stay.

    It knows the records of gunicorn, uvicorn, werkzeug and Django's development server, and the common form of a line,
    ``"GET /readyz HTTP/1.1" 200``. Add it to the logger, or to a handler.

    Args:
        prefix: Where the health routes are mounted, such as ``/internal``.
        groups: The groups that are asked at ``/health/<group>``, by name, or ``health.views``. Other paths there may be
            the application's own, so their lines stay.

    Raises:
        ConfigurationError: The groups are one text.

    Examples:
        >>> record = logging.LogRecord("web", logging.INFO, "", 0, '"GET /readyz HTTP/1.1" %s 5', (200,), None)
        >>> ProbeFilter().filter(record)
        False
        >>> record.args = (503,)
        >>> ProbeFilter().filter(record)
        True
    """

    def __init__(self, prefix: str = "", groups: Collection[str] = ()) -> None:
        super().__init__()
        if isinstance(groups, str):
            raise ConfigurationError(f"groups={groups!r} is one text", advice="write them as a list")
        self.prefix = f"/{prefix.strip('/')}".rstrip("/")  # Django writes its prefixes as "internal/"
        self._paths = _OWN.union(PATHS, (f"/health/{group}" for group in groups)) - {"/health/page"}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line stays."""
        try:
            found = _read(record)
        except Exception:  # noqa: BLE001 - a record that cannot be read is shown, and shows its error there
            return True
        if found is None:
            return True
        method, path, status = found
        return not (method in {"GET", "HEAD"} and status.startswith("2") and self._is_probe(path))

    def _is_probe(self, path: str) -> bool:
        path = path.partition("?")[0]
        return path.startswith(self.prefix) and path[len(self.prefix) :] in self._paths


def _read(record: logging.LogRecord) -> tuple[str, str, str] | None:
    """The method, the path and the status of an access-log record; ``None`` where it is something else."""
    told: Any = record.args
    if isinstance(told, Mapping):  # gunicorn's atoms
        if "U" in told and "s" in told:
            return str(told.get("m")), str(told["U"]), str(told["s"])
    elif isinstance(told, tuple):
        match told:
            case (_, str() as method, str() as path, _, int() as status):  # uvicorn
                return method, path, str(status)
            case (str() as request, int() | str() as status, _) if found := _REQUEST.search(request):
                return found[1], found[2], str(status)  # werkzeug and django.server
            case _:
                pass
    line = _LINE.search(record.getMessage())
    return None if line is None else (line["method"], line["path"], line["status"])


def quiet_probes(*loggers: str, prefix: str = "", groups: Collection[str] = ()) -> Callable[[], None]:
    """Add a `ProbeFilter` to the access loggers of gunicorn, uvicorn, werkzeug and Django's development server.

    Args:
        loggers: The names of other loggers, instead of those.
        prefix: Where the health routes are mounted, such as ``/internal``.
        groups: The groups that are asked at ``/health/<group>``, by name, or ``health.views``.

    Returns:
        A function that takes the filter away again.

    Raises:
        ConfigurationError: The groups are one text.

    Examples:
        >>> undo = quiet_probes()
        >>> undo()
    """
    added = ProbeFilter(prefix, groups)
    found = [logging.getLogger(name) for name in loggers or _LOGGERS]
    for each in found:
        each.addFilter(added)

    def undo() -> None:
        for each in found:
            each.removeFilter(added)

    return undo
