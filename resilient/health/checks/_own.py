"""A function of the application's own."""

from __future__ import annotations

import builtins

from resilient.errors import ConfigurationError
from resilient.health._core import Check, CheckFunction, Scope

__all__ = ["callable"]


def callable(  # noqa: A001 - reads as checks.callable(...)
    function: CheckFunction, *, scope: Scope = "local", dependency: bool = False, kind: str = "component"
) -> Check:
    """A function of your own.

    Args:
        function: Returns nothing or True (pass), False (fail) or a `Result`, or raises. May be async.
        scope: Whether a fault is this instance's alone, or of something that all instances use.
        dependency: Whether it asks something outside the process; liveness refuses such a check.
        kind: What is checked: ``component``, ``datastore`` or ``system``.

    Examples:
        >>> callable(lambda: True).scope
        'local'
    """
    if not builtins.callable(function):
        raise ConfigurationError(f"a {type(function).__name__} cannot be called")
    return Check(function, kind=kind, scope=scope, dependency=dependency)
