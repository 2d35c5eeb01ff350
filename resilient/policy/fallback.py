"""The fallback: a substitute for an answer that did not come, and the mark that it bears."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from resilient.errors import ConfigurationError
from resilient.policy._checks import kinds, yes_or_no
from resilient.policy.classify import Failure

__all__ = ["Degraded", "Fallback"]

T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F")

if TYPE_CHECKING:
    import typing_extensions  # type checkers bring it; it is not needed to run

    Out_co = typing_extensions.TypeVar("Out_co", covariant=True, default=Any)
else:
    Out_co = TypeVar("Out_co", covariant=True)

_ANSWERED = frozenset({Failure.TRANSIENT, Failure.THROTTLED, Failure.TIMEOUT, Failure.UNAVAILABLE, Failure.READ_ONLY})


@dataclass(frozen=True, slots=True)
class Degraded(Generic[T_co]):
    """What a fallback gave instead of the real answer: look at it before you trust it.

    Args:
        value: The substitute.
        error: Why the real answer is missing.
    """

    value: T_co
    error: BaseException = field(compare=False)


@dataclass(frozen=True, slots=True)
class Fallback(Generic[Out_co]):
    """Answer with a substitute when all else failed.

    Args:
        answer: A function that takes the error and returns the substitute; it may be async for async calls.
        mark: Wrap the substitute in `Degraded`, so that nobody takes it for the real answer. ``False`` hands it out
            bare.
        on: The kinds of failure it answers for. An error no classifier knows goes to the caller unless
            `Failure.PERMANENT` is among them.

    Examples:
        >>> Fallback(lambda error: [], mark=False).mark
        False
    """

    answer: Callable[[Exception], Any]
    mark: bool = True
    on: frozenset[Failure] = _ANSWERED

    if TYPE_CHECKING:
        # ruff: noqa: FBT001, FBT002 - the same parameters as at run time
        # What a call may return in place of its own answer, so that a type checker asks for the mark to be looked at.

        @overload
        def __init__(
            self: Fallback[Degraded[F]],
            answer: Callable[[Exception], Awaitable[F]],
            mark: Literal[True] = True,
            on: Iterable[Failure] = ...,
        ) -> None: ...
        @overload
        def __init__(
            self: Fallback[F],
            answer: Callable[[Exception], Awaitable[F]],
            mark: Literal[False],
            on: Iterable[Failure] = ...,
        ) -> None: ...
        @overload
        def __init__(
            self: Fallback[Degraded[F]],
            answer: Callable[[Exception], F],
            mark: Literal[True] = True,
            on: Iterable[Failure] = ...,
        ) -> None: ...
        @overload
        def __init__(
            self: Fallback[F], answer: Callable[[Exception], F], mark: Literal[False], on: Iterable[Failure] = ...
        ) -> None: ...
        @overload
        def __init__(
            self: Fallback[F | Degraded[F]], answer: Callable[[Exception], F], mark: bool, on: Iterable[Failure] = ...
        ) -> None: ...
        def __init__(self, answer: Any, mark: bool = True, on: Any = None) -> None: ...

    def __post_init__(self) -> None:
        if not callable(self.answer):
            raise ConfigurationError(
                f"Fallback takes a function of the error, got {self.answer!r}",
                advice=f"write Fallback(lambda error: {self.answer!r})",
            )
        yes_or_no("Fallback", "mark", self.mark)
        object.__setattr__(self, "on", kinds("Fallback", "on", self.on))

    def __repr__(self) -> str:
        return f"Fallback({getattr(self.answer, '__name__', 'object')})"
