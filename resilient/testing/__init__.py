"""What users of the library need in their own tests: a clock, fakes, faults, and real servers on loopback.

Each name is loaded when it is first used, so that importing this package loads no third-party library.

    >>> from resilient.testing import FakeClock
    >>> clock = FakeClock()
    >>> clock.sleep(30)  # returns at once: only the fake time moves

The real servers stand in `resilient.testing.servers`, the pytest fixtures in `resilient.testing.pytest_plugin`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilient.exports import loaded_when_used

if TYPE_CHECKING:
    from resilient.testing import faults
    from resilient.testing.cache import MemoryCache
    from resilient.testing.clock import FakeClock
    from resilient.testing.replicas import FakeReplicaSet
    from resilient.testing.s3 import FakeS3
    from resilient.testing.sqlite import SqliteReplication
    from resilient.testing.sqs import FakeSqs

_HOMES = {
    "FakeClock": "resilient.testing.clock",
    "FakeReplicaSet": "resilient.testing.replicas",
    "FakeS3": "resilient.testing.s3",
    "FakeSqs": "resilient.testing.sqs",
    "MemoryCache": "resilient.testing.cache",
    "SqliteReplication": "resilient.testing.sqlite",
}

__all__ = [
    "FakeClock",
    "FakeReplicaSet",
    "FakeS3",
    "FakeSqs",
    "MemoryCache",
    "SqliteReplication",
    "faults",
]


if not TYPE_CHECKING:  # which knows the names
    __getattr__, __dir__ = loaded_when_used(globals(), _HOMES, modules=["faults"])
