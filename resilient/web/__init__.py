"""Framework-free mounts for WSGI and ASGI: the scope of a request, its deadline, and the health routes.

    >>> from resilient.health import Health
    >>> from resilient.web import wsgi
    >>> application = wsgi.health(Health())

`resilient.flask` and `resilient.django` are made of these.
"""

from resilient.web import asgi, wsgi
from resilient.web._errors import HttpError, http_error
from resilient.web._token import COOKIE, HEADER, carry

__all__ = ["COOKIE", "HEADER", "HttpError", "asgi", "carry", "http_error", "wsgi"]
