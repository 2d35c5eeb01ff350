"""The pure core: what statuses add up to, and what cannot get into a report."""

from __future__ import annotations

import asyncio
import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.errors import ConfigurationError, DeadlineExceeded, InvalidInput, Unavailable
from resilient.health import Result, Status
from resilient.health._core import capped, check_name, check_worst, effect, http_status, reason_of, settle, worst
from resilient.policy import Failure, Verdict

STATUSES = st.sampled_from(list(Status))


def test_statuses_are_ordered_by_severity():
    """pass < warn < unknown < fail, in every comparison."""
    assert sorted([Status.FAIL, Status.WARN, Status.PASS, Status.UNKNOWN]) == [
        Status.PASS,
        Status.WARN,
        Status.UNKNOWN,
        Status.FAIL,
    ]
    for low, high in itertools.combinations(Status, 2):
        assert low < high
        assert low <= high
        assert high > low
        assert high >= low
        assert not high < low
        assert not low >= high
    for each in Status:
        assert each <= each >= each
        assert not each < each
        assert not each > each


@given(STATUSES, st.booleans(), st.sampled_from(["local", "shared"]), st.sampled_from(["warn", "fail"]))
def test_only_a_critical_fault_of_this_instance_or_under_fail_takes_it_out(status, critical, scope, shared):
    """503 needs a critical check that is worse than warn, and a local scope or shared="fail"."""
    told = effect(status, critical=critical, scope=scope, shared=shared)
    out = status > Status.WARN and critical and (scope == "local" or shared == "fail")
    assert (http_status(told) == 503) is out
    assert told == (status if out or status <= Status.WARN else Status.WARN)


@given(st.lists(STATUSES))
def test_a_report_is_as_bad_as_its_worst_check(statuses):
    """The severest status decides; no check at all passes."""
    assert worst(statuses) is max(statuses, default=Status.PASS)


@pytest.mark.parametrize(("returned", "status"), [(None, "pass"), (True, "pass"), (False, "fail")])
def test_plain_returns_are_understood(returned, status):
    """Nothing and True pass, False fails."""
    assert settle(returned).status.value == status


@pytest.mark.parametrize("returned", [0, 1, "fine", object(), []])
def test_any_other_return_is_an_error(returned):
    """A truthy or falsy value is no answer: a forgotten comparison must not pass."""
    with pytest.raises(InvalidInput):
        settle(returned)


@given(st.text() | st.text("ab1_-", max_size=42) | st.sampled_from(["timeout\n", "a" * 40, "a" * 41]))
def test_a_reason_is_one_word(text):
    """What is shown as a reason is one short word of harmless letters; all other text is refused."""
    harmless = set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    if set(text) <= harmless and text[:1].isalpha() and len(text) <= 40:
        assert Result.fail(text).reason == text
    else:
        with pytest.raises(InvalidInput):
            Result.fail(text)


@pytest.mark.parametrize("values", [{"depth": "12"}, {"a host": 1}, {"ok": True}, {"x": None}])
def test_measurements_are_numbers_with_harmless_names(values):
    """A measurement cannot carry text."""
    with pytest.raises(InvalidInput):
        Result(values=values)


def test_an_error_is_shown_by_its_class_only():
    """The word comes from the check's own table, else from the default one, else it is 'error'."""

    def table(error: BaseException) -> Verdict | None:
        return Verdict(Failure.READ_ONLY) if isinstance(error, KeyError) else None

    assert reason_of(KeyError("secret"), table) == "read_only"
    assert reason_of(DeadlineExceeded("secret"), table) == "timeout"
    assert reason_of(Unavailable("secret")) == "unavailable"
    assert reason_of(RuntimeError("secret")) == "error"


def test_a_classifier_that_breaks_does_not_break_the_check():
    """An error that cannot be looked at is still only an error."""

    def broken(error: BaseException) -> Verdict | None:
        raise ZeroDivisionError

    assert reason_of(KeyError(), broken) == "error"


@pytest.mark.parametrize("status", ["pass", None, 0])
def test_what_is_no_status_is_refused_where_it_is_written(status):
    """A word is no status; whoever reads the result later could do nothing with it."""
    with pytest.raises(InvalidInput, match="no status"):
        Result(status)


@pytest.mark.parametrize("value", [10**400, -(10**400)], ids=["above", "below"])
def test_an_integer_that_no_float_can_hold_is_no_measurement(value):
    """It could be written neither as JSON that others read, nor on the page, nor as a metric."""
    with pytest.raises(InvalidInput, match="no number"):
        Result.ok(depth=value)
    assert Result.ok(depth=2**70).values == {"depth": 2**70}


def _cancelled(_error):
    raise asyncio.CancelledError  # no Exception


@pytest.mark.parametrize("classify", [_cancelled, lambda _error: True, lambda _error: Verdict("odd")])
def test_a_classifier_that_breaks_leaves_an_error(classify):
    """Whatever it raises or returns, the error has its word."""
    assert reason_of(TimeoutError(), classify) == "error"


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (Result.warn("deep", depth=12), Status.WARN),
        (Result.unknown("deep", depth=12), Status.UNKNOWN),
        (Result.fail("deep", depth=12), Status.FAIL),
    ],
)
def test_each_short_form_keeps_its_reason_and_its_measurements(made, status):
    """What is written in one call is told in full, whatever the status."""
    assert (made.status, made.reason, dict(made.values)) == (status, "deep", {"depth": 12})


def test_the_greatest_integer_that_a_float_holds_is_a_measurement():
    """The limit itself can still be written wherever a float can."""
    greatest = int(sys.float_info.max)
    assert Result.ok(depth=greatest).values == {"depth": greatest}
    assert Result.ok(depth=-greatest).values == {"depth": -greatest}


@pytest.mark.parametrize("name", ["", "a b", "-db", "db\n", "a" * 65, None, 3, b"db"])
def test_a_name_that_cannot_be_shown_is_refused_with_what_can(name):
    """The error says what was to be named, a check where nothing else is said, and what a name is made of."""
    with pytest.raises(ConfigurationError, match="a check cannot be called") as of_check:
        check_name(name)
    assert "letters, digits" in str(of_check.value.advice)
    with pytest.raises(ConfigurationError, match="a group cannot be called"):
        check_name(name, "group")


@pytest.mark.parametrize("name", ["db", "0", "eu-west.1_a", "a" * 64])
def test_a_name_is_returned_as_it_is(name):
    """Letters, digits, dots, dashes and underscores, at most 64, with a letter or digit first."""
    assert check_name(name) == name


@pytest.mark.parametrize("status", [Status.PASS, "warn", None, 1])
def test_what_would_hide_every_failure_is_no_worst_status(status):
    """A check that passes at worst would say nothing, and a word is no status."""
    with pytest.raises(ConfigurationError, match="at_worst"):
        check_worst(status)


def test_what_is_capped_keeps_its_reason_and_its_measurements():
    """Only the status is told as milder, and only where it is worse than the cap."""
    found = Result.fail("deep", depth=12)
    assert capped(found, Status.WARN) == Result.warn("deep", depth=12)
    assert capped(found, Status.FAIL) == found
    assert capped(Result.warn("deep"), Status.UNKNOWN) == Result.warn("deep")


@pytest.mark.parametrize(
    ("critical", "fault", "told"),
    [
        (True, "local", Status.FAIL),
        (True, "shared", Status.WARN),
        (True, None, Status.WARN),
        (False, "local", Status.WARN),
    ],
)
def test_peers_take_an_instance_out_only_for_a_critical_fault_of_its_own(critical, fault, told):
    """A fault that is everybody's, or that nobody has judged, warns."""
    assert effect(Status.FAIL, critical=critical, scope="shared", shared="peers", fault=fault) is told


def test_a_local_fault_counts_only_where_peers_are_asked():
    """Under shared="warn" what all instances use warns, whosever fault it is."""
    assert effect(Status.FAIL, critical=True, scope="shared", shared="warn", fault="local") is Status.WARN
