"""Errors of classes that somebody wrote in an odd way are judged, retried and marked like any other."""

import asyncio
import contextlib
from dataclasses import dataclass

import pytest

from resilient.policy import Breaker, Budget, Bulkhead, Failure, Pipeline, Retry, classify


class Answers(ConnectionRefusedError):
    """Has an answer to everything."""

    def __getattr__(self, name):
        return None


class Refuses(ConnectionRefusedError):
    """Refuses to be asked, changed, compared, shown, hashed or pickled."""

    __slots__ = ()
    __hash__ = None

    def __getattr__(self, name):
        raise KeyError(name)

    def __setattr__(self, name, value):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError("equal")

    def __bool__(self):
        raise RuntimeError("true")

    def __repr__(self):
        raise RuntimeError("shown")

    __str__ = __reduce__ = __repr__


@dataclass(frozen=True)
class Frozen(ConnectionRefusedError):
    number: int = 1


class Worded(ConnectionRefusedError):
    retry_after = "5"


class Property(ConnectionRefusedError):
    @property
    def retry_after(self):
        raise RuntimeError("no hint")


ODD = [Answers, Refuses, Frozen, Worded, Property]


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("how", ["sync", "asyncio"])
def test_it_is_retried_and_comes_out_as_it_is(kind, how):
    """Twice tried, once counted, nothing left behind; and a layer above does not retry it again."""
    policies = (Retry(attempts=2, base=0), Budget(burst=100), Breaker(min_calls=100), Bulkhead(1))
    inner, outer = Pipeline("inner", *policies), Pipeline("outer", *policies)
    tries = []

    def fails():
        tries.append(1)
        raise kind

    async def afails():
        fails()

    async def main():  # a task that ends with such an error is more than asyncio itself can bear
        try:
            await outer.acall(inner.acall, afails)
        except ConnectionRefusedError as raised:
            return type(raised)

    def call():
        try:
            return outer.call(inner.call, fails)
        except ConnectionRefusedError as raised:
            return type(raised)

    for _ in range(2):
        assert (call() if how == "sync" else asyncio.run(main())) is kind
    assert len(tries) == 4
    assert (inner.stats().running, outer.stats().running, inner.stats().failed) == (0, 0, 2)


def test_a_number_that_is_none():
    """An OSError whose number is anything else is judged by its class."""
    assert classify.default(ConnectionResetError([], "x")).failure is Failure.TRANSIENT
    assert classify.default(OSError({}, "x")) is None


def test_a_cause_that_is_false_is_a_cause():
    """The mark is found behind an error that counts as false."""

    class Empty(ConnectionRefusedError):
        def __len__(self):
            return 0

    class Wrapped(ConnectionRefusedError):
        pass

    inner = Pipeline("inner", Retry(attempts=2, base=0))
    outer = Pipeline("outer", Retry(attempts=2, base=0))
    tries = []

    def fails():
        tries.append(1)
        raise Empty

    def wraps():
        try:
            inner.call(fails)
        except Empty as error:
            raise Wrapped from error

    with pytest.raises(Wrapped):
        outer.call(wraps)
    assert len(tries) == 2


def test_the_mark_is_found_on_the_members_of_a_group():
    """A group of errors that were retried below is not retried above, whatever a classifier says of the group."""
    inner = Pipeline("inner", Retry(attempts=2, base=0))
    outer = Pipeline("outer", Retry(attempts=3, base=0), classify=classify.table({ExceptionGroup: Failure.TRANSIENT}))
    tries = []

    async def fails():
        tries.append(1)
        raise ConnectionRefusedError

    async def both():
        async with asyncio.TaskGroup() as group:
            group.create_task(inner.acall(fails))
            group.create_task(inner.acall(fails))

    with pytest.raises(ExceptionGroup):
        asyncio.run(outer.idempotent.acall(both))
    assert len(tries) <= 4


@pytest.mark.parametrize("inside", [KeyboardInterrupt, asyncio.CancelledError])
def test_a_group_with_an_interrupt_inside_is_an_interrupt(inside):
    """It is neither retried nor counted, and leaves nothing behind."""
    pipeline = Pipeline("x", Retry(base=0), Breaker(min_calls=1), Bulkhead(1))

    def fails():
        raise BaseExceptionGroup("both", [inside(), ConnectionRefusedError()])

    with contextlib.suppress(BaseExceptionGroup):
        pipeline.call(fails)
    stats = pipeline.stats()
    assert (stats.running, stats.retried, stats.breaker, stats.window.failures) == (0, 0, "closed", 0)
