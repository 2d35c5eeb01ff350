"""The pipeline: policies round the calls to one dependency."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Generic, Never, ParamSpec, Self, TypeVar, cast, overload

from resilient.clock import SYSTEM, Clock
from resilient.errors import ConfigurationError
from resilient.policy import _compile
from resilient.policy import classify as _classify
from resilient.policy._breaker import Counts
from resilient.policy._hedged import hedged
from resilient.policy._order import checked
from resilient.policy._slow import Slow
from resilient.policy._state import State, find
from resilient.policy.attempts import Attempts
from resilient.policy.classify import Classifier
from resilient.policy.control import BreakerControl
from resilient.policy.policies import Deadline, Fallback, Hedge, Layer, Policy, Retry

__all__ = ["Calls", "Pipeline", "Stats"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F")

if TYPE_CHECKING:
    import typing_extensions  # type checkers bring it; it is not needed to run

    Out_co = typing_extensions.TypeVar("Out_co", covariant=True, default=Never)
else:
    Out_co = TypeVar("Out_co", covariant=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """What a pipeline has seen since it was made, in this process.

    Args:
        succeeded: Calls that succeeded, with or without retries.
        failed: Calls that reached the dependency and failed in the end.
        retried: Attempts beyond the first.
        recovered: Calls that succeeded after a failure.
        suppressed: Retries that were wanted and not made: no budget, no time, not idempotent, retried below.
        rejected: Calls that were not made: breaker, bulkhead, rate limit, deadline.
        hedged: Second calls made because the first was late.
        fell_back: Calls answered by the fallback.
        running: Calls inside the bulkhead now; ``None`` without one.
        breaker: The breaker's state; ``None`` without one.
        window: What the breaker's window holds; ``None`` without one.
    """

    succeeded: int
    failed: int
    retried: int
    recovered: int
    suppressed: int
    rejected: int
    hedged: int
    fell_back: int
    running: int | None
    breaker: str | None
    window: Counts | None


class _Compiled:
    """A callable that is compiled when it is first asked for, and from then on found on the object itself."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, calls: Any, owner: type | None = None) -> Any:
        if calls is None:
            return self
        compiled = calls.__dict__[self.name] = calls._compile(is_async=self.is_async)  # noqa: SLF001 - its other half
        return compiled


class Calls(Generic[Out_co]):
    """The ways to make a call through a pipeline; `Pipeline` itself and `Pipeline.idempotent` are two such ways.

    To a type checker a call returns what its function returns, or what the pipeline's `Fallback` may give instead: the
    parameter of this class, which is nothing for pipelines without one.
    """

    _slow: Slow
    _policies: tuple[Policy, ...]

    if TYPE_CHECKING:

        def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | Out_co:
            """Call a function.

            Raises:
                CircuitOpen: The breaker is open; the function was not called.
                Overloaded: The bulkhead or the rate limit has no room; the function was not called.
                DeadlineExceeded: Time ran out.
                InvalidInput: The function is async.
                Exception: What the function raised in the end.
            """
            ...

        async def acall(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T | Out_co:
            """Call an async function; raises what `call` raises, and cancels it when the deadline passes."""
            ...

    else:
        call = _Compiled(is_async=False)
        acall = _Compiled(is_async=True)

    def attempts(self) -> Attempts:
        """The block form, for code that is no function.

        Examples:
            >>> for attempt in Pipeline("doc", Retry()).attempts():
            ...     with attempt:
            ...         answer = 42
            >>> answer
            42
        """
        if find(self._policies, Hedge) is not None:
            raise ConfigurationError("a block cannot be hedged", advice="write pipeline.idempotent.call(function, ...)")
        if find(self._policies, Fallback) is not None:
            raise ConfigurationError(
                "a block has no answer that a fallback could replace",
                advice="write pipeline.call(function, ...), or keep the blocks to a pipeline without a Fallback",
            )
        return Attempts(self._slow, self._policies)

    @overload
    def __call__(self: Calls[Never], function: Callable[P, T]) -> Callable[P, T]: ...  # type: ignore[overload-overlap] # all the same to nothing
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> Callable[P, Coroutine[Any, Any, R | Out_co]]: ...
    @overload
    def __call__(self, function: Callable[P, T]) -> Callable[P, T | Out_co]: ...
    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a function, sync or async. To call one, write ``pipeline.call(function, ...)``."""
        if not callable(function):
            raise ConfigurationError(f"{function!r} is no function", advice="write pipeline.call(function, ...)")
        # A wrapper is judged by itself: what it wraps may be async where it is sync, and the other way round.
        target: Any = function
        while isinstance(target, functools.partial):
            target = target.func
        target = target if inspect.isroutine(target) else getattr(target, "__call__", target)  # noqa: B004 - its method
        if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
            raise ConfigurationError(
                f"{function!r} is a generator: it would be called and not run",
                advice="write: for attempt in pipeline.attempts(): with attempt: ...",
            )
        is_async = inspect.iscoroutinefunction(target)
        return functools.wraps(function)(self._compile(is_async=is_async, function=function))

    def _compile(self, *, is_async: bool, function: Callable[..., Any] | None = None) -> Callable[..., Any]:
        hedge = find(self._policies, Hedge)
        if hedge is None:
            return _compile.build(self._slow, self._policies, is_async=is_async, function=function)
        return hedged(self._slow, self._policies, hedge, is_async=is_async, function=function)


class Pipeline(Calls[Out_co]):
    """Policies round the calls to one dependency, outermost first, compiled once.

    One pipeline stands for one dependency: its breaker, bulkhead and counters are shared by everything that calls
    through it, sync and async, in all threads. Make it once, at import time.

    Args:
        name: What it protects; appears in errors, events and metrics. Pipelines of one name share their retry budget.
        *policies: Any of `Fallback`, `Deadline`, `RateLimit`, `Retry`, `Budget`, `Hedge`, `Breaker`, `Bulkhead` and
            a last `Deadline` for each attempt; an order that makes no sense is refused.
        classify: A classifier, or several, asked before the one for Python's and this library's own errors.
        clock: Where time is read.

    Raises:
        ConfigurationError: The policies make no sense together; the message says what to write instead.

    Examples:
        >>> orders = Pipeline("orders-db", Retry(attempts=3))
        >>> orders.call(max, 1, 2)
        2
        >>> @orders
        ... def load(number: int) -> int:
        ...     return number
        >>> load(42)
        42
        >>> print(orders)
        orders-db: Retry(attempts=3)
    """

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: Pipeline[Never],
            name: str,
            *policies: Layer,
            classify: Classifier | Iterable[Classifier] | None = None,
            clock: Clock = SYSTEM,
        ) -> None: ...
        @overload
        def __init__(
            self: Pipeline[F],
            name: str,
            fallback: Fallback[F],
            /,
            *policies: Layer,
            classify: Classifier | Iterable[Classifier] | None = None,
            clock: Clock = SYSTEM,
        ) -> None: ...
        @overload
        def __init__(
            self: Pipeline[Any],
            name: str,
            *policies: Policy,
            classify: Classifier | Iterable[Classifier] | None = None,
            clock: Clock = SYSTEM,
            _state: State | None = None,
        ) -> None: ...

    def __init__(
        self,
        name: str,
        *policies: Policy,
        classify: Classifier | Iterable[Classifier] | None = None,
        clock: Clock = SYSTEM,
        _state: State | None = None,
    ) -> None:
        self.__dict__["_policies"] = checked(name, policies)
        if not isinstance(clock, Clock):
            raise ConfigurationError(f"{clock!r} is no clock", advice="leave clock out, or give a FakeClock()")
        given = _given(classify)
        judge = _classify.chain((*given, _classify.default)) if given else _classify.default
        state = State(name, policies, clock) if _state is None else _state
        self.__dict__["_slow"] = Slow(state, policies, judge, idempotent=False)
        self.__dict__["_classify"] = given

    def __setattr__(self, name: str, value: object) -> None:
        if name == "__orig_class__":  # what typing notes on Pipeline[...]("name")
            return
        raise ConfigurationError(f"a pipeline is immutable: {name} cannot be set", advice="use with_options(...)")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self  # what stands for a dependency is not doubled by copying what refers to it

    def __reduce__(self) -> Never:
        raise ConfigurationError(
            f"{self.name}: a pipeline cannot be pickled, since its state is of this process",
            advice="make it at import time, in each process",
        )

    @property
    def name(self) -> str:
        """What it protects."""
        return self._slow.state.name

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Its policies, outermost first."""
        return self._policies

    @functools.cached_property
    def idempotent(self) -> Calls[Out_co]:
        """The same pipeline for calls that may take effect twice without harm: they are retried and hedged."""
        return _Idempotent(self._slow, self._policies)

    @functools.cached_property
    def breaker(self) -> BreakerControl:
        """The breaker, to look at and to steer by hand.

        Raises:
            ConfigurationError: The pipeline has none.
        """
        return BreakerControl(self._slow)

    def with_options(self, *, attempts: int | None = None, deadline: float | None = None) -> Pipeline[Out_co]:
        """The same pipeline with other options for some calls; breaker, bulkhead, budget and counters are shared.

        Args:
            attempts: How many tries in all.
            deadline: Seconds for the whole call.

        Examples:
            >>> orders = Pipeline("doc", Deadline(2.0), Retry())
            >>> print(orders.with_options(attempts=1, deadline=0.5))
            doc: Deadline(0.5) > Retry(attempts=1)
        """
        key = (attempts, deadline)
        derived: dict[tuple[int | None, float | None], Pipeline[Out_co]] = self.__dict__.setdefault("_derived", {})
        if key not in derived:
            if len(derived) >= 64:  # computed options: keep no more than a few
                derived.clear()
            derived[key] = self._with(attempts, deadline)
        return derived[key]

    def _with(self, attempts: int | None, deadline: float | None) -> Pipeline[Any]:
        policies = list(self._policies)
        if attempts is not None:
            at = next((index for index, policy in enumerate(policies) if isinstance(policy, Retry)), None)
            if at is None:
                raise ConfigurationError(f"{self.name} does not retry", advice="add Retry() to the pipeline")
            policies[at] = dataclasses.replace(cast("Retry", policies[at]), attempts=attempts)
        if deadline is not None:
            at = next((index for index, policy in enumerate(policies) if isinstance(policy, Deadline)), None)
            outside = at is not None and not any(isinstance(policy, Retry) for policy in policies[:at])
            if at is not None and outside:
                policies[at] = Deadline(deadline)
            else:
                raise ConfigurationError(
                    f"{self.name} has no Deadline round the whole call",
                    advice=f"add Deadline(...) to the pipeline, or write: with deadline({deadline:g})",
                )
        return Pipeline(
            self.name,
            *policies,
            classify=self.__dict__["_classify"] or None,
            clock=self._slow.state.clock,
            _state=self._slow.state,
        )

    def stats(self) -> Stats:
        """What the pipeline has seen since it was made, in this process."""
        state = self._slow.state
        count = state.counts.get
        return Stats(
            succeeded=state.successes(),
            failed=count("failed", 0),
            retried=count("retried", 0),
            recovered=count("recovered", 0),
            suppressed=count("suppressed", 0),
            rejected=count("rejected", 0),
            hedged=count("hedged", 0),
            fell_back=count("fell_back", 0),
            running=None if state.bulkhead is None else state.bulkhead.running,
            breaker=None if state.breaker is None else state.breaker.state,
            window=None if state.breaker is None else state.breaker.counts(state.clock.monotonic()),
        )

    def __str__(self) -> str:
        return f"{self.name}: {' > '.join(map(repr, self._policies)) or 'no policies'}"

    def __repr__(self) -> str:
        return f"Pipeline({', '.join([repr(self.name), *map(repr, self._policies)])})"


def _given(classify: Any) -> tuple[Classifier, ...]:
    if classify is None:
        return ()
    alone: tuple[Any, ...] = (classify,)
    return alone if callable(classify) or not isinstance(classify, Iterable) else tuple(classify)


class _Idempotent(Calls[Out_co]):
    """See `Pipeline.idempotent`."""

    def __init__(self, slow: Slow, policies: tuple[Policy, ...]) -> None:
        self._policies = policies
        self._slow = Slow(slow.state, policies, slow.classify, idempotent=True)
