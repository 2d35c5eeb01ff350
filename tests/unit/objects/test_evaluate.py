"""The local policy evaluator."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.errors import InvalidInput
from resilient.storage.objects import evaluate

DOCUMENT = {
    "expiration": "2030-01-01T00:00:00Z",
    "conditions": [
        {"bucket": "photos"},
        ["eq", "$key", "users/alice/a.jpg"],
        {"Content-Type": "image/jpeg"},
        ["starts-with", "$x-amz-meta-note", "n-"],
        ["content-length-range", 1, 10],
    ],
}
FIELDS = {
    "key": "users/alice/a.jpg",
    "Content-Type": "image/jpeg",
    "x-amz-meta-note": "n-1",
    "policy": "...",
    "x-amz-signature": "...",
}
EXPIRY = 1_893_456_000.0


def judge(fields=FIELDS, *, size=5, bucket="photos", now=0.0, document=DOCUMENT):
    return evaluate(document, fields, bucket=bucket, size=size, now=now)


def test_a_form_that_keeps_its_policy_passes():
    """Every condition is met, every field is named: it is taken."""
    assert judge() is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": "users/bob/a.jpg"}, "AccessDenied"),
        ({"Content-Type": "text/html"}, "AccessDenied"),
        ({"key": "users/alice/a.jpg.exe"}, "AccessDenied"),
        ({"Content-Type": "image/jpeg2000"}, "AccessDenied"),
        ({"x-amz-meta-note": "m-1"}, "AccessDenied"),
        ({"acl": "public-read"}, "AccessDenied"),
        ({"x-amz-meta-more": "1"}, "AccessDenied"),
    ],
)
def test_a_changed_field_is_refused(change, code):
    """Another key, type or prefix, and a field the policy does not name, are refused."""
    assert judge({**FIELDS, **change}).code == code


@pytest.mark.parametrize("name", ["key", "Content-Type", "x-amz-meta-note"])
def test_a_missing_field_is_refused(name):
    """Each condition needs its field."""
    refusal = judge({key: value for key, value in FIELDS.items() if key != name})
    assert refusal.code == "AccessDenied"
    assert refusal.status == 403


@given(st.integers(0, 30))
def test_the_size_is_bounded_on_both_sides(size):
    """One byte below and one byte above the range is refused, with S3's own code."""
    refusal = judge(size=size)
    expected = "EntityTooSmall" if size < 1 else "EntityTooLarge" if size > 10 else None
    assert (refusal.code if refusal else None) == expected


def test_another_bucket_and_a_late_form_are_refused():
    """The form is for one bucket, and until its expiry: that very second is too late."""
    assert judge(bucket="other").code == "AccessDenied"
    assert judge(now=EXPIRY - 0.001) is None
    assert judge(now=EXPIRY).reason == "the form has expired"


def test_names_are_compared_without_regard_to_case_and_ignored_fields_pass():
    """`content-type` is `Content-Type`; fields that begin with x-ignore- are free."""
    fields = {name.lower(): value for name, value in FIELDS.items()} | {"X-Ignore-This": "1"}
    assert judge(fields) is None


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"expiration": "tomorrow", "conditions": []},
        {"expiration": "2030-01-01T00:00:00Z", "conditions": "none"},
        {"expiration": "2030-01-01T00:00:00Z", "conditions": [["eq", "key", "x"]]},
        {"expiration": "2030-01-01T00:00:00Z", "conditions": [["like", "$key", "x"]]},
        {"expiration": "2030-01-01T00:00:00Z", "conditions": [7]},
        {"expiration": "2030-01-01T00:00:00Z"},
    ],
)
def test_what_is_no_policy_is_told(document):
    """A malformed document is a mistake, not a verdict."""
    with pytest.raises(InvalidInput):
        judge(document=document)


def test_the_moment_of_expiry_may_have_a_fraction():
    """As boto3 writes it: with milliseconds."""
    document = {**DOCUMENT, "expiration": "2030-01-01T00:00:00.500Z"}
    assert judge(now=EXPIRY + 0.499, document=document) is None
    assert judge(now=EXPIRY + 0.5, document=document).reason == "the form has expired"


@pytest.mark.parametrize("condition", ["abc", "abcd", ["eq", "$key"], ["eq", "$key", "a", "b"], {"a": "1", "b": "2"}])
def test_a_condition_that_is_none_is_an_error_of_the_policy(condition):
    """Not of the form: whoever wrote the document is told."""
    with pytest.raises(InvalidInput, match="malformed"):
        judge(document={**DOCUMENT, "conditions": [condition]})


def test_verbs_are_known_in_any_case():
    """S3 takes `EQ` and `Starts-With`, and each means what it says."""
    for verb, passes in (("EQ", False), ("Starts-With", True)):
        document = {**DOCUMENT, "conditions": [*DOCUMENT["conditions"], [verb, "$key", "users/alice/"]]}
        assert (judge(document=document) is None) is passes
