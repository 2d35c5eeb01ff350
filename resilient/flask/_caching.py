"""Pages made of cached values, for browsers and shared caches to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response, make_response, request

from resilient.web import caching

if TYPE_CHECKING:
    from resilient.cache import Lookup

__all__ = ["http_cached"]


def http_cached(
    answer: Any,
    *found: Lookup[Any],
    public: bool = False,
    browsers: float | None = None,
    names_in: str | None = None,
) -> Response:
    """A view's answer with an entity tag and the times for which it may be kept; 304 where the client has it already.

    An answer that is no 200 to a GET or a HEAD, or that is streamed, is left as it is: nobody keeps it.

    Args:
        answer: What a view may return.
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

            @app.get("/people/<int:user_id>")
            def person(user_id):
                found = get_user.lookup(user_id)
                return http_cached(render_template("person.html", user=found.value), found)
    """
    told = caching.headers(*found, public=public, browsers=browsers, names_in=names_in)
    response: Response = make_response(answer)
    if response.status_code != 200 or request.method not in {"GET", "HEAD"} or response.is_streamed:
        return response
    for name, value in told:
        response.headers[name] = value
    if "ETag" not in response.headers:
        response.headers["ETag"] = caching.etag(response.get_data())
    response.make_conditional(request)
    return response
