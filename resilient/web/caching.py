"""What browsers and shared caches may keep of a page that was made of cached values, and for how long.

A page is as good as the values it was made of. Their entries tell how long that is, and for how long after it an old
page may stand in; so the headers promise what the cache itself would serve, and no more.

    >>> from resilient.cache import Cache
    >>> from resilient.web import caching
    >>> cache = Cache(namespace="shop", ttl=300, jitter=0)
    >>> @cache.lazy("price:{article}", stale_while_revalidate=60)
    ... def price(article: int) -> int:
    ...     return 100
    >>> caching.cache_control(price.lookup(7), public=True)
    'public, max-age=299, stale-while-revalidate=60'

`resilient.flask.http_cached` and `resilient.django.http_cached` put it on a response. Pure: no clock, no I/O.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from resilient.errors import ConfigurationError

if TYPE_CHECKING:
    from resilient.cache import Lookup

__all__ = ["Page", "cache_control", "etag", "headers", "matches", "page", "token", "tokens"]

_TAG = re.compile(r'(?:W/)?("[^"]*")')
_NOTHING = 1e-6  # seconds
_LONGEST = 16_000  # characters of the tokens in one header; what has more is named by its namespaces alone


def etag(body: bytes) -> str:
    """The entity tag of a body: another body has another one.

    Examples:
        >>> etag(b"hello") == etag(b"hello"), etag(b"hello") == etag(b"hallo")
        (True, False)
    """
    return f'"{base64.urlsafe_b64encode(hashlib.sha256(body).digest()[:15]).decode()}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether a request's ``If-None-Match`` names an entity tag, so that its sender has the body already.

    Examples:
        >>> matches('W/"a", "b"', '"b"'), matches("*", '"b"'), matches('"a"', '"b"'), matches(None, '"b"')
        (True, True, False, False)
    """
    if not if_none_match:
        return False
    return if_none_match.strip() == "*" or tag.removeprefix("W/") in _TAG.findall(if_none_match)


def cache_control(*found: Lookup[Any], public: bool = False, browsers: float | None = None) -> str:
    """The header ``Cache-Control`` of a page made of these values.

    Args:
        *found: What `lookup` of a cached function, or of the cache, gave for each.
        public: Caches between here and the browser may keep it too: it is the same for everybody.
        browsers: Seconds for which browsers may keep a public page at most: nothing purges them. Shared caches may keep
            it as long as its values.

    Returns:
        ``max-age`` until the first of the values is over; ``stale-while-revalidate`` and ``stale-if-error`` as far as
        each of them would be served by the cache itself. ``no-cache`` (keep it, but ask each time) where one of them is
        not in the cache.

    Raises:
        ConfigurationError: No value is given, or ``browsers`` without ``public``.
    """
    if not found:
        raise ConfigurationError("a page that is kept is made of values", advice="pass what lookup(...) gave")
    if browsers is not None and not (public and browsers >= 0):
        raise ConfigurationError("browsers= is a number of seconds, for pages that are public")
    whose = "public" if public else "private"
    lefts = [each.left for each in found if each.left is not None]
    if len(lefts) < len(found):
        return f"{whose}, no-cache"
    fresh = max(0.0, min(lefts))
    revalidates = min(each.revalidates + (left - fresh) for left, each in zip(lefts, found, strict=True))
    stands_in = min(each.stands_in + (left - fresh) for left, each in zip(lefts, found, strict=True))
    kept = _whole(fresh)
    said = [whose, f"max-age={kept if browsers is None else min(kept, _whole(browsers))}"]
    if browsers is not None:
        said.append(f"s-maxage={kept}")
    for name, seconds in (("stale-while-revalidate", revalidates), ("stale-if-error", stands_in)):
        if (whole := _whole(seconds)) > 0:
            said.append(f"{name}={whole}")
    return ", ".join(said)


def _whole(seconds: float) -> int:
    """Seconds without their fraction. What arithmetic has taken off a whole number is none."""
    return math.floor(seconds + _NOTHING)


def token(name: str) -> str:
    """A name of `resilient.cache.Lookup.names` as it stands in a header, where blanks and commas part the names.

    Examples:
        >>> token('shop:user:"Ada L"')
        'shop:user:%22Ada%20L%22'
    """
    return quote(name, safe=":.-_~")


def tokens(names: Iterable[str]) -> list[str]:
    """The same of several names, each once."""
    return list(dict.fromkeys(map(token, names)))


def headers(
    *found: Lookup[Any], public: bool = False, browsers: float | None = None, names_in: str | None = None
) -> list[tuple[str, str]]:
    """The headers of a page made of these values, but for its entity tag.

    Args:
        *found: As for `cache_control`.
        public: As for `cache_control`.
        browsers: As for `cache_control`.
        names_in: The header by which a shared cache learns the names that it is told when values change:
            ``Cache-Tag`` (Cloudflare, Akamai; parted by commas), ``Surrogate-Key`` (Fastly) or ``xkey`` (Varnish). See
            `resilient.web.purging.Purger`.

    Raises:
        ConfigurationError: As for `cache_control`.
    """
    told = [("Cache-Control", cache_control(*found, public=public, browsers=browsers))]
    if names_in is not None:
        between = "," if names_in.lower() == "cache-tag" else " "
        names = between.join(tokens(name for each in found for name in each.names))
        if len(names) > _LONGEST:
            names = between.join(tokens(each.names[-1] for each in found if each.names))
        told.append((names_in, names))
    return told


class Page(NamedTuple):
    """A response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def page(
    body: bytes,
    *found: Lookup[Any],
    content_type: str = "text/html; charset=utf-8",
    if_none_match: str | None = None,
    public: bool = False,
    browsers: float | None = None,
    names_in: str | None = None,
) -> Page:
    """The answer to a GET: the body, or 304 where the sender has it already. For WSGI and ASGI without a framework.

    Args:
        body: The page.
        *found: As for `cache_control`.
        content_type: Its type.
        if_none_match: What the request says in ``If-None-Match``, if anything.
        public: As for `cache_control`.
        browsers: As for `cache_control`.
        names_in: As for `headers`.

    Raises:
        ConfigurationError: As for `cache_control`.

    Examples:
        >>> from resilient.cache import Lookup
        >>> first = page(b"hello", Lookup("hello", "shared", 0.0, left=60.0))
        >>> again = page(b"hello", Lookup("hello", "shared", 1.0, left=59.0), if_none_match=dict(first.headers)["ETag"])
        >>> first.status, again.status, again.body
        (200, 304, b'')
    """
    tag = etag(body)
    told = [("ETag", tag), *headers(*found, public=public, browsers=browsers, names_in=names_in)]
    if matches(if_none_match, tag):
        return Page(304, told, b"")
    return Page(200, [("Content-Type", content_type), ("Content-Length", str(len(body))), *told], body)
