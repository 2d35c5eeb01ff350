"""Positions, tokens and scopes."""

from __future__ import annotations

import asyncio
import http.cookies
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient import causality, events
from resilient.causality import Gtid, Instant, Position, Scope, Token, current, scope
from resilient.errors import InvalidInput

instants = st.builds(Instant, st.integers(0, 10**15).map(lambda micros: micros / 10**6))
gtids = st.builds(
    Gtid,
    st.dictionaries(st.integers(0, 5), st.tuples(st.integers(1, 9), st.integers(0, 10**6)), min_size=1, max_size=3),
)
names = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)


@st.composite
def tokens(draw: st.DrawFn) -> Token:
    """Tokens in which each database has positions of one kind, as it is in use."""
    return Token({name: draw(gtids if name < "M" else instants) for name in draw(st.lists(names, max_size=4))})


@given(tokens())
def test_a_token_survives_its_text(token: Token) -> None:
    """What is written is what is read, and it fits a cookie, a header and a message attribute."""
    text = str(token)
    assert str(Token.parse(text)) == text
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set('",; \\')
    jar = http.cookies.SimpleCookie()
    jar["token"] = text
    assert http.cookies.SimpleCookie(jar.output(header=""))["token"].value == text


@given(st.one_of(st.tuples(gtids, gtids, gtids), st.tuples(instants, instants, instants)))
def test_merging_positions(three: tuple[Position, Position, Position]) -> None:
    """A merged position covers both parts and nothing is needed beyond them, in any order."""
    one, two, other = three
    merged = one.merge(two)
    assert merged.covers(one)
    assert merged.covers(two)
    assert other.covers(merged) == (other.covers(one) and other.covers(two))
    assert one.merge(one) == one
    assert one.merge(two).merge(other).covers(one.merge(two.merge(other)))
    assert one.merge(two.merge(other)).covers(one.merge(two).merge(other))


@given(tokens(), tokens())
def test_merging_tokens(one: Token, two: Token) -> None:
    """A merged token covers what each part covers for every database."""
    merged = one.merge(two)
    for part in (one, two):
        for name, position in part.positions.items():
            found = merged.get(name)
            assert found is not None
            assert found.covers(position)
    assert set(merged.positions) == set(one.positions) | set(two.positions)


def test_a_gtid_is_compared_by_domain() -> None:
    """Sequence numbers count within each domain; after a failover another server goes on counting."""
    assert Gtid.parse("0-2-8").covers(Gtid.parse("0-1-7"))
    assert not Gtid.parse("0-2-8").covers(Gtid.parse("0-1-9"))
    assert not Gtid.parse("0-2-8").covers(Gtid.parse("1-1-1"))
    assert Gtid.parse("0-2-8,1-1-3").covers(Gtid.parse("1-1-3"))
    assert str(Gtid.parse("1-1-3, 0-2-8")) == "0-2-8/1-1-3"
    assert Gtid.parse("").covers(Gtid.parse(""))


def test_kinds_do_not_cover_each_other() -> None:
    """A time proves nothing about a GTID, nor the other way round; the newer observation is kept."""
    time, gtid = Instant(5.0), Gtid.parse("0-1-1")
    assert not time.covers(gtid)
    assert not gtid.covers(time)
    assert Token({"app": time}).advance("app", gtid).get("app") == gtid


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1!",
        "2!app:t1.000000",
        "1!app",
        "1!app:",
        "1!app:x1",
        "1!app:t1",
        "1!app:t-1.000000",
        "1!app:tnan",
        "1!app:tinf",
        "1!app:t1e999",
        "1!app:g1",
        "1!app:g0-1-" + "9" * 21,
        "1!:t1.000000",
        "1!a b:t1.000000",
        "1!a/b:t1.000000",
        "1!" + "!".join(f"n{i}:t1.000000" for i in range(65)),
        "1!app:t1.000000!" + "x" * 3000,
        "' OR 1=1 --",
    ],
)
def test_malformed_tokens_are_refused(text: str) -> None:
    """Text from a client that is no token is refused by our error, which does not repeat it."""
    with pytest.raises(InvalidInput) as caught:
        Token.parse(text)
    assert text not in str(caught.value) or len(text) < 4


@given(st.text(max_size=200))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    """Whatever a client sends, parsing ends with a token or with InvalidInput."""
    try:
        token = Token.parse(text)
    except InvalidInput:
        return
    assert Token.parse(str(token)) == token


def test_tokens_are_values() -> None:
    """Equal content, equal token and hash; its mapping cannot be changed from outside."""
    source: dict[str, Position] = {"app": Instant(1.0)}
    token = Token(source)
    source["app"] = Instant(9.0)
    assert token.get("app") == Instant(1.0)
    assert {token: 1}[Token({"app": Instant(1.0)})] == 1
    with pytest.raises(TypeError):
        token.positions["app"] = Instant(2.0)  # type: ignore[index] # what the test is about
    assert not Token()
    assert str(Token()) == ""
    assert Token.parse("") == Token()


def test_a_scope_collects_from_threads_and_tasks() -> None:
    """What threads and tasks of a request observe ends in the request's own token."""
    with scope("1!app:t5.000000") as opened:
        asyncio.run(_observe_in_tasks())
        thread = threading.Thread(target=opened.observe, args=("users", Instant(7.0)))
        thread.start()
        thread.join(5)
    assert str(opened.token) == "1!app:t9.000000!users:t7.000000"
    assert "app:t9" in repr(opened)


async def _observe_in_tasks() -> None:
    async def observe(at: float) -> None:
        current().observe("app", Instant(at))

    await asyncio.gather(observe(9.0), observe(3.0), asyncio.to_thread(lambda: current().observe("app", Instant(8.0))))


def test_scopes_nest_and_close() -> None:
    """An inner scope learns for itself, and the outer one is current again after it."""
    with scope() as outer:
        with scope() as inner:
            current().observe("app", Instant(1.0))
        assert current() is outer
    assert (bool(inner.token), bool(outer.token)) == (True, False)


def test_a_malformed_token_opens_no_scope() -> None:
    """A scope asked for with text that is no token is refused before it is opened."""
    with pytest.raises(InvalidInput), scope("garbage"):
        pytest.fail("the scope was opened")


def test_without_a_scope_the_process_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside any scope one for the whole process is used, and that is said once."""
    monkeypatch.setattr(causality, "_process_scope", Scope())
    monkeypatch.setattr(causality, "_warned", threading.Event())
    sink = events.MemorySink()
    unsubscribe = events.subscribe(sink)
    assert current() is current()
    unsubscribe()
    assert len(sink.of(causality.ScopeMissing)) == 1


def test_a_token_at_its_limits_is_read() -> None:
    """2,048 characters and 64 databases are allowed; one character or one database more is not."""
    names = [f"{number:064d}" for number in range(27)]
    longest = "1!" + "!".join(f"{name}:t1.000000" for name in [*names, "n" * 11])
    assert len(longest) == 2048
    assert Token.parse(longest).get("n" * 11) == Instant(1.0)
    with pytest.raises(InvalidInput):
        Token.parse(longest.replace("n" * 11, "n" * 12))
    most = "1!" + "!".join(f"n{number}:t1.000000" for number in range(64))
    assert len(Token.parse(most).positions) == 64


def test_positions_that_differ_are_told_apart_as_keys() -> None:
    """Equal positions and tokens have one hash, and different ones have different hashes, also for GTIDs."""
    one, same, other = Gtid.parse("0-1-42"), Gtid.parse("0-1-42"), Gtid.parse("0-1-43")
    assert hash(one) == hash(same)
    assert hash(one) != hash(other)
    assert hash(Token({"app": one})) == hash(Token({"app": same}))
    assert hash(Token({"app": one})) != hash(Token({"app": other}))


def test_merging_equal_positions_keeps_the_one_that_was_known() -> None:
    """Where both stand at one sequence number, the server that is known stays."""
    assert str(Gtid.parse("0-1-42").merge(Gtid.parse("0-2-42"))) == "0-1-42"


@pytest.mark.parametrize(
    "text", ["nonsense", "1!", "1!app:x1", "1!app:tnever", "2!app:t1.000000", "1!a b:t1.000000", "x" * 3000]
)
def test_what_is_no_token_is_read_as_an_empty_one(text: str) -> None:
    """Text from outside that is no token never raises: reads then start afresh."""
    assert Token.read(text) == Token()


@given(tokens())
def test_a_token_from_outside_is_read(token: Token) -> None:
    """Text from outside that is a token is read as that token."""
    assert Token.read(str(token)) == Token.parse(str(token))
