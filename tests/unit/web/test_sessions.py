"""The core of sessions on the server: merging, renewing, ending, and what a store may not do to it."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.cache._codecs import Codec, Settings
from resilient.errors import ConfigurationError, InvalidInput, Unavailable
from resilient.testing import FakeClock
from resilient.web._session_stores import MemorySessions
from resilient.web._sessions import Gone, Keeper, _key

DAY = 86_400.0
SECRET = "a secret for tests"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return MemorySessions(clock=clock)


@pytest.fixture
def keeper(store, clock):
    return Keeper(store, life=DAY, secret=SECRET, clock=clock)


def sliding(store, clock, life=DAY):
    return Keeper(store, life=life, sliding=True, secret=SECRET, clock=clock)


# ----------------------------------------------------------------------------------------------------------- fields


def test_what_was_stored_is_read_back_with_its_types(keeper):
    """Dates, tuples and sets too, under an id that is not in the store."""
    data = {"user_id": 17, "at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "cart": [(1, 2), {"b", "a"}], "none": None}
    made = keeper.create(data)
    assert keeper.load(made.id).data == data
    assert made.id not in str(vars(keeper.store))


def test_concurrent_writes_to_different_fields_are_both_kept(keeper):
    """Each request writes what it has changed, and nothing else."""
    made = keeper.create({"a": 1, "b": 1, "c": 1})
    one, other = keeper.load(made.id), keeper.load(made.id)
    keeper.save(one, {**one.data, "a": 2})
    keeper.save(other, {"a": 1, "b": 2})  # and drops c
    assert keeper.load(made.id).data == {"a": 2, "b": 2}


NAMES = st.sampled_from("abcd")
VALUES = st.one_of(st.integers(), st.text(max_size=3), st.frozensets(st.integers(0, 9), max_size=3), st.none())
CHANGES = st.lists(st.tuples(st.booleans(), NAMES, VALUES), max_size=6)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(NAMES, VALUES, min_size=1), CHANGES, CHANGES)
def test_two_requests_merge_per_field(before, first, second):
    """What one of two requests has not changed, the other one's change of it stands."""
    keeper = Keeper(MemorySessions(), life=DAY, secret=SECRET, owner="nobody")
    name = keeper.create(before).id
    read = [keeper.load(name), keeper.load(name)]
    wanted = [dict(before), dict(before)]
    for data, changes in zip(wanted, (first, second), strict=True):
        for drop, field, value in changes:
            data.pop(field, None) if drop else data.__setitem__(field, value)
    for session, data in zip(read, wanted, strict=True):
        keeper.save(session, data)
    expected = dict(wanted[0])
    for field in set(before) | set(wanted[1]):
        if wanted[1].get(field, keeper) != before.get(field, keeper):
            expected.pop(field, None)
            if field in wanted[1]:
                expected[field] = wanted[1][field]
    assert keeper.load(name).data == expected


def test_a_change_within_a_value_is_seen(keeper):
    """No flag is needed: what was read is compared with what is there now."""
    made = keeper.create({"cart": [1]})
    read = keeper.load(made.id)
    read.data["cart"].append(2)
    keeper.save(read, read.data)
    assert keeper.load(made.id).data == {"cart": [1, 2]}


def test_what_cannot_be_written_is_refused_before_anything_is(keeper):
    """The session is as it was."""
    made = keeper.create({"a": 1})
    with pytest.raises(InvalidInput):
        keeper.save(keeper.load(made.id), {"a": 2, "b": object()})
    assert keeper.load(made.id).data == {"a": 1}


@pytest.mark.parametrize("name", [1, None, "", "\udc80", b"a"])
def test_a_name_that_would_not_be_found_again_is_refused(keeper, name):
    """And is not written, since the whole session would be unreadable from then on."""
    with pytest.raises(InvalidInput):
        keeper.create({"a": 1, name: 2})
    made = keeper.create({"a": 1})
    with pytest.raises(InvalidInput):
        keeper.save(keeper.load(made.id), {"a": 1, name: 2})
    assert keeper.load(made.id).data == {"a": 1}


def test_a_session_shows_neither_its_id_nor_what_it_holds(keeper, store):
    """Nor does what the store gave: both may stand in a log, as the arguments of a call that failed."""
    made = keeper.create({"user_id": 17, "card": "4711"})
    for each in (made, keeper.load(made.id), store.load(_key(made.id), None)):
        assert made.id not in repr(each)
        assert "4711" not in repr(each)


# ------------------------------------------------------------------------------------------------------------- life


def test_a_fixed_life_ends_though_the_session_is_used(keeper, clock):
    """Readable a second before its end, gone at it, however often it was read and written."""
    made = keeper.create({"user_id": 17, "n": 0})
    for hour in range(1, 24):
        clock.advance(3600)
        keeper.save(keeper.load(made.id), {"user_id": 17, "n": hour})
    clock.advance(3599)
    assert keeper.load(made.id).left == pytest.approx(1)
    clock.advance(1)
    assert keeper.load(made.id) is None


def test_fifteen_seconds_are_fifteen_seconds(store, clock):
    """Readable after 14 s, gone after 15 s."""
    keeper = Keeper(store, life=15, secret=SECRET, clock=clock)
    made = keeper.create({"a": 1})
    clock.advance(14)
    assert keeper.load(made.id) is not None
    clock.advance(1)
    assert keeper.load(made.id) is None


def test_a_sliding_life_begins_anew_with_each_use(store, clock):
    """It ends so many seconds after the last one."""
    keeper = sliding(store, clock)
    made = keeper.create({"a": 1})
    for _ in range(5):
        clock.advance(DAY - 1)
        assert keeper.load(made.id) is not None
    clock.advance(DAY)
    assert keeper.load(made.id) is None


def test_a_session_that_lives_on_stays_in_its_owners_list(clock):
    """The list is told again before it would go; it is told so while the session is used, not at each use."""
    told = []

    class Listening(MemorySessions):
        def join(self, owner, key, life):
            told.append(life)
            super().join(owner, key, life)

    keeper = sliding(Listening(clock=clock), clock)
    made = keeper.create({"user_id": 17})
    for _ in range(20):
        clock.advance(DAY / 4)
        keeper.load(made.id)
    assert told == [2 * DAY] * 11  # at first, and every half of its life


@pytest.mark.parametrize("begun_for", [30 * DAY, None])
def test_a_session_that_lives_on_for_longer_than_others_stays_in_the_list_too(clock, begun_for):
    """Whoever "remembers me" for a month, where others are forgotten after a day, is logged out everywhere as well."""
    lists = {}

    class Listening(MemorySessions):
        def join(self, owner, key, life):
            lists[owner] = max(lists.get(owner, 0.0), clock.wall() + life)
            super().join(owner, key, life)

    keeper = sliding(Listening(clock=clock), clock)
    made = keeper.create({"user_id": 17}, begun_for)
    (until,) = lists.values()
    while clock.wall() < until:  # used every day for as long as the list was to live at first
        read = keeper.load(made.id)
        keeper.prolong(read, 30 * DAY)
        clock.advance(DAY / 2)
    read = keeper.load(made.id)
    keeper.prolong(read, 30 * DAY)
    (until,) = lists.values()
    assert until > clock.wall() + 30 * DAY  # not before the session


def test_a_login_for_a_shorter_time_than_the_session_was_begun_for_is_listed_again(clock):
    """The list of the owner lives from the login on, and not from when the session was begun without one."""
    lists = {}

    class Listening(MemorySessions):
        def join(self, owner, key, life):
            lists[owner] = max(lists.get(owner, 0.0), clock.wall() + life)
            super().join(owner, key, life)

    keeper = sliding(Listening(clock=clock), clock)
    made = keeper.create({"cart": 1}, 30 * DAY)  # in one request, as Django does when it renews an id at a login
    keeper.save(made, {"user_id": 17}, DAY)
    for _ in range(10):
        clock.advance(DAY / 2)
        assert keeper.load(made.id) is not None
        (until,) = lists.values()
        assert until >= clock.wall() + DAY


# ------------------------------------------------------------------------------------------------- owners and their ids


def test_the_id_changes_with_the_owner(keeper):
    """What somebody planted in a browser before the login is worth nothing after it."""
    planted = keeper.create({"cart": [1]})
    after = keeper.save(keeper.load(planted.id), {"cart": [1], "user_id": 17})
    assert after.id != planted.id
    assert keeper.load(planted.id) is None
    assert keeper.load(after.id).data == {"cart": [1], "user_id": 17}


@pytest.mark.parametrize("step", ["create", "take"])
def test_what_others_write_while_an_id_is_renewed_goes_along(keeper, store, step):
    """But for what the renewing request has changed itself; and none of them says whose session it is."""
    made = keeper.create({"a": 1, "b": 1, "c": 1, "d": 1, "same": {1, 2}})
    read, other = keeper.load(made.id), keeper.load(made.id)
    plain = getattr(store, step)

    def meanwhile(*args):
        setattr(store, step, plain)
        keeper.save(other, {"a": 2, "b": 2, "c": 1, "same": {2, 1}, "new": 2})  # and drops d
        return plain(*args)

    setattr(store, step, meanwhile)
    after = keeper.save(read, {"a": 1, "b": 3, "d": 1, "same": {1, 2}, "user_id": 17})  # and drops c
    expected = {"a": 2, "b": 3, "same": {1, 2}, "new": 2, "user_id": 17}
    assert after.data == keeper.load(after.id).data == expected
    keeper.save(after, {**expected, "last": 3})
    assert keeper.load(after.id).data == {**expected, "last": 3}


def test_a_login_begins_a_new_life_and_renewing_an_id_does_not(keeper, clock):
    """Somebody who asks for new ids again and again is logged out in time all the same."""
    made = keeper.create({"cart": [1]})
    clock.advance(DAY - 10)
    login = keeper.save(keeper.load(made.id), {"user_id": 17})
    assert login.left == DAY
    clock.advance(DAY - 10)
    again = keeper.rotate(keeper.load(login.id), {"user_id": 17})
    assert again.id != login.id
    assert again.left == pytest.approx(10)


def test_an_id_that_nobody_made_is_never_taken_over(keeper):
    """A browser that names one gets another."""
    assert keeper.load("chosen by somebody") is None
    assert keeper.create({"a": 1}).id != "chosen by somebody"


def test_log_out_everywhere_ends_all_sessions_of_one_owner(keeper):
    """But the one that asks, where it says so, and those of others."""
    mine = [keeper.create({"user_id": 17}) for _ in range(3)]
    late = keeper.save(keeper.load(keeper.create({"x": 1}).id), {"user_id": 17})
    other = keeper.create({"user_id": 18})
    assert keeper.log_out_everywhere(17, keep=late.id) == 3
    assert [keeper.load(each.id) for each in mine] == [None] * 3
    assert keeper.load(late.id) is not None
    assert keeper.log_out_everywhere("17") == 1
    assert keeper.load(other.id) is not None


def test_what_was_ended_is_not_written_to(keeper):
    """A request that was at work while its user was logged out does not log them in again."""
    made = keeper.create({"user_id": 17})
    at_work, renewing = keeper.load(made.id), keeper.load(made.id)
    keeper.log_out_everywhere(17)
    with pytest.raises(Gone):
        keeper.save(at_work, {"user_id": 17, "a": 1})
    with pytest.raises(Gone):
        keeper.rotate(renewing, renewing.data)
    assert keeper.log_out_everywhere(17) == 0  # the renewed one was not left behind


def test_a_session_renewed_while_all_are_ended_is_ended_too(keeper, store):
    """Whichever step of the renewal the others are ended at."""
    for step in ("create", "join", "take"):
        made = keeper.create({"user_id": 17})
        read = keeper.load(made.id)
        plain = getattr(store, step)

        def meanwhile(*args, plain=plain, step=step):
            setattr(store, step, plain)
            done = plain(*args)
            keeper.log_out_everywhere(17)
            return done

        setattr(store, step, meanwhile)
        try:
            new = keeper.rotate(read, read.data).id
        except Gone:
            new = ""
        assert keeper.load(made.id) is None
        assert not new or keeper.load(new) is None
        assert keeper.log_out_everywhere(17) == 0


# -------------------------------------------------------------------------------------------------- stores and forgers


def test_a_store_that_is_away_tells_nobody_anything(keeper, store):
    """Every step says so: none takes it for an empty session."""
    made = keeper.create({"user_id": 17})
    read = keeper.load(made.id)
    store.away = True
    for step in (
        lambda: keeper.load(made.id),
        lambda: keeper.create({}),
        lambda: keeper.save(read, {"a": 1, "user_id": 17}),
        lambda: keeper.end(made.id),
        lambda: keeper.log_out_everywhere(17),
    ):
        with pytest.raises(Unavailable):
            step()
    store.away = False
    assert keeper.load(made.id).data == {"user_id": 17}


def test_who_writes_to_the_store_can_move_no_field_to_another_session(keeper, store):
    """A field is signed with the session and the name it belongs to; one that does not fit ends the session."""
    admin, mine = keeper.create({"user_id": 1}), keeper.create({"user_id": 17, "name": "1"})
    fields = store._sessions[_key(mine.id)][0]
    before = dict(fields)
    for forged in (store._sessions[_key(admin.id)][0]["user_id"], before["name"], b"", b"\x00" * 60):
        fields["user_id"] = forged
        assert keeper.load(mine.id) is None
    fields.update(before)
    assert keeper.load(mine.id).data["user_id"] == 17


def test_what_a_cache_signed_with_the_same_secret_is_no_field(keeper, store):
    """A value that looks like one may have come from anybody; who can write to the store could put it there."""
    mine = keeper.create({"user_id": 17})
    key = _key(mine.id)
    number, body = Codec(settings=Settings("safe", secret=SECRET)).encode([key, "user_id", 1])
    store._sessions[key][0]["user_id"] = bytes((number,)) + body
    assert keeper.load(mine.id) is None


def test_a_session_signed_with_an_old_secret_is_read_while_it_is_named(store, clock):
    """So a secret is changed without logging anybody out, and one that is not named any more is worth nothing."""
    old = Keeper(store, life=DAY, secret=SECRET, clock=clock).create({"user_id": 17})
    new = Keeper(store, life=DAY, secret=["another secret here", SECRET], clock=clock)
    assert new.load(old.id).data == {"user_id": 17}
    assert Keeper(store, life=DAY, secret="another secret here", clock=clock).load(old.id) is None


def test_a_full_process_ends_nobodys_session(clock):
    """A new one is refused, until old ones are over."""
    keeper = Keeper(MemorySessions(2, clock=clock), life=DAY, secret=SECRET, clock=clock)
    keeper.create({"a": 1})
    keeper.create({"a": 1})
    with pytest.raises(Unavailable):
        keeper.create({"a": 1})
    clock.advance(DAY)
    keeper.create({"a": 1})


@pytest.mark.parametrize("wrong", [{"life": 0}, {"life": -1}, {"secret": None}, {"secret": "short"}])
def test_wrong_settings_are_refused(store, wrong):
    """Where they are made, not at the first request."""
    with pytest.raises(ConfigurationError):
        Keeper(store, **{"life": DAY, "secret": SECRET, **wrong})
