# Generated from resilient/wire/redis/_async/cluster.py by tools/unasync.py: do not edit.
"""A channel to a Cluster: each command goes straight to the node that has its key's slot."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from resilient.clock import SYSTEM
from resilient.errors import needs_extra
from resilient.wire.redis._addresses import Address, Place
from resilient.wire.redis._commands import READS, SLOTS, Argument, key_of, only_reads, slot_of
from resilient.wire.redis._dialing import dialer
from resilient.wire.redis._failures import classify
from resilient.wire.redis._limits import SLACK, Limits
from resilient.wire.redis._nodes import Exchange, Node
from resilient.wire.redis._parsing import pack, pack_many
from resilient.wire.redis._slots import forwarded, read_slots
from resilient.wire.redis._sync.channel import Channel

with needs_extra("redis"):
    import redis.exceptions

__all__ = ["ClusterChannel"]

_ASK_FOR_SLOTS = pack(("CLUSTER", "SLOTS"))
_ASKING = pack(("ASKING",))
_PAUSE = 0.1  # seconds between two looks at a map that is in doubt: an outage is not answered with a storm of questions
_LOST = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


class ClusterChannel(Channel):
    """See `Channel`.

    Which node has which slot is read from the nodes when it is first needed, corrected by each ``MOVED``, and read
    again after a connection failed. A command is sent on once: to where ``MOVED`` or ``ASK`` point, or, where it only
    reads or was never sent, to the node that has the slot now.
    """

    clustered = True

    def __init__(self, address: Address, limits: Limits) -> None:
        self._limits = limits
        self._dial = dialer(address, limits, Node.kinds)
        self._seeds = address.places
        self._nodes: dict[Place, Node] = {}
        self._blocking: dict[Place, Node] = {}
        self._slots: list[Node | None] | None = None
        self._doubtful = False
        self._looked = 0.0
        self._failed: set[Place] = set()
        self._teller: Place | None = None  # whoever a MOVED pointed to knows what others may not have heard yet

    # ------------------------------------------------------------------------------------------------- commands

    def call(self, *args: Argument, key: Argument | None = None) -> Any:
        """See `Channel.call`."""
        slots = self._slots
        if slots is None or self._doubtful:
            slots = self._reviewed()
        slot = self._slot(args, key)
        node = slots[slot] or _unserved(slot)
        wire, reading = pack(args), args[0] in READS
        try:
            reply = node.call(wire, reading)
        except _LOST as error:
            other = self._instead(node, slot, error, reading=reading)
            if other is None:
                raise
            reply = other.call(wire, reading)
        if isinstance(reply, Exception):
            reply = self._redirected(reply, node, wire, reading=reading)
            if isinstance(reply, Exception):
                raise reply
        return reply

    def call_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """See `Channel.call_many`."""
        replies: list[Any] = [None] * len(commands)
        left = self._round(self._reviewed(), commands, range(len(commands)), replies)
        if left:
            lost = any(isinstance(replies[at], _LOST) for at in left)
            slots = self._reviewed() if lost else self._slots  # a MOVED has corrected it already
            left = self._round(slots or [], commands, left, replies)
        for at in left:
            if isinstance(replies[at], _LOST):
                raise replies[at]
        return replies

    def block(self, seconds: float, *args: Argument) -> Any:
        """See `Channel.block`."""
        slot = self._slot(args, None)
        reply = None
        slots = self._reviewed()
        for _ in range(2):
            place = (slots[slot] or _unserved(slot)).place
            node = self._blocking.get(place) or self._blocking.setdefault(place, Node(place, self._dial, self._limits))
            try:
                reply = node.block(pack(args), seconds + SLACK)
            except _LOST:
                self._suspect(place)
                raise
            if not isinstance(reply, redis.exceptions.MovedError):
                break
            self._follow(reply, place)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        """See `Channel.aclose`."""
        for node in (*self._nodes.values(), *self._blocking.values()):
            node.close()

    def _slot(self, args: Sequence[Argument], key: Argument | None) -> int:
        if key is None:
            key = key_of(args)
        return random.randrange(SLOTS) if key is None else slot_of(key)  # noqa: S311 - any node will do

    def _round(
        self,
        slots: list[Node | None],
        commands: Sequence[Sequence[Argument]],
        wanted: Sequence[int],
        replies: list[Any],
    ) -> list[int]:
        """Send to all nodes, then fetch from all; returns what is worth sending once more, to where it belongs now."""
        groups: dict[Node, list[int]] = {}
        for at in wanted:
            slot = self._slot(commands[at], None)
            groups.setdefault(slots[slot] or _unserved(slot), []).append(at)
        begun: list[tuple[Node, list[int], Exchange]] = []
        again: list[int] = []
        try:
            for node, places in groups.items():
                chosen = [commands[at] for at in places]
                try:
                    exchange = node.begin(pack_many(chosen), len(chosen), only_reads(chosen))
                    begun.append((node, places, exchange))
                except _LOST as error:
                    again += self._lost(error, node, places, commands, replies)
            while begun:
                node, places, exchange = begun[0]
                try:
                    found = exchange.finish()
                    again += self._sort(found, node, places, commands, replies)
                except _LOST as error:
                    again += self._lost(error, node, places, commands, replies)
                begun.pop(0)
        finally:
            for _, _, exchange in begun:  # only where the caller was interrupted
                exchange.abandon()
        failure = next((reply for reply in replies if isinstance(reply, _Final)), None)
        if failure is not None:
            raise failure.error
        return again

    def _lost(
        self,
        error: Exception,
        node: Node,
        places: list[int],
        commands: Sequence[Sequence[Argument]],
        replies: list[Any],
    ) -> list[int]:
        self._suspect(node.place)
        again = _repeatable(error, reading=only_reads([commands[at] for at in places]))
        for at in places:
            replies[at] = error if again else _Final(error)
        return places if again else []

    def _sort(
        self,
        found: list[Any],
        node: Node,
        places: list[int],
        commands: Sequence[Sequence[Argument]],
        replies: list[Any],
    ) -> list[int]:
        again = []
        for at, reply in zip(places, found, strict=True):
            replies[at] = reply
            if isinstance(reply, redis.exceptions.AskError):
                wire, reading = pack(commands[at]), commands[at][0] in READS
                replies[at] = self._redirected(reply, node, wire, reading=reading)
            elif isinstance(reply, redis.exceptions.MovedError):
                self._follow(reply, node.place)
                again.append(at)
        return again

    # -------------------------------------------------------------------------------------------------- the map

    def _reviewed(self) -> list[Node | None]:
        """The map; read before, unless it is missing or in doubt."""
        slots = self._slots
        if slots is None:
            self._learn()
        elif self._doubtful and SYSTEM.monotonic() - self._looked > _PAUSE:
            try:
                self._learn()
            except redis.exceptions.RedisError:  # the old map is better than none
                self._looked = SYSTEM.monotonic()
        return self._slots or []

    def _learn(self) -> None:
        """Ask the nodes, those that failed last, until one answers."""
        until = SYSTEM.monotonic() + self._limits.connect + 2 * self._limits.answer
        self._looked = SYSTEM.monotonic()
        places = list({*self._nodes, *self._seeds})
        random.shuffle(places)
        places.sort(key=lambda place: (place in self._failed, place != self._teller))
        failure: Exception | None = None
        for place in places:
            try:
                reply = self._at(place).call(_ASK_FOR_SLOTS, True)
            except _LOST as error:
                reply = error
            if isinstance(reply, list) and reply:
                self._adopt(reply, place)
                return
            self._failed.add(place)
            failure = reply if isinstance(reply, Exception) else failure
            if SYSTEM.monotonic() > until:
                break
        raise redis.exceptions.ConnectionError(
            "Error connecting to the Cluster: no node says who has what"
        ) from failure

    def _adopt(self, reply: list[Any], asked: Place) -> None:
        slots: list[Node | None] = [None] * SLOTS
        for first, last, place in read_slots(reply, asked):
            slots[first : last + 1] = [self._at(place)] * (last + 1 - first)
        self._slots = slots
        self._doubtful = False
        self._failed.discard(asked)

    def _at(self, place: Place) -> Node:
        return self._nodes.get(place) or self._nodes.setdefault(place, Node(place, self._dial, self._limits))

    def _suspect(self, place: Place) -> None:
        self._failed.add(place)
        self._doubtful = True

    def _follow(self, moved: Any, asked: Place) -> Node:
        """Where a ``MOVED`` or an ``ASK`` points; the first also corrects the map."""
        node = self._at(forwarded(moved, asked))
        if isinstance(moved, redis.exceptions.MovedError):
            self._doubtful = True
            self._teller = node.place
            if self._slots is not None:
                self._slots[moved.slot_id] = node
        return node

    def _instead(self, node: Node, slot: int, error: Exception, *, reading: bool) -> Node | None:
        """Who has the slot now, if it is another and the command may be sent there."""
        self._suspect(node.place)
        if not _repeatable(error, reading=reading):
            return None
        other = (self._reviewed())[slot]
        return None if other is node else other

    def _redirected(self, reply: Exception, node: Node, wire: bytes, *, reading: bool) -> Any:
        if isinstance(reply, redis.exceptions.MovedError):
            return self._follow(reply, node.place).call(wire, reading)
        if isinstance(reply, redis.exceptions.AskError):
            exchange = self._follow(reply, node.place).begin(_ASKING + wire, 2, False)
            return (exchange.finish())[1]
        if isinstance(reply, redis.exceptions.ClusterDownError):
            self._doubtful = True
        return reply


class _Final:
    """The error of a node whose commands may have taken effect."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _repeatable(error: Exception, *, reading: bool) -> bool:
    verdict = classify(error)
    never_sent = verdict is not None and verdict.no_effect
    return never_sent or (reading and not isinstance(error, redis.exceptions.TimeoutError))


def _unserved(slot: int) -> Node:
    raise redis.exceptions.ClusterDownError(f"Hash slot {slot} is not served")
