"""What happens in a replica set, as events."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

from resilient import events

__all__ = ["NodeChanged", "ReadMoved", "ReadRouted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChanged(events.Event):
    """A server of a replica set changed its state.

    Args:
        set_name: The replica set.
        node: The server, as in ``primary`` or ``replica-1``.
        before: Its state until now.
        after: Its state from now on.
    """

    level: ClassVar[int] = logging.WARNING
    metric: ClassVar[events.Metric | None] = events.Metric(
        "resilient.replicas.changes",
        "counter",
        "{change}",
        labels=(
            ("resilient.replicas.name", "set_name"),
            ("resilient.replicas.node", "node"),
            ("resilient.replicas.state", "after"),
        ),
    )
    set_name: str
    node: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRouted(events.Event):
    """A transaction began with a read, and a server was chosen for it.

    Args:
        set_name: The replica set.
        node: The server chosen.
        reason: Why that one: ``replica``, ``pinned`` (no replica is proven to hold what the reader has seen),
            ``no-replica`` (none is in the rotation), ``strong`` (asked for), or why the statement had to stay on the
            primary.
    """

    metric: ClassVar[events.Metric | None] = events.Metric(
        "resilient.replicas.reads",
        "counter",
        "{transaction}",
        labels=(
            ("resilient.replicas.name", "set_name"),
            ("resilient.replicas.node", "node"),
            ("resilient.replicas.reason", "reason"),
        ),
    )
    set_name: str
    node: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadMoved(events.Event):
    """The first read of a transaction failed on one server and was made again on another.

    Args:
        set_name: The replica set.
        node: The server that failed.
        error: The type of its error.
    """

    level: ClassVar[int] = logging.INFO
    metric: ClassVar[events.Metric | None] = events.Metric(
        "resilient.replicas.moved",
        "counter",
        "{read}",
        labels=(("resilient.replicas.name", "set_name"), ("resilient.replicas.node", "node")),
    )
    set_name: str
    node: str
    error: str
