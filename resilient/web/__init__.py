"""Framework-free mounts for WSGI, ASGI and AWS Lambda: the scope of a request, its deadline, and the health routes.

    >>> from resilient.health import Health
    >>> from resilient.web import wsgi
    >>> application = wsgi.health(Health())

`resilient.flask` and `resilient.django` are made of these.
"""

from resilient.web import asgi, awslambda, wsgi
from resilient.web._errors import HttpError, http_error
from resilient.web._log import ProbeFilter, quiet_probes
from resilient.web._token import COOKIE, HEADER, carry

__all__ = [
    "COOKIE",
    "HEADER",
    "HttpError",
    "ProbeFilter",
    "asgi",
    "awslambda",
    "carry",
    "http_error",
    "quiet_probes",
    "wsgi",
]
