"""Keys of calls in as few steps as can be: the way of every hit.

What is made here is, for arguments of the usual types, the same text that `KeyMaker` and `physical` give. For all
others it is ``None``, and those are asked. A shorter way must never give a text that means another call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from resilient.cache._keys import is_safe, physical
from resilient.cache._templates import KeyMaker

__all__ = ["KeyOf", "key_of"]

KeyOf: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], str]

_FIXED = 100
"""Characters of all that is fixed in a key."""
_TEXTS = 80
"""Characters of the texts of one call: more than that goes the long way, on which long keys are hashed."""
_GREAT = 10**20


def key_of(maker: KeyMaker, namespace: str) -> KeyOf:
    """What makes the store's keys for calls to one function.

    Args:
        maker: What makes its keys without the namespace.
        namespace: The cache's.

    Examples:
        >>> def get_user(user_id): ...
        >>> key_of(KeyMaker(get_user, "user:{user_id}"), "shop")((17,), {})
        'shop:user:17'
    """

    def slow(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return physical(namespace, maker(args, kwargs))

    plain = _fixed(maker)
    if plain is None:
        return slow
    head, *between = plain
    head = f"{namespace}:{head}"
    if len(between) == 1:
        return _with_one(head, between[0], slow)
    return _with_several(head, between, slow) if between else slow


def around_one(maker: KeyMaker, namespace: str) -> tuple[str, str] | None:
    """What stands before and after a whole number in the keys of a function with one parameter, where that is all."""
    plain = _fixed(maker)
    return None if plain is None or len(plain) != 2 else (f"{namespace}:{plain[0]}", plain[1])


def _fixed(maker: KeyMaker) -> list[str] | None:
    """The texts around the arguments; ``None`` where there is more to a key."""
    plain = maker.plain
    if plain is None or sum(map(len, plain)) > _FIXED or any(map(_is_odd, plain)):
        return None
    return plain


def _is_odd(text: str) -> bool:
    """Whether a fixed part could make a key that is hashed."""
    return not text.isascii() or "{" in text or "}" in text or "#" in text


def _with_one(head: str, tail: str, slow: KeyOf) -> KeyOf:
    def key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if len(args) == 1 and not kwargs:
            value = args[0]
            kind = value.__class__
            if kind is int:
                return f"{head}{value}{tail}" if -_GREAT < value < _GREAT else slow(args, kwargs)
            if kind is str and len(value) <= _TEXTS and is_safe(value) and "#" not in value:
                return f'{head}"{value}"{tail}'
        return slow(args, kwargs)

    return key


def _with_several(head: str, between: list[str], slow: KeyOf) -> KeyOf:
    count = len(between)

    def key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if len(args) != count or kwargs:
            return slow(args, kwargs)
        text, length = head, 0
        for value, after in zip(args, between, strict=True):
            kind = value.__class__
            if kind is int:
                if not -_GREAT < value < _GREAT:
                    return slow(args, kwargs)
                text = f"{text}{value}{after}"
            elif kind is str and is_safe(value) and "#" not in value:
                length += len(value)
                text = f'{text}"{value}"{after}'
            else:
                return slow(args, kwargs)
        return text if length <= _TEXTS else slow(args, kwargs)

    return key
