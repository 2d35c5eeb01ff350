"""Keys: from a template or a whole signature and the arguments of a call, without two meanings sharing one key.

Each part of a key tells its type (``17`` is an integer, ``"17"`` is text) and is escaped, so that no value can end its
part and start another. The pure part of the cache: no clock, no I/O.
"""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import inspect
import re
import string
import uuid
from collections.abc import Callable
from enum import Enum
from operator import attrgetter
from typing import Any
from urllib.parse import quote

from resilient.errors import ConfigurationError, InvalidInput

__all__ = ["KeyMaker", "check_namespace", "physical", "render"]

_LONGEST = 200  # characters; a longer key keeps its head, for people, and ends in a hash
_SAFE = " !#$&'()*+,-./;<=>?@[]^_`|~"  # everything printable but the quote, the colon, the percent sign and braces

_RENDER: dict[type, Callable[[Any], str]] = {
    int: str,
    str: lambda value: f'"{quote(value, safe=_SAFE, errors="surrogatepass")}"',
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "none",
    float: lambda value: f"float({value!r})",
    bytes: lambda value: f"bytes({value.hex()})",
    uuid.UUID: lambda value: f"uuid({value})",
    decimal.Decimal: lambda value: f"decimal({value})",
    dt.datetime: lambda value: f"datetime({quote(value.isoformat(), safe='')})",
    dt.date: lambda value: f"date({value})",
    dt.time: lambda value: f"time({quote(value.isoformat(), safe='')})",
    dt.timedelta: lambda value: f"timedelta({value.days},{value.seconds},{value.microseconds})",
    tuple: lambda value: f"({','.join(map(render, value))})",
    list: lambda value: f"[{','.join(map(render, value))}]",
    frozenset: lambda value: f"set({','.join(sorted(map(render, value)))})",
    set: lambda value: f"set({','.join(sorted(map(render, value)))})",
    dict: lambda value: f"dict({','.join(sorted(f'{render(k)}={render(v)}' for k, v in value.items()))})",
}


def render(value: Any) -> str:
    """One part of a key.

    Raises:
        InvalidInput: A value of this type has no text that means it alone.

    Examples:
        >>> render(17), render("17"), render(("a:b", None))
        ('17', '"17"', '("a%3Ab",none)')
    """
    known = _RENDER.get(type(value))
    if known is not None:
        return known(value)
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    raise InvalidInput(
        f"a {type(value).__qualname__} cannot be part of a cache key",
        advice="name a plain attribute of it in the template, as in 'user:{user.id}'",
    )


def check_namespace(namespace: object) -> None:
    """Refuse a namespace that could run into a key: ``a`` with ``b:c`` would be ``a:b`` with ``c``.

    Raises:
        ConfigurationError: It is no word of letters, digits, ``_``, ``-`` and ``.``, at most 64 of them.
    """
    if not isinstance(namespace, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", namespace):
        raise ConfigurationError(
            "a cache's namespace is a word of letters, digits, '_', '-' and '.'",
            advice="write namespace='shop'; what tells entries apart belongs into their keys",
        )


def physical(namespace: str, key: str) -> str:
    """The key under which the store knows it; a long one, and one that is no UTF-8, ends in a hash of the whole.

    Raises:
        InvalidInput: The key is no text, or empty.
    """
    if not isinstance(key, str) or not key:  # type: ignore[redundant-expr]  # callers may not check types
        raise InvalidInput("a cache key is a text that is not empty")
    if len(key) > _LONGEST or not (key.isascii() or _is_utf8(key)):
        digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).hexdigest()
        key = f"{key[:100].encode(errors='replace').decode()}#{digest}"
    return f"{namespace}:{key}"


def _is_utf8(text: str) -> bool:
    """Whether a server's client can send it: JSON may hold half a surrogate pair, and so may the name of a file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class KeyMaker:
    """Builds keys from the arguments of one function; everything that can be worked out once is.

    Args:
        function: The function whose calls are cached.
        template: Text with ``{parameter}`` or ``{parameter.attribute}``; ``None`` takes the function's name and all its
            parameters except ``self`` and ``cls``.
        shared: Accept a template that names no parameter of a function that has some: one key for all its calls.

    Raises:
        ConfigurationError: The template names what is no parameter, or none where there are some, or cannot be read.

    Examples:
        >>> def get_user(user_id, lang="en"): ...
        >>> KeyMaker(get_user, "user:{user_id}:{lang}")((17,), {})
        'user:17:"en"'
    """

    def __init__(self, function: Callable[..., Any], template: str | None, *, shared: bool = False) -> None:
        self._signature = inspect.signature(function)
        names = list(self._signature.parameters)
        named = [name for name in names if name not in {"self", "cls"}]
        if template is None:
            head = f"{function.__module__}.{function.__qualname__}".replace("<locals>.", "")
            fields: list[tuple[str, str | None]] = [
                (":" if index else head + ":", name) for index, name in enumerate(named)
            ] or [(head, None)]
        else:
            fields = _parse(template)
            if named and not shared and all(field is None for _, field in fields):
                raise ConfigurationError(
                    f"the key template {template!r} names no parameter, so that every call of {function.__qualname__} "
                    "would be answered with the value of the first",
                    advice=f"write '{template}:{{{named[0]}}}', or shared=True if one value is right for all",
                )
        self._steps: list[tuple[str, str | None, Callable[[Any], Any] | None]] = []
        for literal, field in fields:
            name, _, path = (field or "").partition(".")
            if field is not None and name not in names:
                raise ConfigurationError(
                    f"the key template {template!r} names {name!r}, which is no parameter of {function.__qualname__}",
                    advice=f"it has: {', '.join(names) or 'none'}",
                )
            self._steps.append((literal, name or None, attrgetter(path) if path else None))
        self._plan_positions()

    def _plan_positions(self) -> None:
        """Most calls name no parameter: for them the places of the values are worked out once."""
        parameters = list(self._signature.parameters.values())
        plain = all(each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD} for each in parameters)
        self._most = len(parameters) if plain else -1
        self._least = sum(each.default is each.empty for each in parameters)
        self._defaults = tuple(each.default for each in parameters)
        places = {each.name: place for place, each in enumerate(parameters)}
        self._places = [
            (literal, -1 if name is None else places[name], attribute) for literal, name, attribute in self._steps
        ]

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The key of a call. Raises TypeError where the function itself would."""
        if not kwargs and self._least <= len(args) <= self._most:
            given = args if len(args) == self._most else args + self._defaults[len(args) :]
            key = ""
            for literal, place, attribute in self._places:
                if place < 0:
                    key += literal
                    continue
                value = given[place] if attribute is None else attribute(given[place])
                key += literal + render(value)
            return key
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = bound.arguments
        text = []
        for literal, name, attribute in self._steps:
            text.append(literal)
            if name is not None:
                value = values[name]
                text.append(render(attribute(value) if attribute is not None else value))
        return "".join(text)


def _runs_together(parts: list[tuple[str, str | None, str | None, str | None]]) -> bool:
    """Whether two numbers could share a key with two others, as 1 and 23 with 12 and 3 where nothing stands between."""
    between: str | None = None  # the text since the last parameter; None before the first
    for literal, field, _, _ in parts:
        between = None if between is None else between + literal
        if field is not None:
            if between is not None and (not between or between.isalnum()):
                return True
            between = ""
    return False


def _parse(template: str) -> list[tuple[str, str | None]]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(f"the key template {template!r} cannot be read: {error}") from error
    if not template or any(spec or conversion or field == "" for _, field, spec, conversion in parts):
        raise ConfigurationError(
            f"the key template {template!r} may hold text, {{parameter}} and {{parameter.attribute}} only"
        )
    if any(field is not None and "[" in field for _, field, _, _ in parts):
        raise ConfigurationError(f"the key template {template!r} may not index; name a parameter or an attribute")
    if _runs_together(parts):
        raise ConfigurationError(
            f"the key template {template!r} does not tell where one parameter ends and the next begins",
            advice="put a colon between them",
        )
    return [(literal, field) for literal, field, _, _ in parts]
