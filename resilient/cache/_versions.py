"""Which of two values of one key is the newer: told by a number of their row. Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from resilient.errors import InvalidInput

__all__ = ["VersionOf", "numbered", "version_of"]

VersionOf: TypeAlias = str | Callable[[Any], int | None]
"""The name of an attribute (or of a key, where values are mappings), or a function of the value."""

_MOST = 2**63


def numbered(version: Any) -> int:
    """A row's version as an entry keeps it; 0 where it is not known.

    Raises:
        InvalidInput: It is no whole number from 0 up that fits in 63 bits.

    Examples:
        >>> numbered(7), numbered(0), numbered(None)
        (8, 1, 0)
    """
    if version is None:
        return 0
    if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version < _MOST:
        raise InvalidInput(
            f"the version of a row is a whole number from 0 up, not {version!r}",
            advice="count the changes of a row in a column, as SQLAlchemy does with version_id_col",
        )
    return version + 1


def version_of(value: Any, told: VersionOf | None) -> int:
    """The version of a value, as an entry keeps it; 0 where it is not known.

    Raises:
        InvalidInput: The value has no such attribute or key, or what stands there is no version.

    Examples:
        >>> version_of({"id": 17, "version": 3}, "version")
        4
        >>> version_of(None, "version")
        0
    """
    if told is None or value is None:
        return 0
    if callable(told):
        return numbered(told(value))
    try:
        return numbered(value[told] if isinstance(value, Mapping) else getattr(value, told))
    except (KeyError, AttributeError):
        raise InvalidInput(
            f"the value has no {told!r} that would tell its version",
            advice="name an attribute or a key of the values, or pass version_of= a function of the value",
        ) from None
