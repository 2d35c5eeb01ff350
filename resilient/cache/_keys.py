"""Keys and their parts as text, without two meanings sharing one key.

Each part of a key tells its type (``17`` is an integer, ``"17"`` is text) and is escaped, so that no value can end its
part and start another. The pure part of the cache: no clock, no I/O.
"""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import re
import string
import uuid
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any
from urllib.parse import quote

from resilient.arguments import is_name
from resilient.errors import ConfigurationError, InvalidInput

__all__ = [
    "check_namespace",
    "has_key",
    "is_safe",
    "parse",
    "physical",
    "physical_many",
    "render",
    "tag_name",
    "tag_names",
    "tag_templates",
]

_LONGEST = 200  # characters; a longer key keeps its head, for people, and ends in a hash
_SAFE = " !#$&'()*+,-./;<=>?@[]^_`|~"  # everything printable but the quote, the colon, the percent sign and braces

is_safe = re.compile(rf"[A-Za-z0-9{re.escape(_SAFE)}]*").fullmatch
"""Whether a text stands in a key as it is, between quotes."""

_RENDER: dict[type, Callable[[Any], str]] = {
    int: str,
    str: lambda value: f'"{value if is_safe(value) else quote(value, safe=_SAFE, errors="surrogatepass")}"',
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

    An object whose class has a method or an attribute ``__cache_key__`` stands for what that tells.

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
    if has_key(value):
        own = value.__cache_key__
        return render(own() if callable(own) else own)
    raise InvalidInput(
        f"a {type(value).__qualname__} cannot be part of a cache key",
        advice="name a plain attribute of it in the template, as in 'user:{user.id}', or give its class a method "
        "__cache_key__() that returns plain values",
    )


def has_key(value: Any) -> bool:
    """Whether an object says itself what it is in a key."""
    return hasattr(type(value), "__cache_key__")


def check_namespace(namespace: object) -> None:
    """Refuse a namespace that could run into a key: ``a`` with ``b:c`` would be ``a:b`` with ``c``.

    Raises:
        ConfigurationError: It is no word of letters, digits, ``_``, ``-`` and ``.``, at most 64 of them.
    """
    if not is_name(namespace):
        raise ConfigurationError(
            "a cache's namespace is a word of letters, digits, '_', '-' and '.'",
            advice="write namespace='shop'; what tells entries apart belongs into their keys",
        )


def physical(namespace: str, key: str) -> str:
    """The key under which the store knows it.

    A long one ends in a hash of the whole; so does one that is no UTF-8, one with braces, by which a Cluster would
    choose its place, and one that looks as if it ended in such a hash.

    Raises:
        InvalidInput: The key is no text, or empty.
    """
    if (  # as most are, which are stored as they are: asked in the shortest way, for every hit
        key.__class__ is str
        and key.isascii()
        and 0 < len(key) <= _LONGEST
        and not ("#" in key or "{" in key or "}" in key)
    ):
        return f"{namespace}:{key}"
    return f"{namespace}:{_stored(key)}"


def _stored(key: str) -> str:
    """The same without the namespace, of any key."""
    if not isinstance(key, str) or not key:  # type: ignore[redundant-expr]  # callers may not check types
        raise _no_text("a cache key", key)
    return _hashed(key) if key[-33:-32] == "#" or not _is_plain(key) else key


def physical_many(namespace: str, keys: Sequence[str]) -> list[str]:
    """The same of several keys, at least one: whether all are plain, as most are, is asked of them together.

    Raises:
        InvalidInput: A key is no text, or empty.

    Examples:
        >>> physical_many("shop", ["user:1", "user:2"])
        ['shop:user:1', 'shop:user:2']
    """
    try:
        whole = "".join(keys)
    except TypeError:  # one is no text
        whole = "#"
    if (
        whole.isascii()
        and not ("#" in whole or "{" in whole or "}" in whole)
        and all(keys)
        and max(map(len, keys)) <= _LONGEST
    ):
        prefix = f"{namespace}:"
        return [prefix + key for key in keys]
    return [physical(namespace, key) for key in keys]


def _no_text(what: str, given: object) -> InvalidInput:
    several = isinstance(given, list | tuple | set | frozenset)
    advice = "write a star before a list, as in cache.invalidate(*keys)" if several else None
    kind = "an empty one" if isinstance(given, str) else f"a {type(given).__name__}"
    return InvalidInput(f"{what} is a text that is not empty, and this is {kind}", advice=advice)


def tag_name(tag: str) -> str:
    """A tag as entries bear it, and as the store's key of its stamp names it: as it is, unless a key could not be so.

    What it gives stays as it is when asked again. A tag that looks like what another becomes is invalidated with it,
    which does no harm.

    Raises:
        InvalidInput: The tag is no text, or empty.

    Examples:
        >>> tag_name("user:17"), len(tag_name("{" + "x" * 500))
        ('user:17', 133)
    """
    if not isinstance(tag, str) or not tag:  # type: ignore[redundant-expr]  # callers may not check types
        raise _no_text("a tag", tag)
    return tag if _is_plain(tag) else _hashed(tag)


def tag_names(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags as entries bear them, each once.

    Raises:
        ConfigurationError: One text was given instead of a list.
        InvalidInput: A tag is no text, or empty.
    """
    return tuple(dict.fromkeys(map(tag_name, tag_templates(tags))))


def tag_templates(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags as a decorator takes them. Raises ConfigurationError where one text was given instead of a list."""
    if isinstance(tags, str):
        raise ConfigurationError("tags are a list of texts", advice=f"write tags=[{tags!r}]")
    return tuple(tags)


def _is_plain(text: str) -> bool:
    return not (len(text) > _LONGEST or "{" in text or "}" in text) and (text.isascii() or _is_utf8(text))


def _hashed(text: str) -> str:
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{text[:100].encode(errors='replace').decode().translate(_NO_BRACES)}#{digest}"


_NO_BRACES = str.maketrans("{}", "()")


def _is_utf8(text: str) -> bool:
    """Whether a server's client can send it: JSON may hold half a surrogate pair, and so may the name of a file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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


def parse(template: str) -> list[tuple[str, str | None]]:
    """A template as pairs of a text and the parameter that follows it.

    Raises:
        ConfigurationError: It cannot be read, or does not tell where one parameter ends and the next begins.
    """
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
