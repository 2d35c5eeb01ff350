"""The block form: each attempt is a ``with`` block, for code that is no function."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Self

from resilient.errors import ConfigurationError
from resilient.policy._breaker import Generation
from resilient.policy._deadline import current, left_of, moment, nearest, unbind
from resilient.policy._retry import Run
from resilient.policy._slow import Slow
from resilient.policy.policies import Breaker, Bulkhead, Deadline, Policy, RateLimit, Retry

if TYPE_CHECKING:
    from resilient.policy._timer import Timer

__all__ = ["Attempt", "Attempts"]


class Attempt:
    """One try. A failure worth retrying ends the block quietly, and the loop gives the next attempt.

    Like an async call, an ``async with`` block is cancelled when its pipeline's deadline passes.

    Attributes:
        number: Which attempt it is, from 1.
    """

    __slots__ = ("_attempts", "_generation", "_held", "_started", "_timer", "_token", "number")

    def __init__(self, attempts: Attempts, number: int) -> None:
        self.number = number
        self._attempts = attempts
        self._generation: Generation | None = None
        self._held = False
        self._started = 0.0
        self._token: Token[float | None] | None = None
        self._timer: Timer | None = None

    def _bind(self) -> None:
        expires = self._attempts.expires()
        if expires is not None:
            self._token = current.set(expires)
        else:
            self._attempts.slow.check()

    def _enter_breaker(self) -> None:
        state = self._attempts.slow.state
        self._started = state.clock.monotonic()
        if state.breaker is not None:
            generation = state.breaker.now
            self._generation = (
                generation if self._started < generation.until else self._attempts.slow.enter(self._started)
            )

    def _take(self) -> bool:
        bulkhead = self._attempts.slow.state.bulkhead
        if bulkhead is None:
            return True
        try:
            bulkhead.take()
        except IndexError:
            return False
        self._held = True
        return True

    def __enter__(self) -> Self:
        slow = self._attempts.slow
        self._bind()
        try:
            for policy in self._attempts.inner:
                if isinstance(policy, Breaker):
                    self._enter_breaker()
                elif isinstance(policy, Bulkhead) and not self._take():
                    slow.crowd()
                    self._held = True
                elif isinstance(policy, RateLimit):
                    slow.limit(policy)
        except BaseException:
            self._undo()
            raise
        return self

    async def __aenter__(self) -> Self:
        slow = self._attempts.slow
        self._bind()
        try:
            for policy in self._attempts.inner:
                if isinstance(policy, Breaker):
                    self._enter_breaker()
                elif isinstance(policy, Bulkhead) and not self._take():
                    await slow.acrowd()
                    self._held = True
                elif isinstance(policy, RateLimit):
                    await slow.alimit(policy)
            expires = None if self._token is None else current.get()
            if type(expires) is float:  # on a clock that moves the event loop
                from resilient.policy._timer import Timer  # who never awaits does without it

                self._timer = Timer(left_of(expires))
        except BaseException:
            self._undo()
            raise
        return self

    def _undo(self) -> None:
        self._give()
        if self._generation is not None and self._attempts.slow.state.breaker is not None:
            self._attempts.slow.state.breaker.released(self._generation)
        self._unbind()

    def _give(self) -> None:
        bulkhead = self._attempts.slow.state.bulkhead
        if self._held and bulkhead is not None:
            self._held = False
            bulkhead.give(0)
            if bulkhead.waiters:
                bulkhead.wake()

    def _unbind_own(self) -> None:
        """Go back from the deadline of this attempt to that of all together, by which a next one is judged."""
        if self._token is not None and self._attempts.each is not None:
            unbind(self._token)
            self._token = None if self._attempts.all is None else current.set(self._attempts.all)

    def _unbind(self) -> None:
        if self._token is not None:
            unbind(self._token)
            self._token = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        slow, attempts = self._attempts.slow, self._attempts
        self._give()
        try:
            if error is None:
                attempts.finished = True
                self._succeeded(slow)
                return False
            self._unbind_own()
            attempts.run = slow.failed(attempts.run, error, self._generation, self._started)
            attempts.finished = attempts.run is None
            return attempts.run is not None
        finally:
            self._unbind()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        timer, self._timer = self._timer, None
        late = timer is not None and timer.cancelled(error)
        if timer is not None:
            timer.stop()
            if late:
                expired = timer.error(self._attempts.slow.state.name)
                if self.__exit__(type(expired), expired, trace):
                    return True
                raise expired from error
        return self.__exit__(kind, error, trace)

    def _succeeded(self, slow: Slow) -> None:
        if self._generation is None:
            slow.state.ok()
        elif slow.breaker is not None and slow.breaker.slow is not None:
            slow.measured(self._generation, self._started)
        else:
            self._generation.ok()
        if self._attempts.run is not None:
            slow.recovered()


class Attempts:
    """The attempts of one block; iterate over it once, with ``for`` or ``async for``.

    Args:
        slow: The slow side of the pipeline.
        policies: Its layers.

    Attributes:
        all: The moment that binds all attempts together; ``None`` before the first, and where the pipeline has none.
        each: Seconds that each attempt may take.
    """

    def __init__(self, slow: Slow, policies: tuple[Policy, ...]) -> None:
        self.slow = slow
        self.run: Run | None = None
        self.finished = False
        self._begun = 0
        self.all: float | None = None
        at = next((index for index, policy in enumerate(policies) if isinstance(policy, Retry)), len(policies))
        self.inner = policies
        self._total = next((policy.seconds for policy in policies[:at] if isinstance(policy, Deadline)), None)
        self.each = next((policy.seconds for policy in policies[at:] if isinstance(policy, Deadline)), None)

    def expires(self) -> float | None:
        """The moment that binds an attempt which starts now; `None` where none of ours does."""
        clock, slow = self.slow.state.clock, self.slow
        expires = self.all
        if expires is None and self._total is not None:
            expires = self.all = slow.within(moment(self._total, clock))
        if self.each is not None:
            each = moment(self.each, clock)
            expires = slow.within(each) if expires is None else nearest(expires, each)
        return expires

    def _next(self) -> Attempt | None:
        if self.finished:
            return None
        if self._begun and self.run is None:
            raise ConfigurationError(
                "an attempt was not entered", advice="write: for attempt in ...: with attempt: ..."
            )
        self._begun += 1
        return Attempt(self, self._begun)

    def __iter__(self) -> Iterator[Attempt]:
        return self

    def __next__(self) -> Attempt:
        attempt = self._next()
        if attempt is None:
            raise StopIteration
        if self.run is not None and self.run.wait:
            self.slow.state.clock.sleep(self.run.wait)
        return attempt

    def __aiter__(self) -> AsyncIterator[Attempt]:
        return self

    async def __anext__(self) -> Attempt:
        attempt = self._next()
        if attempt is None:
            raise StopAsyncIteration
        if self.run is not None and self.run.wait:
            await self.slow.state.clock.asleep(self.run.wait)
        return attempt
