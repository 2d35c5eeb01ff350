"""What tasks wait for on a stream, which must be to them what a future of asyncio is."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from resilient.policy import deadline
from resilient.wire.redis import _stream
from resilient.wire.redis._lanes import AsyncNode
from resilient.wire.redis._limits import Limits
from resilient.wire.redis._reply import Reply, hand_out
from resilient.wire.redis._stream import Stream


def pythonic(loop: Any, coroutine: Any, **options: Any) -> Any:
    """A task that is written in Python, as where the C one is missing."""
    tasks: Any = asyncio.tasks
    return tasks._PyTask(coroutine, loop=loop, **options)


KINDS = pytest.mark.parametrize("factory", [None, pythonic], ids=["c", "python"])


def run(main: Any, factory: Any = None) -> Any:
    """Run with tasks of one kind."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_task_factory(factory)
        return runner.run(main())


def by_the_loop(step: Any, *args: Any) -> asyncio.Future[Any]:
    """Do something outside of any task, as a transport does, and say what came of it."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def do() -> None:
        done.set_result(step(*args))

    loop.call_soon(do)
    return done


def bring(replies: list[Reply]) -> None:
    """Let their tasks go on, as a stream does."""
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    hand_out(replies, done)


def new() -> Reply:
    return Reply(asyncio.get_running_loop(), 0.0, 0.0, 1)


async def turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


@KINDS
def test_a_task_goes_on_in_the_turn_that_brings_its_reply(factory):
    """When `hand_out` returns, the tasks have had their replies, in order."""

    async def main() -> None:
        replies, heard = [new(), new(), new()], []

        async def wait(reply: Reply) -> None:
            heard.append(await reply)

        tasks = [asyncio.create_task(wait(reply)) for reply in replies]
        await turns()

        def bring_all() -> list[Any]:
            for number, reply in enumerate(replies):
                reply.value = number
            bring(replies)
            return list(heard)

        assert await by_the_loop(bring_all) == [0, 1, 2]
        await asyncio.gather(*tasks)

    run(main, factory)


@KINDS
@pytest.mark.parametrize("awaited", [True, False], ids=["awaited", "sent-only"])
def test_what_came_before_it_was_awaited_is_there(factory, awaited):
    """Commands may be sent long before anybody asks for the reply."""

    async def main() -> None:
        reply = new()
        reply.value = [1]
        await by_the_loop(bring, [reply])
        if awaited:
            assert await reply == [1]
        assert (reply.done(), reply.cancelled(), reply.exception(), reply.cancel()) == (True, False, None, False)

    run(main, factory)


@KINDS
def test_a_task_that_is_cancelled_while_others_are_handed_theirs_is_cancelled(factory):
    """Its reply has come, and it has not gone on yet."""

    async def main() -> None:
        first, second = new(), new()

        async def cancel() -> None:
            await first
            waiting.cancel()

        async def wait() -> None:
            await second

        waiting, cancelling = asyncio.create_task(wait()), asyncio.create_task(cancel())
        await turns()
        await by_the_loop(bring, [first, second])
        await cancelling
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(main, factory)


def test_an_interrupt_leaves_nobody_waiting_for_ever():
    """It ends the loop; should that run again, the others get what came for them."""
    loop = asyncio.new_event_loop()
    try:
        replies = [Reply(loop, 0.0, 0.0, 1) for _ in range(3)]

        async def wait(place: int) -> int:
            await replies[place]
            if place == 1:
                raise KeyboardInterrupt
            return place

        tasks = [loop.create_task(wait(place)) for place in range(3)]
        loop.run_until_complete(turns())
        loop.call_soon(bring, replies)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(turns())
        assert loop.run_until_complete(asyncio.gather(tasks[0], tasks[2])) == [0, 2]
        assert isinstance(tasks[1].exception(), KeyboardInterrupt)
    finally:
        loop.close()


@KINDS
def test_a_limit_around_it_holds(factory):
    """A block with a time limit is cancelled, and the reply that comes after it is dropped."""

    async def main() -> None:
        reply = new()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await reply
        assert reply.cancelled()
        reply.value = 1
        await by_the_loop(bring, [reply])
        with pytest.raises(asyncio.CancelledError):
            reply.result()

    run(main, factory)


def test_asked_too_early_it_says_so():
    """As a future does."""

    async def main() -> None:
        reply = new()
        with pytest.raises(asyncio.InvalidStateError):
            reply.result()
        assert not reply.done()
        assert asyncio.isfuture(reply)

    run(main)


ACTIONS = st.lists(st.tuples(st.sampled_from(["give", "fail", "cancel", "drop"]), st.integers(0, 2)), max_size=8)


@given(ACTIONS, st.booleans(), st.sampled_from([None, pythonic]))
def test_tasks_end_as_they_do_with_a_future(actions, together, factory):
    """Given a reply or an error, cancelled, or given up from the side, in any order, in one turn or in several."""

    async def play(make: Any, give: Any, fail: Any) -> list[Any]:
        things = [make() for _ in range(3)]

        async def wait(thing: Any) -> Any:
            try:
                return await thing
            except ValueError as error:
                return repr(error)

        tasks = [asyncio.create_task(wait(thing)) for thing in things]
        await turns()
        for what, place in actions:
            if what == "give":
                await by_the_loop(give, things[place], place)
            elif what == "fail":
                await by_the_loop(fail, things[place])
            elif what == "cancel":
                tasks[place].cancel()
            else:
                things[place].cancel()
            if not together:
                await turns()
        await turns()
        ends = ["waits" if not task.done() else "cancelled" if task.cancelled() else task.result() for task in tasks]
        for task in tasks:
            task.cancel()
        return ends

    def give_reply(reply: Reply, value: int) -> None:
        if not reply.settled:
            reply.value = value
        bring([reply])

    def give_future(future: asyncio.Future[Any], value: int) -> None:
        if not future.done():
            future.set_result(value)

    def fail_future(future: asyncio.Future[Any]) -> None:
        if not future.done():
            future.set_exception(ValueError("late"))

    async def main() -> tuple[list[Any], list[Any]]:
        loop = asyncio.get_running_loop()
        return (
            await play(new, give_reply, lambda reply: reply.fail(ValueError("late"))),
            await play(loop.create_future, give_future, fail_future),
        )

    ours, theirs = run(main, factory)
    assert ours == theirs


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def set_protocol(self, _: Any) -> None:
        pass  # it is the test that brings the data

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass  # the stream says so itself

    def close(self) -> None:
        pass  # as above


def received(stream: Stream, data: bytes) -> None:
    """Bring a stream what the server said, as a transport does."""
    stream.get_buffer(-1)[: len(data)] = data
    stream.buffer_updated(len(data))


@pytest.mark.parametrize("handed", [False, True], ids=["first", "handed-a-reply"])
def test_what_is_outstanding_has_its_bound(monkeypatch, handed):
    """Also for a task that is handed a reply, and says more than one thing then."""
    hiredis = pytest.importorskip("hiredis")
    monkeypatch.setattr(_stream, "new_reader", lambda _: hiredis.Reader(notEnoughData=_stream.UNFINISHED))
    monkeypatch.setattr(_stream, "_MOST", 2)

    async def main() -> None:
        stream = Stream(SimpleNamespace(_writer=SimpleNamespace(transport=Wire()), _reader=None))

        async def crowd() -> None:
            if handed:
                await stream.send(b"a", 1, 60.0)
            stream.send(b"b", 1, 60.0)
            stream.send(b"c", 1, 60.0)
            with pytest.raises(redis.ConnectionError, match="in use"):
                stream.send(b"d", 1, 60.0)
            stream.close()

        task = asyncio.create_task(crowd())
        await turns()
        if handed:
            await by_the_loop(received, stream, b":1\r\n")
        await task

    run(main)


def test_what_tasks_say_who_are_handed_replies_goes_out_together(monkeypatch):
    """Three replies in one piece, three new commands in one write; a reply nobody asked for ends the stream after."""
    hiredis = pytest.importorskip("hiredis")
    monkeypatch.setattr(_stream, "new_reader", lambda _: hiredis.Reader(notEnoughData=_stream.UNFINISHED))

    async def main() -> None:
        wire = Wire()
        stream = Stream(SimpleNamespace(_writer=SimpleNamespace(transport=wire), _reader=None))
        heard: list[Any] = []

        async def ask_twice(number: int) -> None:
            heard.append(await stream.send(b"a%d " % number, 1, 60.0))
            heard.append(await stream.send(b"b%d " % number, 1, 60.0))

        tasks = [asyncio.create_task(ask_twice(number)) for number in range(3)]
        await turns()
        assert wire.written == [b"a0 ", b"a1 a2 "]
        await by_the_loop(received, stream, b":1\r\n:2\r\n:3\r\n")
        assert wire.written[2:] == [b"b0 b1 b2 "]
        await by_the_loop(received, stream, b":4\r\n:5\r\n:6\r\n:7\r\n")
        await asyncio.gather(*tasks)
        assert heard == [1, 2, 3, 4, 5, 6]
        assert stream.closed

    run(main)


def test_nothing_is_sent_to_a_server_that_hung_up(monkeypatch):
    """What is said in the very turn in which its end was read is refused: it can be said elsewhere, even a write."""
    hiredis = pytest.importorskip("hiredis")
    monkeypatch.setattr(_stream, "new_reader", lambda _: hiredis.Reader(notEnoughData=_stream.UNFINISHED))

    async def main() -> None:
        near, far = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
        stream = Stream(SimpleNamespace(_writer=SimpleNamespace(transport=transport), _reader=None))
        far.close()
        while not transport.is_closing():  # noqa: ASYNC110 - the turns of the loop are what is tested
            await asyncio.sleep(0)
        assert stream.closed
        with pytest.raises(redis.ConnectionError, match="closed by server"):
            stream.send(b"SET k v", 1, 60.0)
        await turns()

    run(main)


def herd(monkeypatch: pytest.MonkeyPatch) -> tuple[Stream, Wire]:
    """A stream on which one reply is outstanding, so that what is said now goes out at the end of the turn."""
    hiredis = pytest.importorskip("hiredis")
    monkeypatch.setattr(_stream, "new_reader", lambda _: hiredis.Reader(notEnoughData=_stream.UNFINISHED))
    wire = Wire()
    stream = Stream(SimpleNamespace(_writer=SimpleNamespace(transport=wire), _reader=None))
    stream.send(b"first ", 1, 60.0)
    return stream, wire


async def outcome(reply: Reply) -> Any:
    """What it brings, or its error."""
    try:
        return await reply
    except (redis.RedisError, asyncio.CancelledError) as error:
        return error


def test_what_a_herd_reads_is_asked_for_once(monkeypatch):
    """Each gets a reply of his own; once it is sent, whoever asks then has it asked anew."""

    async def main() -> None:
        stream, wire = herd(monkeypatch)
        asked = [stream.send(b"a ", 1, 60.0, True) for _ in range(3)]
        other = stream.send(b"b ", 1, 60.0, True)
        await turns()
        late = stream.send(b"a ", 1, 60.0, True)
        await turns()
        assert wire.written == [b"first ", b"a b ", b"a "]
        tasks = [asyncio.create_task(outcome(reply)) for reply in (*asked, other, late)]
        await turns()
        await by_the_loop(received, stream, b":0\r\n*1\r\n:1\r\n-ERR no\r\n:3\r\n")
        found = await asyncio.gather(*tasks)
        assert found[:3] == [[1], [1], [1]]
        assert found[4] == 3
        assert len({id(each) for each in found[:3]}) == 3
        stream.close()

    run(main)


def test_what_a_herd_reads_of_a_node_of_a_cluster_is_asked_for_once(monkeypatch):
    """Several commands in one piece: each task gets a list of its own, and lists of its own in it."""

    async def main() -> None:
        stream, wire = herd(monkeypatch)
        node = AsyncNode(("", 0), lambda _: None, Limits(1.0, 60.0, 1.0, 1))
        node._lane().stream = stream
        begun = [await node.begin(b"a b ", 2, True) for _ in range(3)]
        begun[0].abandon()
        await turns()
        assert wire.written == [b"first ", b"a b "]
        tasks = [asyncio.create_task(each.finish()) for each in begun[1:]]
        await turns()
        await by_the_loop(received, stream, b":0\r\n*1\r\n:1\r\n*1\r\n:2\r\n")
        found = await asyncio.gather(*tasks)
        assert found == [[[1], [2]], [[1], [2]]]
        assert len({id(part) for each in found for part in each}) == 4
        stream.close()

    run(main)


def test_a_herd_is_told_of_an_error_each_by_himself(monkeypatch):
    """Of the server's, which is a reply, and of the connection's, which is raised."""

    async def main() -> None:
        stream, _ = herd(monkeypatch)
        refused = [stream.send(b"a ", 1, 60.0, True) for _ in range(2)]
        lost = [stream.send(b"b ", 1, 60.0, True) for _ in range(2)]
        tasks = [asyncio.create_task(outcome(reply)) for reply in (*refused, *lost)]
        await turns()
        await by_the_loop(received, stream, b":0\r\n-ERR no\r\n")
        stream.connection_lost(None)
        found = await asyncio.gather(*tasks)
        assert [str(each) for each in found] == ["ERR no"] * 2 + ["Connection closed by server."] * 2
        assert len({id(each) for each in found}) == 4

    run(main)


def test_what_is_read_after_a_change_is_asked_for_after_it(monkeypatch):
    """Though the same was to be read before it in the same turn."""

    async def main() -> None:
        stream, wire = herd(monkeypatch)
        for command, reading in ((b"read ", True), (b"write ", False), (b"read ", True), (b"read ", True)):
            stream.send(command, 1, 60.0, reading)
        await turns()
        assert wire.written == [b"first ", b"read write read "]
        stream.close()

    run(main)


def test_one_of_a_herd_goes_away_alone(monkeypatch):
    """Who is cancelled, the first or another, and whose deadline comes: the rest have their reply."""

    async def main() -> None:
        stream, _ = herd(monkeypatch)
        first, second, third = (stream.send(b"a ", 1, 60.0, True) for _ in range(3))
        with deadline(0.0):
            hurried = stream.send(b"a ", 1, 60.0, True)
        tasks = [asyncio.create_task(outcome(reply)) for reply in (first, second, third, hurried)]
        await turns()
        assert tasks[0].cancel()
        assert tasks[1].cancel()
        assert isinstance(await tasks[3], redis.TimeoutError)
        await by_the_loop(received, stream, b":0\r\n:1\r\n")
        gone, also, there, _ = await asyncio.gather(*tasks)
        assert isinstance(gone, asyncio.CancelledError)
        assert isinstance(also, asyncio.CancelledError)
        assert there == 1
        assert not stream.closed
        stream.close()

    run(main)
