"""What a decorator needs to know of the function it is put on."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, ClassVar

from resilient.cache._codecs import ANYTHING
from resilient.errors import ConfigurationError

__all__ = ["AsyncMode", "Mode", "check_template", "is_value", "item_type", "require", "result_type"]


class Mode:
    """The sync face takes plain functions."""

    asynchronous: ClassVar[bool] = False


class AsyncMode:
    """The async face takes coroutine functions."""

    asynchronous: ClassVar[bool] = True


def require(function: Callable[..., Any], *, asynchronous: bool) -> None:
    """Refuse a function of the other world.

    Raises:
        ConfigurationError: It is a coroutine function and should not be one, or the other way round.
    """
    awaited = inspect.iscoroutinefunction(function)
    if asynchronous:  # a decorator in between may hide that its function is awaited
        awaited = awaited or inspect.iscoroutinefunction(inspect.unwrap(function))
    if awaited is not asynchronous:
        face, kind = ("AsyncCache", "async def") if asynchronous else ("Cache", "def")
        raise ConfigurationError(
            f"{getattr(function, '__qualname__', function)!r} cannot be decorated by this cache: {face} takes '{kind}'",
            advice="use the other face: Cache for def, AsyncCache for async def",
        )


def check_template(template: object, decorator: str) -> None:
    """Refuse what was meant otherwise than as a key's template.

    Raises:
        ConfigurationError: It is the function itself, or no text.
    """
    if callable(template):
        raise ConfigurationError(
            f"{decorator} stands with brackets", advice=f"write @cache.{decorator}('user:{{user_id}}')"
        )
    if template is not None and not isinstance(template, str):
        raise ConfigurationError(
            f"the first argument of {decorator} is the key's template, not {template!r}",
            advice=f"write @cache.{decorator}('user:{{user_id}}', ttl=60)",
        )


def result_type(function: Callable[..., Any]) -> Any:
    """The type that a function says it returns; `ANYTHING` where it does not say.

    Raises:
        ConfigurationError: The annotation names what cannot be found.
    """
    inner = inspect.unwrap(function)
    return _resolved(inner, getattr(inner, "__annotations__", {}).get("return", ANYTHING), "return type")


def item_type(function: Callable[..., Any]) -> Any:
    """The type of what stands in the list that a function takes; `ANYTHING` where it does not say.

    Raises:
        ConfigurationError: The annotation names what cannot be found.
    """
    inner = inspect.unwrap(function)
    names = [each for each in inspect.signature(inner).parameters if each not in {"self", "cls"}]
    annotation = getattr(inner, "__annotations__", {}).get(names[0], ANYTHING) if names else ANYTHING
    items = typing.get_args(_resolved(inner, annotation, "type of the values"))
    return items[0] if items else ANYTHING


def _resolved(inner: Callable[..., Any], annotation: Any, what: str) -> Any:
    if annotation is ANYTHING:
        return ANYTHING
    # Only this one annotation: the others may name types that are imported for type checkers alone.
    holder = types.SimpleNamespace(__annotations__={"found": annotation})
    names = {**getattr(inner, "__globals__", {})}
    try:
        return typing.get_type_hints(holder, globalns=names)["found"]
    except NameError as error:
        raise ConfigurationError(
            f"the {what} of {getattr(inner, '__qualname__', inner)} cannot be found: {error}",
            advice="define or import it where the function's module can see it, or pass type= to the decorator",
        ) from error


def is_value(result: Any) -> bool:
    """Whether what a writer returned is the new value, and not a count of rows or nothing at all."""
    return result is not None and not isinstance(result, int)
