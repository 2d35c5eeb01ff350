"""Keys and tags of calls: from templates and the arguments of one function, worked out once for each function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

from resilient.cache._keys import has_key, parse, render, tag_name
from resilient.errors import ConfigurationError

__all__ = ["KeyMaker", "TagMaker"]

_Step: TypeAlias = tuple[str, int, Callable[[Any], Any] | None]  # a text, and the place and the path of what follows it

_NOTHING: Any = inspect.Parameter.empty
_SELF = -2  # the place of an object whose class may say what it is in a key
_NONE = -1  # no value follows
_STAR = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


class _Arguments:
    """The arguments of calls to one function, in the order of its parameters, defaults filled in."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.signature = inspect.signature(function)
        parameters = list(self.signature.parameters.values())
        self.names = [each.name for each in parameters]
        self.places = {name: place for place, name in enumerate(self.names)}
        self._defaults = tuple(each.default for each in parameters)
        self._size = len(parameters)
        positional = [each for each in parameters if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]
        # What the quick way does not know (*args and **kwargs) goes the way of inspect.
        self._most = -1 if any(each.kind in _STAR for each in parameters) else len(positional)
        self._by_name = {each.name: self.places[each.name] for each in parameters if each.kind != each.POSITIONAL_ONLY}
        self._required = [place for place, default in enumerate(self._defaults) if default is _NOTHING]
        self._enough = self._required[-1] + 1 if self._required else 0

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any]:
        """The values of a call. Raises TypeError where the function itself would."""
        count = len(args)
        if count > self._most:
            return self._bound(args, kwargs)
        if not kwargs:
            if count == self._size:
                return args
            if count < self._enough:
                return self._bound(args, kwargs)
            return args + self._defaults[count:]
        values = [*args, *self._defaults[count:]]
        for name, value in kwargs.items():
            place = self._by_name.get(name, -1)
            if place < count:
                return self._bound(args, kwargs)
            values[place] = value
        for place in self._required:
            if values[place] is _NOTHING:
                return self._bound(args, kwargs)
        return values

    def takes_only(self, count: int) -> bool:
        """Whether a call with so many arguments by place, and no other, is one of this function."""
        return self._most == self._size == count

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any]:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return list(bound.arguments.values())


def _steps(
    fields: list[tuple[str, str | None]], names: list[str], what: str, function: Callable[..., Any]
) -> list[_Step]:
    steps: list[_Step] = []
    for literal, field in fields:
        name, _, path = (field or "").partition(".")
        if field is not None and name not in names:
            raise ConfigurationError(
                f"{what} names {name!r}, which is no parameter of {_called(function)}",
                advice=f"it has: {', '.join(names) or 'none'}",
            )
        steps.append((literal, names.index(name) if name else _NONE, attrgetter(path) if path else None))
    return steps


def _called(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", function))


def _text(steps: list[_Step], values: Sequence[Any]) -> str:
    text = ""
    for literal, place, attribute in steps:
        if place == _NONE:
            text += literal
            continue
        if place == _SELF:
            if has_key(values[0]):
                text += literal + render(values[0])
            continue
        value = values[place] if attribute is None else attribute(values[place])
        # A number and a text are what most keys hold.
        text += f"{literal}{value}" if type(value) is int else literal + render(value)
    return text


def _named(steps: list[_Step]) -> set[tuple[int, str]]:
    return {(place, repr(attribute)) for _, place, attribute in steps if place != _NONE}


class KeyMaker:
    """Builds keys from the arguments of one function; everything that can be worked out once is.

    Args:
        function: The function whose calls are cached.
        template: Text with ``{parameter}`` or ``{parameter.attribute}``; ``None`` takes the function's name and all its
            parameters except ``cls``, and except ``self`` unless its class has a method ``__cache_key__()``.
        shared: Accept a template that names no parameter of a function that has some: one key for all its calls.

    Raises:
        ConfigurationError: The template names what is no parameter, or none where there are some, or cannot be read.

    Examples:
        >>> def get_user(user_id, lang="en"): ...
        >>> KeyMaker(get_user, "user:{user_id}:{lang}")((17,), {})
        'user:17:"en"'
    """

    __slots__ = ("_arguments", "_steps")

    def __init__(self, function: Callable[..., Any], template: str | None, *, shared: bool = False) -> None:
        self._arguments = _Arguments(function)
        names = self._arguments.names
        named = [name for name in names if name not in {"self", "cls"}]
        if template is None:
            self._steps = _whole(function, names, named)
            return
        fields = parse(template)
        if named and not shared and all(field is None for _, field in fields):
            raise ConfigurationError(
                f"the key template {template!r} names no parameter, so that every call of {_called(function)} "
                "would be answered with the value of the first",
                advice=f"write '{template}:{{{named[0]}}}', or shared=True if one value is right for all",
            )
        self._steps = _steps(fields, names, f"the key template {template!r}", function)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The key of a call.

        Raises:
            TypeError: Where the function itself would.
            InvalidInput: An argument has no text that means it alone.
        """
        return _text(self._steps, self._arguments(args, kwargs))

    @property
    def named(self) -> set[tuple[int, str]]:
        """The places of the parameters that stand in the key, and the paths from them."""
        return _named(self._steps)

    @property
    def plain(self) -> list[str] | None:
        """The texts before, between and after the parameters, where the key is these and all parameters in their order.

        ``None`` where it is made in any other way.
        """
        places = [place for _, place, _ in self._steps if place != _NONE]
        if places != list(range(len(self._arguments.names))) or not self._arguments.takes_only(len(places)):
            return None
        texts = [""]
        for literal, place, attribute in self._steps:
            texts[-1] += literal
            if place != _NONE:
                if attribute is not None:
                    return None
                texts.append("")
        return texts


def _whole(function: Callable[..., Any], names: list[str], named: list[str]) -> list[_Step]:
    """The steps of a key that holds the function's name and all that its result may depend on."""
    head = f"{function.__module__}.{function.__qualname__}".replace("<locals>.", "")
    steps: list[_Step] = [(head, _NONE, None)]
    if names[:1] == ["self"]:
        steps.append((":", _SELF, None))
    return steps + [(":", names.index(name), None) for name in named]


class TagMaker:
    """Builds the tags of calls to one function.

    Texts stand in tags as they are, so that ``tags=["user:{name}"]`` is what ``invalidate_tags("user:ada")`` means. Two
    calls that share a tag by that are invalidated together, which does no harm.

    Args:
        function: The function whose values bear the tags.
        templates: Texts with ``{parameter}`` or ``{parameter.attribute}``, or with neither.

    Raises:
        ConfigurationError: A template cannot be read, or names what is no parameter.

    Examples:
        >>> def get_user(user_id, lang="en"): ...
        >>> TagMaker(get_user, ["users", "user:{user_id}", "lang:{lang}"])((17,), {})
        ('users', 'user:17', 'lang:en')
    """

    __slots__ = ("_arguments", "_fixed", "_templates")

    def __init__(self, function: Callable[..., Any], templates: Iterable[str]) -> None:
        if isinstance(templates, str):
            raise ConfigurationError("tags are a list of texts", advice=f"write tags=[{templates!r}]")
        self._arguments = _Arguments(function)
        names = self._arguments.names
        self._templates = [_steps(parse(each), names, f"the tag {each!r}", function) for each in templates]
        varies = any(place != _NONE for steps in self._templates for _, place, _ in steps)
        self._fixed = None if varies else self._made(())

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
        """The tags of a call.

        Raises:
            TypeError: Where the function itself would.
            InvalidInput: An argument has no text.
        """
        if self._fixed is not None:
            return self._fixed
        return self._made(self._arguments(args, kwargs))

    def follows(self, maker: KeyMaker) -> bool:
        """Whether two calls with the same key have the same tags: all that is named in these is named in that."""
        named = maker.named
        return all(step in named for steps in self._templates for step in _named(steps))

    def _made(self, values: Sequence[Any]) -> tuple[str, ...]:
        return tuple(dict.fromkeys([tag_name(_plain(steps, values)) for steps in self._templates]))


def _plain(steps: list[_Step], values: Sequence[Any]) -> str:
    text = ""
    for literal, place, attribute in steps:
        text += literal
        if place != _NONE:
            value = values[place] if attribute is None else attribute(values[place])
            text += value if type(value) is str else render(value)
    return text
