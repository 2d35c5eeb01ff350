"""Write-behind: values are cached at once, and stored a little later, many in one call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from resilient import events
from resilient.cache._async.host import AsyncHost
from resilient.cache._buffer import AsyncTurn, Buffer, Item
from resilient.cache._codecs import ANYTHING
from resilient.cache._entry import Entry
from resilient.cache._events import WritesLost
from resilient.cache._failures import is_failure
from resilient.cache._freshness import Policy, Said
from resilient.cache._functions import AsyncMode, item_type, require
from resilient.cache._keys import parse
from resilient.cache._seen import Plan
from resilient.cache._stamps import tags_of
from resilient.cache._templates import KeyMaker, TagMaker
from resilient.cache._timer import AsyncExit, AsyncTimer
from resilient.cache._values import AsyncLoader
from resilient.errors import ConfigurationError, DeadlineExceeded, InvalidInput, Unavailable
from resilient.policy import deadline
from resilient.runtime import after_fork, at_exit

if TYPE_CHECKING:
    from resilient.policy import Pipeline

__all__ = ["AsyncWriteBehind", "Pace"]

V = TypeVar("V")

_PATIENCE = 5.0  # seconds to store what is left when the cache is closed or the process ends
_LONG = 1e6  # seconds; as long as it takes


class Pace(NamedTuple):
    """How values are stored behind.

    Args:
        every: Seconds between two rounds.
        batch: How many values one call stores at most; so many start a round at once.
        size: How many keys may wait.
        tries: How often storing a value may fail before it is given up.
        pipeline: The policies around each call; ``None`` for none.
    """

    every: float
    batch: int
    size: int
    tries: int
    pipeline: Pipeline | None

    def check(self) -> None:
        """Raises ConfigurationError where a number makes no sense."""
        if not self.every > 0:
            raise ConfigurationError(f"every is a positive number of seconds, not {self.every!r}")
        for name in ("batch", "size", "tries"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is a number from 1 up, not {getattr(self, name)!r}")


class AsyncWriteBehind(Generic[V]):
    """A function that stores many values, called with one at a time. Made by `AsyncCache.write_behind`."""

    def __init__(
        self,
        cache: AsyncHost,
        function: AsyncLoader[[list[V]], Any],
        template: str,
        policy: Policy,
        pace: Pace,
        *,
        kind: Any,
        said: Said,
        tags: tuple[str, ...],
    ) -> None:
        require(function, asynchronous=AsyncMode.asynchronous)
        functools.update_wrapper(self, function)
        self._cache = cache
        self._store = function if pace.pipeline is None else _piped(pace.pipeline, function)
        self._fields, stub = _fields(template, tags)
        self._make_key = KeyMaker(stub, template, shared=True)
        self._make_tags = TagMaker(stub, tags)
        self._policy = policy
        self._pace = pace
        self._kind = kind
        self._template = template
        self._said = said
        self._plan: Plan | None = None
        self._buffer = Buffer(cache.namespace, pace.size)
        self._closed = False
        self._turn = AsyncTurn()
        self._timer = AsyncTimer(self._round, pace.every, f"cache-{cache.namespace}-behind")
        AsyncExit.hook(self.drain)
        at_exit(self._give_up)
        after_fork(self._buffer.clear)  # the parent stores them

    def key(self, value: V) -> str:
        """The key of a value. Raises InvalidInput where the value lacks what the template names."""
        return self._make_key(self._told(value), {})

    @property
    def pending(self) -> int:
        """How many values are cached and not stored yet."""
        return len(self._buffer)

    async def __call__(self, value: V) -> None:
        """Cache a value now, and store it within about ``every`` seconds.

        Raises:
            Overloaded: Too many values wait; this one was not taken.
            InvalidInput: The value cannot be cached, or lacks what the template names.
            DeadlineExceeded: There is no time left; it was not taken.
            Unavailable: The cache is closed; it was not taken.
        """
        deadline.check()
        if self._closed:
            raise Unavailable(f"the cache {self._cache.namespace!r} is closed, and nothing would store this value")
        told, plan, engine = self._told(value), self._planned(), self._cache.main
        key = self._cache.physical(self._make_key(told, {}))
        entry = engine.entry(value, plan._replace(tags=self._make_tags(told, {})))
        self._buffer.put(key, Item(value, entry))
        if self._buffer.waiting >= self._pace.batch:
            self._timer.kick()
        else:
            self._timer.ensure()
        if self._buffer.storing(key):
            return  # whoever stores an older value now caches this one when it is done
        try:
            await engine.put(key, self._short(entry))
        except DeadlineExceeded:
            return  # it is taken: the cache is told when it is stored

    async def flush(self) -> None:
        """Store all that waits, now.

        Raises:
            Unavailable: Something could not be stored; it goes on waiting.
        """
        await self._turn.take(_LONG)
        try:
            error = await self._store_all()
        finally:
            self._turn.give()
        if error is not None:
            raise Unavailable(
                f"{len(self._buffer)} values of the cache {self._cache.namespace!r} could not be stored yet",
                advice="they are tried again; see the cause",
            ) from error

    async def drain(self, seconds: float = _PATIENCE) -> None:
        """Store all that waits, for the last time; what cannot be stored within so many seconds is lost, and told."""
        self._closed = True
        await self._timer.close()
        if len(self._buffer) and await self._turn.take(seconds):
            try:
                async with deadline(seconds):
                    await self._store_all()
            except DeadlineExceeded:
                pass  # told below
            finally:
                self._turn.give()
        self._give_up()

    # ---------------------------------------------------------------------------------------------------------- inside

    async def _round(self) -> bool:
        """What the timer calls. Whether something is left."""
        if await self._turn.take(self._pace.every):
            try:
                await self._store_all()
            finally:
                self._turn.give()
        return len(self._buffer) > 0

    async def _store_all(self) -> Exception | None:
        """Store batch after batch, until one fails: its error."""
        while batch := self._buffer.take(self._pace.batch):
            try:
                error = await self._store_batch(batch)
            except BaseException:
                self._buffer.back(batch)
                raise
            if error is not None:
                return error
        return None

    async def _store_batch(self, batch: dict[str, Item]) -> Exception | None:
        """Store one batch. The error, where its values wait again."""
        engine = self._cache.main
        tags = [tag for item in batch.values() for tag in tags_of(item.entry)]
        stamps = await engine.stampbook.taken(tags, max(item.entry.keep for item in batch.values()))
        fences = await engine.commits.begin(batch)
        try:
            await self._store([item.value for item in batch.values()])
        except Exception as error:  # noqa: BLE001 - kept for another try, or told as an event
            await engine.commits.cancel(fences)  # what is cached is what is still to be stored
            return await self._failed(batch, error)
        except BaseException:
            await engine.commits.cancel(fences)
            raise
        self._buffer.done(batch)
        entries = {key: self._newest(key, item) for key, item in batch.items()}
        await engine.commits.finish(fences, entries, stamps)
        return None

    async def _failed(self, batch: dict[str, Item], error: Exception) -> Exception | None:
        if not is_failure(error) and len(batch) > 1:
            # A mistake, perhaps of one value: those that are right are stored one by one.
            errors = [await self._store_batch({key: item}) for key, item in batch.items()]
            return next((each for each in errors if each is not None), None)
        again = {key: item._replace(tries=item.tries + 1) for key, item in batch.items()}
        lost = [key for key, item in again.items() if item.tries >= self._pace.tries or not is_failure(error)]
        if lost:
            self._lose(lost, error)
        self._buffer.back({key: item for key, item in again.items() if key not in lost})
        return error if len(lost) < len(batch) else None

    def _lose(self, keys: list[str], error: Exception | None) -> None:
        """Give values up. What is cached of them ends with its short life."""
        self._buffer.done(keys)
        name = "" if error is None else type(error).__qualname__
        events.emit(WritesLost(cache=self._cache.namespace, count=len(keys), error=name, keys=tuple(keys)))

    def _give_up(self) -> None:
        keys = self._buffer.abandon()
        if keys:
            self._lose(keys, None)

    def _newest(self, key: str, stored: Item) -> Entry:
        """What is cached once a value is stored: itself, or the one that came since."""
        now = self._cache.clock.wall()
        newer = self._buffer.newer(key)
        return stored.entry._replace(created=now) if newer is None else self._short(newer.entry)

    def _short(self, entry: Entry) -> Entry:
        """An entry of a value that is not stored yet: should this process die, it is not served for long."""
        most = 2 * self._pace.every + self._cache.lease
        return entry._replace(fresh=min(entry.fresh, most), keep=min(entry.keep, most))

    def _planned(self) -> Plan:
        if self._plan is None:
            kind = item_type(self._store) if self._kind is ANYTHING else self._kind
            policy, version = self._said.kept(self._policy, self._cache.loaded_under(self._template))
            self._plan = Plan(policy, self._cache.codec(kind, version))
        return self._plan

    def _told(self, value: V) -> tuple[Any, ...]:
        """What a value says for the names in the templates."""
        try:
            if isinstance(value, Mapping):
                return tuple([value[name] for name in self._fields])
            return tuple([getattr(value, name) for name in self._fields])
        except (KeyError, AttributeError) as error:
            raise InvalidInput(f"a value to be stored behind lacks what its key or tag names: {error}") from error


def _piped(pipeline: Pipeline, function: AsyncLoader[..., Any]) -> AsyncLoader[..., Any]:
    """The function within its policies. Storing the same values twice does no harm, so that it may be retried."""

    @functools.wraps(function)
    async def piped(values: list[Any]) -> Any:
        return await pipeline.idempotent.acall(function, values)

    return piped


def _fields(template: str, tags: tuple[str, ...]) -> tuple[list[str], Callable[..., None]]:
    """The names in templates, and a function with such parameters."""
    names: dict[str, None] = {}
    for text in (template, *tags):
        names.update((field.partition(".")[0], None) for _, field in parse(text) if field)
    if not names:
        raise ConfigurationError(
            f"the key template {template!r} names nothing of a value", advice="write it as in 'user:{user_id}'"
        )

    def value() -> None:
        """Stands for the values."""

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    value.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # as inspect reads it
    return list(names), value
