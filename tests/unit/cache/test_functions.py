"""The decorators: what they take, what they refuse, and what they learn of each other."""

from __future__ import annotations

from typing import Any

import pytest

from resilient.cache import AsyncCache, Cache
from resilient.errors import ConfigurationError
from resilient.testing import FakeClock, MemoryCache


async def _store(values: list[int]) -> None: ...


@pytest.mark.parametrize("decorator", ["lazy", "write_through", "write_behind"])
@pytest.mark.parametrize("face", [Cache, AsyncCache])
def test_a_decorator_without_brackets_is_told_so(face: Any, decorator: str) -> None:
    """The function itself is no template: without a word it would be lost, and its name stand for another."""
    with pytest.raises(ConfigurationError, match=rf"{decorator} stands with brackets; write @cache.{decorator}\("):
        getattr(face(ttl=60), decorator)(_store)


@pytest.mark.parametrize("decorator", ["lazy", "write_through", "write_behind"])
def test_a_ttl_in_the_place_of_the_template_is_told_so(decorator: str) -> None:
    """As ``memoize(60)`` of other libraries is written."""
    with pytest.raises(ConfigurationError, match=r"key's template, not 60; write .*ttl=60"):
        getattr(Cache(), decorator)(60)


def test_a_wrong_option_is_told_beside_the_right_ones() -> None:
    """Those that the decorator itself has are among them."""
    with pytest.raises(TypeError, match=r"no option is called 'timeout'; there are: ttl, .*tags"):
        Cache(ttl=60).lazy("user:{user_id}", timeout=5)  # type: ignore[call-arg]


def test_a_writer_takes_the_ttl_of_the_function_that_loads() -> None:
    """Where neither it nor the cache names one; without such a function it is refused."""
    clock = FakeClock()
    cache = MemoryCache(ttl=None, clock=clock)
    with pytest.raises(ConfigurationError, match="needs a ttl"):
        cache.write_through("user:{user_id}")

    @cache.lazy("user:{user_id}", ttl=60)
    def get_user(user_id: int) -> str:
        return "loaded"

    @cache.write_through("user:{user_id}")
    def save_user(user_id: int) -> str:
        return "written"

    @cache.write_behind("user:{user_id}")
    def save_users(users: list[dict[str, int]]) -> None: ...

    save_user(17)
    assert get_user(17) == "written"
    clock.advance(61)
    assert get_user(17) == "loaded"


def test_of_several_functions_that_load_the_shorter_ttl_counts() -> None:
    """And all their tags, whichever was defined first."""
    clock = FakeClock()
    cache = MemoryCache(clock=clock)
    short, long = cache.lazy("user:{user_id}", 10, tags=["a"]), cache.lazy("user:{user_id}", 90, tags=["b"])
    for first, second in ((short, long), (long, short)):
        first(lambda user_id: 0)
        get_user = second(lambda user_id: 0)
        save_user = cache.write_through("user:{user_id}")(lambda user_id: "written")
        save_user(17)
        assert get_user.lookup(17).source == "shared"
        clock.advance(11)
        assert get_user.lookup(17).source == "loader"
        save_user(17)
        cache.invalidate_tags("b")
        assert get_user.lookup(17).source == "loader"


def test_the_plan_of_a_method_is_made_once() -> None:
    """Not with each object and each call: to resolve annotations takes longer than to ask the server."""
    cache = MemoryCache()
    made: list[Any] = []
    codec = cache.codec

    def counted(*args: Any) -> Any:
        made.append(args)
        return codec(*args)

    cache.codec = counted

    class Shop:
        @cache.lazy("order:{number}", tags=["orders", "order:{number}"])
        def order(self, number: int) -> list[int]:
            return [number]

        @cache.write_through("order:{number}")
        def save(self, number: int) -> list[int]:
            return [number, 1]

    assert [Shop().order(1), Shop().order(2), Shop().order(1)] == [[1], [2], [1]]
    assert [Shop().save(1), Shop().save(2), Shop().order(1)] == [[1, 1], [2, 1], [1, 1]]
    cache.invalidate_tags("order:1")
    assert [Shop().order(1), Shop().order(2)] == [[1], [2, 1]]
    assert len(made) == 2
