"""Pipelines become functions: one flat callable is compiled from the policies, once for each shape.

`resilient.policy._template` writes its source; here it is compiled, kept where tracebacks find it, and bound to the
parts of one pipeline.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from functools import lru_cache
from types import CoroutineType
from typing import Any

from resilient.clock import SYSTEM
from resilient.policy._deadline import Expiry, current
from resilient.policy._slow import Slow
from resilient.policy._template import Shape, Template
from resilient.policy.policies import Breaker, Bulkhead, Deadline, Fallback, Policy, RateLimit, Retry

__all__ = ["build"]


def _steps(policies: tuple[Policy, ...]) -> tuple[str, ...]:
    """The layers in order, in short words; `Budget` and `Hedge` are no layers of this function."""
    words = {Deadline: "deadline", Retry: "retry", Breaker: "breaker", Bulkhead: "bulkhead", Fallback: "fallback"}
    steps = []
    for index, policy in enumerate(policies):
        if isinstance(policy, RateLimit):
            steps.append(f"limit{index}")
        elif isinstance(policy, Breaker) and policy.slow is not None:
            steps.append("breaker_slow")
        elif type(policy) in words:
            steps.append(words[type(policy)])
    return tuple(steps)


@lru_cache(maxsize=512)
def _maker(shape: Shape) -> Callable[..., Any]:
    text = Template(shape).text()
    name = (
        f"<resilient pipeline {'+'.join(shape.steps) or 'plain'}{' async' if shape.is_async else ''} {hash(shape):x}>"
    )
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"Coroutine": CoroutineType}
    if shape.is_async:
        from asyncio import CancelledError  # who never awaits does without it

        from resilient.policy._timer import Timer

        scope |= {"Timer": Timer, "CancelledError": CancelledError}
    exec(compile(text, name, "exec"), scope)  # noqa: S102 - the text is written here from fixed words alone
    made: Callable[..., Any] = scope["make"]
    return made


def build(
    slow: Slow, policies: tuple[Policy, ...], *, is_async: bool, function: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Compile the policies into one callable.

    Args:
        slow: Their slow side.
        policies: The layers, the outermost first.
        is_async: Whether the callable awaits what it calls.
        function: What it calls; without one, the callable takes it as its first argument.
    """
    clock = slow.state.clock
    timed = slow.retry is not None and (slow.retry.wait is not None or slow.retry.stop is not None)
    shape = Shape(_steps(policies), is_async, function is not None, clock is SYSTEM, timed, slow.counts)
    limits = [policy.seconds for policy in policies if isinstance(policy, Deadline)]
    return _maker(shape)(slow, slow.state, clock, policies, function, current, Expiry, limits)  # type: ignore[no-any-return] # exec tells no types
