"""Whether this machine's clock is right."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import urlsplit

from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError, InvalidInput
from resilient.health._core import Check, Result, Status
from resilient.policy import deadline

__all__ = ["clock"]

_LIMIT = 0.5  # seconds for one wait; the check's own deadline may be nearer


def clock(source: str | Callable[[], float], *, max_skew: float = 5.0, clock: Clock = SYSTEM) -> Check:
    """This machine's clock agrees with another. It warns (``skewed``), and never fails.

    AWS refuses signatures that are some minutes off, and links expire early or late. What the way there and the
    source's own coarseness leave open counts in favour of this clock. A source that does not answer says nothing
    of it: that warns too (``unreachable``, or ``timeout`` where it is silent). Give it a ``ttl`` of a minute or more.

    Args:
        source: An http or https URL, whose ``Date`` header is taken (a whole second is all it tells), such as the
            endpoint of S3; or a function that returns seconds since 1970.
        max_skew: Seconds that are tolerated.
        clock: The clock that is checked.

    Raises:
        ConfigurationError: The source is neither.

    Examples:
        >>> import time
        >>> clock(time.time).run().status.value
        'pass'
        >>> clock(lambda: time.time() - 60).run().reason
        'skewed'
    """
    tells: Callable[[], float]
    if isinstance(source, str):
        parts = urlsplit(source)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(f"{source!r} tells no time", advice="give an http(s) URL, or a function")
        tells, coarse = partial(_date, source), 1.0
    elif callable(source):
        tells, coarse = source, 0.0
    else:
        raise ConfigurationError(
            f"a {type(source).__name__} tells no time", advice="give an http(s) URL, or a function"
        )

    def look() -> Result:
        began = clock.wall()
        try:
            told = float(tells())
        except Exception:  # noqa: BLE001 - whatever went wrong there, it is no fault of this clock
            return Result.warn("unreachable")
        ended = clock.wall()
        skew = (began + ended) / 2 - (told + coarse / 2)
        sure = max(0.0, abs(skew) - (ended - began + coarse) / 2)
        values = {"skew": round(skew, 3)}
        return Result.warn("skewed", **values) if sure > max_skew else Result.ok(**values)

    return Check(look, "system", "local", dependency=True, at_worst=Status.WARN)


def _date(url: str) -> float:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=deadline.bound(_LIMIT))
    try:
        connection.request("HEAD", parts.path or "/", headers={"Connection": "close"})
        told = connection.getresponse().getheader("Date")  # of any answer: a refusal is dated too
    finally:
        connection.close()
    if told is None:
        raise InvalidInput("the answer has no date")
    return parsedate_to_datetime(told).timestamp()
