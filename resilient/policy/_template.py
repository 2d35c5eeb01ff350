"""The source of a compiled pipeline.

The alternative, a closure around a closure for each policy, costs a call, an argument tuple and a dictionary per layer
and call. Here all layers stand in one frame. What is not common (a failure, an open breaker, a full bulkhead) is a call
to `resilient.policy._slow`; what is common is written out. The sync and the async callable come from one template, so
neither is a copy of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["Shape", "Template"]


class Shape(NamedTuple):
    """What the source depends on; pipelines of one shape share their code.

    Args:
        steps: The layers in order: ``fallback``, ``deadline``, ``retry``, ``breaker``, ``breaker_slow`` (which measures
            durations), ``bulkhead``, and ``limit`` with the place of its policy.
        is_async: Whether it awaits what it calls.
        bound: Whether the function it calls is known now; otherwise it is the first argument.
        system: Whether time is read on the machine's clock.
        timed: Whether a strategy wants to know when the call began.
        counts: Whether a success is counted here.
    """

    steps: tuple[str, ...]
    is_async: bool
    bound: bool
    system: bool
    timed: bool
    counts: bool


class Template:
    """Writes the source for one shape: a function ``make`` that binds the parts and returns the callable.

    Args:
        shape: What to write.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.lines: list[str] = []
        self.depth = 0
        steps = shape.steps
        self.retry = "retry" in steps
        at = steps.index("retry") if self.retry else self._outside()
        self.outer = steps[:at]
        self.inner = steps[at + 1 :] if self.retry else steps[at:]
        self.slow = "breaker_slow" in steps
        self.breaker = self.slow or "breaker" in steps
        self.bulkhead = "bulkhead" in steps
        self.timed = self.breaker or shape.timed
        self.wait = "await " if shape.is_async else ""
        self.a = "a" if shape.is_async else ""
        self.timer = shape.is_async and shape.system  # a fake clock moves no event loop
        self.generation = "generation" if self.breaker else "None"

    def _outside(self) -> int:
        """Without a retry, the fallback and the deadline are outside; the rest surrounds the one attempt."""
        outside = {"fallback", "deadline"}
        return next((at for at, step in enumerate(self.shape.steps) if step not in outside), len(self.shape.steps))

    def text(self) -> str:
        """The source."""
        with self.block("def make(slow, state, clock, policies, fn, current, Expiry, limits):"):
            self.bind()
            arguments = "*args, **kwargs" if self.shape.bound else "fn, /, *args, **kwargs"
            with self.block(f"{'async ' if self.shape.is_async else ''}def call({arguments}):"):
                self.with_fallback()
            self.write("return call")
        return "\n".join(self.lines) + "\n"

    def write(self, *lines: str) -> None:
        """Add lines at the present depth."""
        self.lines += ["    " * self.depth + line for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Indent what is written inside."""
        self.write(head)
        self.depth += 1
        yield
        self.depth -= 1

    # ------------------------------------------------------------------------------------- names, each looked up once

    def bind(self) -> None:
        """Bind the parts that this shape uses, and no others: each costs memory in each pipeline."""
        steps, shape = self.shape.steps, self.shape
        names = {
            "get_deadline = current.get": True,
            "failed = slow.failed": True,
            "monotonic = clock.monotonic": self.timed or "deadline" in steps,
            "check = slow.check": "deadline" not in self.outer,
            "not_async = slow.not_async": shape.is_async,
            "name = state.name": self.timer and "deadline" in steps,
            "misused = slow.misused": not shape.is_async,
            "set_deadline = current.set": "deadline" in steps,
            "reset_deadline = current.reset": "deadline" in steps,
            "within = slow.within": "deadline" in steps,
            "timed = slow.timed": self.timer and "deadline" in steps,
            f"sleep = clock.{self.a}sleep": self.retry,
            "recovered = slow.recovered": self.retry,
            "answers = slow.answers": "fallback" in steps,
            f"fall_back = slow.{self.a}fall_back": "fallback" in steps,
            "breaker = state.breaker": self.breaker,
            "enter = slow.enter": self.breaker,
            "measured = slow.measured": self.slow,
            "released = breaker.released": self.breaker and len(self.inner) > 1,
            "ok = state.ok": not self.breaker,
            "bulkhead = state.bulkhead": self.bulkhead,
            "take = bulkhead.take": self.bulkhead,
            "give = bulkhead.give": self.bulkhead,
            "wake = bulkhead.wake": self.bulkhead,
            "waiters = bulkhead.waiters": self.bulkhead,
            f"crowd = slow.{self.a}crowd": self.bulkhead,
            f"take_turn = slow.{self.a}limit": any(step.startswith("limit") for step in steps),
        }
        self.write(*(line for line, used in names.items() if used))
        self.write(*(f"limit_{at} = limits[{at}]" for at in range(steps.count("deadline"))))
        self.write(*(f"{step} = policies[{step[5:]}]" for step in steps if step.startswith("limit")))

    # -------------------------------------------------------------------------------------------------- round the call

    def with_fallback(self) -> None:
        """The outermost layer."""
        if self.timed:
            self.write("now = monotonic()")
        if "fallback" not in self.outer:
            self.with_deadline()
            return
        with self.block("try:"):
            self.with_deadline()
        with self.block("except Exception as error:"):
            self.write("if not answers(error): raise", f"return {self.wait}fall_back(error)")

    def with_deadline(self) -> None:
        """The deadline of the whole call; without one, the caller's is looked at once."""
        if "deadline" not in self.outer:
            self.write("if get_deadline() is not None: check()")
            self.with_retry()
            return
        with self.deadline(0):
            self.with_retry()

    @contextmanager
    def deadline(self, number: int) -> Iterator[None]:
        """Bound what is written inside. The nearest deadline wins, and async calls get a timer."""
        moment = f"{'now' if number == 0 and self.timed else 'monotonic()'} + limit_{number}"
        self.write(f"outer_{number} = get_deadline()")
        self.write(f"expires = {moment if self.shape.system else f'Expiry({moment}, clock)'}")
        if self.timer:
            self.write(f"seconds = limit_{number}")
        with self.block(f"if outer_{number} is not None:"):
            self.write("expires = within(expires)", *(["seconds = timed(seconds, expires)"] if self.timer else []))
        if self.timer:
            self.write(f"timer_{number} = Timer(seconds)")
        self.write(f"token_{number} = None")
        with self.block("try:"):
            self.write(f"token_{number} = set_deadline(expires)")
            yield
        if self.timer:
            with self.block("except CancelledError as error:"):
                self.write(f"if timer_{number}.ours(): raise timer_{number}.error(name) from error", "raise")
        with self.block("finally:"):
            if self.timer:
                self.write(f"timer_{number}.stop()")
            self.write(f"try: reset_deadline(token_{number})")
            # An interrupt came between the setting and the storing of its token.
            self.write(f"except TypeError: set_deadline(outer_{number})")
            # A coroutine may be closed in another context than it ran in, where the deadline was never set.
            self.write(*(["except ValueError: pass"] if self.shape.is_async else []))

    def with_retry(self) -> None:
        """The turns that a whole call takes, and the loop of attempts."""
        for step in self.outer:
            if step.startswith("limit"):
                self.write(self.turn(step), *(["now = monotonic()"] if self.timed else []))
        if not self.retry:
            self.attempt()
            return
        self.write("run = None")
        with self.block("while True:"):
            self.attempt()
            self.write(f"if run.wait: {self.wait}sleep(run.wait)")
            if self.timed:
                self.write("now = monotonic()")

    # ----------------------------------------------------------------------------------------------------- one attempt

    def attempt(self) -> None:
        """Take what must be taken, call, give back, count."""
        self.take_all()
        with self.block("try:"):
            if "deadline" in self.inner:
                with self.deadline(self.shape.steps.count("deadline") - 1):
                    self.invoke()
            else:
                self.invoke()
        with self.block("except BaseException as error:"):
            self.write(*self.give())
            started = "now" if self.timed else "0.0"
            if self.retry:
                self.write(f"run = failed(run, error, {self.generation}, {started})", "if run is None: raise")
            else:
                self.write(f"failed(None, error, {self.generation}, {started})", "raise")
        with self.block("else:"):
            self.write(*self.give())
            self.succeed()

    def take_all(self) -> None:
        """The layers that may refuse, in order. What was taken before is given back when a later one refuses."""
        undo: list[str] = []
        waited = ["now = monotonic()"] if self.timed else []
        for step in self.inner:
            if step.startswith("limit"):
                self.guarded(undo, self.turn(step), *waited)
            elif step.startswith("breaker"):
                self.write("generation = breaker.now")
                with self.block("if now >= generation.until:"):
                    self.guarded(undo, "generation = enter(now)")
                undo = ["released(generation)", *undo]
            elif step == "bulkhead":
                with self.block("try:"):
                    self.write("take()")
                with self.block("except IndexError:"):
                    self.guarded(undo, f"{self.wait}crowd()")
                    self.write(*waited)
                with self.block("except BaseException:"):  # an interrupt right after it was taken
                    self.write(*self.give(), *undo, "raise")
                undo = [*self.give(), *undo]

    def guarded(self, undo: list[str], *lines: str) -> None:
        """A step that may refuse."""
        if not undo:
            self.write(*lines)
            return
        with self.block("try:"):
            self.write(*lines)
        with self.block("except BaseException:"):
            self.write(*undo, "raise")

    def turn(self, step: str) -> str:
        """Take a turn of a rate limit."""
        return f"{self.wait}take_turn({step})"

    def give(self) -> list[str]:
        """Give back the place in the bulkhead."""
        return ["give(0)", "if waiters: wake()"] if self.bulkhead else []

    def invoke(self) -> None:
        """The call itself."""
        self.write("result = fn(*args, **kwargs)")
        if self.shape.is_async:
            self.write("if result.__class__ is not Coroutine and not hasattr(result, '__await__'):")
            self.write("    raise not_async(result)", "result = await result")

    def succeed(self) -> None:
        """Count a success and return."""
        if not self.shape.is_async:
            self.write(f"if result.__class__ is Coroutine: misused(result, {self.generation})")
        if self.slow:
            self.write("measured(generation, now)")
        elif self.breaker:
            self.write("generation.ok()")
        elif self.shape.counts:
            self.write("ok()")
        if self.retry:
            self.write("if run is not None: recovered()")
        self.write("return result")
