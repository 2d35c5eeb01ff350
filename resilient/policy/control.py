"""A pipeline's breaker in the hands of people and of other code: its state, its switches, its permits."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, Self, cast

from resilient.errors import ConfigurationError
from resilient.policy._breaker import Counts, Generation
from resilient.policy._slow import Slow

__all__ = ["BreakerControl", "Permit"]

BreakerState = Literal["closed", "open", "half_open", "isolated"]


class Permit:
    """Leave to make one call. Say how it went, or use it as a ``with`` block, which does so."""

    __slots__ = ("_generation", "_settled", "_slow", "_started")

    def __init__(self, slow: Slow, generation: Generation, started: float) -> None:
        self._slow = slow
        self._generation = generation
        self._started = started
        self._settled = False

    def _settle(self) -> bool:
        first, self._settled = not self._settled, True
        return first

    def success(self) -> None:
        """The call succeeded. Only the first word counts."""
        if self._settle():
            if self._slow.breaker is not None and self._slow.breaker.slow is not None:
                self._slow.measured(self._generation, self._started)
            else:
                self._generation.ok()

    def failure(self, error: BaseException) -> None:
        """The call raised this; what that says about the dependency is for the pipeline's classifier."""
        if self._settle():
            self._slow.judged(error, self._generation, self._started)

    def release(self) -> None:
        """The call was not made, or says nothing about the dependency."""
        if self._settle() and self._slow.state.breaker is not None:
            self._slow.state.breaker.released(self._generation)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.success()
        else:
            self.failure(error)


class BreakerControl:
    """The breaker of a pipeline.

    Args:
        slow: The pipeline's inside.

    Examples:
        >>> from resilient.policy import Breaker, Pipeline
        >>> orders = Pipeline("orders-db", Breaker())
        >>> orders.breaker.state
        'closed'
        >>> orders.breaker.isolate(); orders.breaker.state
        'isolated'
        >>> orders.breaker.close(); orders.breaker.state
        'closed'
    """

    def __init__(self, slow: Slow) -> None:
        if slow.state.breaker is None:
            raise ConfigurationError(f"{slow.state.name} has no breaker", advice="add Breaker() to the pipeline")
        self._slow = slow
        self._core = slow.state.breaker

    def __repr__(self) -> str:
        return f"<breaker of {self.name}: {self.state}>"

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self._slow.state.name

    @property
    def state(self) -> BreakerState:
        """``closed``, ``open``, ``half_open`` or ``isolated``.

        An open breaker stays ``open`` until somebody calls; the first call after its wait makes it ``half_open``.
        """
        return cast("BreakerState", self._core.state)

    @property
    def retry_after(self) -> float | None:
        """Seconds until a first probe may be made; ``None`` where it is not open."""
        return self._core.retry_after(self._slow.state.clock.monotonic())

    def counts(self) -> Counts:
        """Calls, failures and slow calls in the window; zeros where it is not closed."""
        return self._core.counts(self._slow.state.clock.monotonic())

    def isolate(self) -> None:
        """Refuse all calls until `close`."""
        self._core.isolate()

    def close(self) -> None:
        """Allow all calls and forget what was counted."""
        self._core.close()

    def permit(self) -> Permit:
        """Ask for leave to make a call that cannot go through the pipeline.

        Raises:
            CircuitOpen: The breaker refuses.

        Examples:
            >>> from resilient.policy import Breaker, Pipeline
            >>> with Pipeline("orders-db", Breaker()).breaker.permit():
            ...     answer = 42
        """
        now = self._slow.state.clock.monotonic()
        generation = self._core.now
        if now >= generation.until:
            generation = self._slow.enter(now)
        return Permit(self._slow, generation, now)
