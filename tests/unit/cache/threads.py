"""Calls on threads of their own, and loaders that wait until they are let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for something that other threads bring about."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, f"{what} did not come about"
        time.sleep(0.002)


def start(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Call it on a thread; the list gets what it returns or raises."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - handed to the test
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


class Slow:
    """A loader that waits in the middle until it is let go."""

    def __init__(self, value: Any = "old") -> None:
        self.value = value
        self.calls = 0
        self.inside = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> Any:
        self.calls += 1
        value = self.value
        self.inside.set()
        assert self.go.wait(10)
        return value


def loads_of_a_herd(caches: list[Any], at_once: Any, gathered: Any) -> int:
    """How often the loader of one cold key runs for six callers on each of three caches; all must get its value."""
    calls = []

    def load() -> list[int]:
        calls.append(1)
        gathered(17, *caches)
        return [1]

    results = at_once(18, lambda index: caches[index % 3].get_or_load("hot", load))
    assert results == [[1]] * 18
    return len(calls)
