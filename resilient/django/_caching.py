"""Pages made of cached values, for browsers and shared caches to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import get_conditional_response

from resilient.web import caching

if TYPE_CHECKING:
    from resilient.cache import Lookup

__all__ = ["http_cached"]


def http_cached(
    request: HttpRequest,
    response: HttpResponse,
    *found: Lookup[Any],
    public: bool = False,
    browsers: float | None = None,
    names_in: str | None = None,
) -> HttpResponseBase:
    """A response with an entity tag and the times for which it may be kept; 304 where the client has it already.

    A response that is no 200 to a GET or a HEAD, or that is streamed, is left as it is: nobody keeps it. For async
    views too.

    Args:
        request: The request.
        response: The view's response.
        *found: What `lookup` of a cached function gave, for each value that the page is made of.
        public: Caches between here and the browser may keep it too: it is the same for everybody. Do not say so of a
            page that sets a cookie or depends on one.
        browsers: Seconds for which browsers may keep a public page at most.
        names_in: The header by which a shared cache learns the names by which the page is purged: ``Cache-Tag``,
            ``Surrogate-Key`` or ``xkey``. See `resilient.web.purging.Purger`.

    Raises:
        ConfigurationError: No value is given, or ``browsers`` without ``public``.

    Examples:
        ::

            def person(request, user_id):
                found = get_user.lookup(user_id)
                return http_cached(request, render(request, "person.html", {"user": found.value}), found)
    """
    told = caching.headers(*found, public=public, browsers=browsers, names_in=names_in)
    if response.status_code != 200 or request.method not in {"GET", "HEAD"} or response.streaming:
        return response
    for name, value in told:
        response[name] = value
    if not response.has_header("ETag"):
        response["ETag"] = caching.etag(response.content)
    answered: Any = get_conditional_response(request, response["ETag"], None, response)
    kept: HttpResponseBase = answered
    return kept
