"""Names of a package that are loaded when they are first used, so that importing it costs only what is needed of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

__all__ = ["loaded_when_used"]


def loaded_when_used(
    package: dict[str, Any], homes: Mapping[str, str], modules: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__`` (PEP 562).

    Args:
        package: Its ``globals()``, where a name stands once it was loaded.
        homes: The module in which each name stands.
        modules: Names that are modules of the package themselves.

    Examples:
        >>> package = {"__name__": "shapes"}
        >>> look, names = loaded_when_used(package, {"OrderedDict": "collections"})
        >>> look("OrderedDict") is package["OrderedDict"], names()
        (True, ['OrderedDict', '__name__'])
    """

    def look(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"{package['__name__']}.{name}")
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        value = package[name] = getattr(importlib.import_module(home), name)
        return value

    def names() -> list[str]:
        return sorted({*package, *homes, *modules})

    return look, names
