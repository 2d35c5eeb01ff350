"""A pipeline with a hedge: the layers outside of it, the race, and the layers inside, which each racer passes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from resilient import events
from resilient.policy import _compile
from resilient.policy._hedge import race, race_async
from resilient.policy._slow import Slow
from resilient.policy.events import Hedged
from resilient.policy.policies import Hedge, Policy

__all__ = ["hedged"]


class _Racer:
    """The layers inside the hedge, and when a second call through them is worth making."""

    def __init__(self, slow: Slow, inner: tuple[Policy, ...], hedge: Hedge, *, is_async: bool) -> None:
        self.state = slow.state
        self.hedge = hedge
        self.idempotent = slow.idempotent
        inside = Slow(slow.state, inner, slow.classify, idempotent=slow.idempotent, counts=False)
        self.inner = _compile.build(inside, inner, is_async=is_async)

    def delay(self) -> float | None:
        """Seconds after which the first call is late; ``None`` where there is no second."""
        if not self.idempotent:
            return None
        return self.hedge.delay if self.state.latencies is None else self.state.latencies.delay

    def may_hedge(self) -> bool:
        """Ask the budget for a second call."""
        state = self.state
        if state.budget is not None and not state.budget.ask(state):
            state.add("suppressed")
            return False
        state.add("hedged")
        if events.wanted(Hedged):
            events.emit(Hedged(pipeline=state.name, delay=self.delay() or 0.0))
        return True

    def took(self, started: float) -> None:
        """Note how long a call took that succeeded."""
        if self.state.latencies is not None:
            self.state.latencies.add(self.state.clock.monotonic() - started)

    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        started = self.state.clock.monotonic()
        result = self.inner(function, *args, **kwargs)
        self.took(started)
        return result

    async def arun(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        started = self.state.clock.monotonic()
        result = await self.inner(function, *args, **kwargs)
        self.took(started)
        return result

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        late = self.delay()
        if late is None or self.state.pool is None:
            return self.run(function, *args, **kwargs)
        return race(self.state.pool, late, self.may_hedge, functools.partial(self.run, function, *args, **kwargs))

    async def acall(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        late = self.delay()
        if late is None:
            return await self.arun(function, *args, **kwargs)
        return await race_async(late, self.may_hedge, functools.partial(self.arun, function, *args, **kwargs))


def hedged(
    slow: Slow, policies: tuple[Policy, ...], hedge: Hedge, *, is_async: bool, function: Callable[..., Any] | None
) -> Callable[..., Any]:
    """Compile a pipeline that hedges. Its slow side tells whether calls are idempotent; others are not hedged."""
    at = policies.index(hedge)
    racer = _Racer(slow, policies[at + 1 :], hedge, is_async=is_async)
    middle = racer.acall if is_async else racer.call
    if function is not None:
        return _compile.build(slow, policies[:at], is_async=is_async, function=functools.partial(middle, function))
    return functools.partial(_compile.build(slow, policies[:at], is_async=is_async), middle)
