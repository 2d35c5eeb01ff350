"""A bucket over the fake store."""

import base64
import json

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from resilient.errors import ConfigurationError, Conflict, InvalidInput, NotFound, Refused, Unavailable
from resilient.storage.objects import Bucket, UploadPolicy
from resilient.testing.clock import FakeClock
from resilient.testing.s3 import FakeS3

POLICY = UploadPolicy(prefix="users/{owner}/", max_bytes=10, content_types=["image/jpeg", "image/png"], min_bytes=2)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return FakeS3(["photos"], clock=clock)


@pytest.fixture
def photos(store, clock):
    return Bucket("photos", client=store, secrets=["s1"], clock=clock)


def upload(store, ticket, data=b"12345", **changes):
    return store.post_form(ticket.url, {**ticket.fields, **changes}, data)


def test_an_upload_is_confirmed(photos, store):
    """Form, upload, confirmation: key, size, type and etag are told."""
    ticket = photos.presign_post(POLICY, owner="alice", filename="a.jpg")
    assert upload(store, ticket) == 201
    stored = photos.confirm(ticket.token, owner="alice")
    assert (stored.key, stored.size, stored.content_type) == (ticket.key, 5, "image/jpeg")
    assert photos.get(stored.key) == b"12345"


def test_a_forged_redirect_is_not_confirmed(photos):
    """The client says that it has uploaded, and there is nothing."""
    ticket = photos.presign_post(POLICY, owner="alice", filename="a.jpg")
    with pytest.raises(NotFound):
        photos.confirm(ticket.token)


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (b"1", {}),
        (b"1" * 11, {}),
        (b"12345", {"key": "users/bob/a.jpg"}),
        (b"12345", {"Content-Type": "text/html"}),
        (b"12345", {"acl": "public-read"}),
        (b"12345", {"x-amz-signature": "0" * 64}),
        (b"12345", {"x-amz-date": "20990101T000000Z"}),
    ],
)
def test_a_tampered_form_is_refused_by_the_store(photos, store, data, changes):
    """Too small, too large, another key or type, an extra field, another signature or date: nothing is stored."""
    ticket = photos.presign_post(POLICY, owner="alice", filename="a.jpg")
    assert upload(store, ticket, data, **changes) in (400, 403)
    assert store.keys("photos") == []


def test_a_policy_cannot_be_rewritten(photos, store):
    """A client that raises its own size limit breaks the signature."""
    ticket = photos.presign_post(POLICY, owner="alice", filename="a.jpg")
    document = json.loads(base64.b64decode(ticket.fields["policy"]))
    document["conditions"] = [
        c if c[0:1] != ["content-length-range"] else [*c[:2], 999] for c in map(_listed, document["conditions"])
    ]
    forged = base64.b64encode(json.dumps(document).encode()).decode()
    assert upload(store, ticket, b"1" * 100, policy=forged) == 403


def _listed(condition):
    return condition if isinstance(condition, list) else ["eq", *(f"${k}" for k in condition), *condition.values()]


def test_a_form_expires_to_the_second_and_its_token_later(photos, store, clock):
    """The form is good for 300 s; what was uploaded in its last second can still be confirmed afterwards."""
    ticket = photos.presign_post(POLICY, owner="alice", filename="a.jpg")
    late = photos.presign_post(POLICY, owner="alice", filename="a.jpg")
    assert ticket.expires_at == clock.wall() + 300
    clock.advance(299)
    assert upload(store, ticket) == 201
    clock.advance(2)
    assert upload(store, late) == 403
    assert photos.confirm(ticket.token).size == 5
    clock.advance(3600)
    with pytest.raises(Refused, match="expired"):
        photos.confirm(ticket.token)


def test_a_foreign_token_is_refused(photos, store, clock):
    """Another owner's token, another bucket's, and one of another secret open nothing."""
    ticket = photos.presign_post(POLICY, owner="alice", filename="a.jpg")
    upload(store, ticket)
    with pytest.raises(Refused):
        photos.confirm(ticket.token, owner="bob")
    with pytest.raises(Refused):
        Bucket("other", client=store, secrets=["s1"], clock=clock).confirm(ticket.token)
    with pytest.raises(Refused):
        Bucket("photos", client=store, secrets=["s2"], clock=clock).confirm(ticket.token)


@pytest.mark.parametrize(("data", "kind"), [(b"1", "image/jpeg"), (b"1" * 11, "image/jpeg"), (b"12345", "text/html")])
def test_an_object_that_breaks_the_policy_is_not_confirmed(photos, data, kind):
    """A store that lets something pass is checked on: size and declared type are looked at again."""
    ticket = photos.presign_post(POLICY, owner="alice", filename="a.jpg")
    photos.put(ticket.key, data, content_type=kind)
    with pytest.raises(Refused):
        photos.confirm(ticket.token)


def test_the_type_is_told_by_the_name_or_by_the_client(photos):
    """Where several types are allowed, the form is for exactly one."""
    assert photos.presign_post(POLICY, owner="a", filename="x.png").fields["Content-Type"] == "image/png"
    declared = photos.presign_post(POLICY, owner="a", filename="x", content_type="image/png")
    assert declared.fields["Content-Type"] == "image/png"
    with pytest.raises(InvalidInput):
        photos.presign_post(POLICY, owner="a", filename="x.gif")
    with pytest.raises(InvalidInput):
        photos.presign_post(POLICY, owner="a", filename="x.png", content_type="text/html")


@pytest.mark.parametrize("key", ["a b", "a+b", "a%2Fb", "ü/日本", "/lead", "a//b", "x.jpg"])
def test_a_link_opens_its_object_and_no_other(photos, store, key):
    """Any key round-trips; the link is for GET and that key alone, and saves the file instead of showing it."""
    photos.put(key, b"data", content_type="image/jpeg")
    photos.put("secret", b"no")
    link = photos.presign_get(key)
    status, headers, body = store.open_link(link)
    assert (status, body) == (200, b"data")
    assert headers["Content-Disposition"].startswith("attachment;")
    assert store.open_link(link, "HEAD")[0] == 403
    assert store.open_link(link, "PUT")[0] == 403
    path = link.partition("?")[0]
    assert store.open_link(link.replace(path, path.rpartition(".com")[0] + ".com/secret"))[0] == 403


def test_a_link_expires_to_the_second(photos, store, clock):
    """200 at 299 s, 403 at 301 s, as its `expires_at` tells."""
    photos.put("a", b"data")
    link = photos.presign_get("a", expires=300)
    assert link.expires_at == clock.wall() + 300
    clock.advance(299)
    assert store.open_link(link)[0] == 200
    clock.advance(2)
    assert store.open_link(link)[0] == 403


@pytest.mark.parametrize("expires", [0, -1, 604_801, True, "300", float("nan")])
def test_an_expiry_out_of_range_is_refused(photos, expires):
    """Zero, negative, more than seven days, and what is no number."""
    with pytest.raises(InvalidInput):
        photos.presign_get("a", expires=expires)


def test_the_name_of_a_download_is_safe(photos, store):
    """The browser is told the name asked for, encoded, whatever it holds."""
    photos.put("a", b"data")
    _, headers, _ = store.open_link(photos.presign_get("a", filename='ü "x".jpg', inline=True))
    assert headers["Content-Disposition"] == "inline; filename=\"u_x_.jpg\"; filename*=UTF-8''%C3%BC%20%22x%22.jpg"
    with pytest.raises(InvalidInput):
        photos.presign_get("a", filename="a\r\nX: y")


def test_a_copy_is_pinned_to_what_was_seen(photos):
    """Copying with an etag refuses an object that was replaced since."""
    seen = photos.put("in", b"one")
    assert photos.copy("in", "out", if_etag=seen.etag).size == 3
    photos.put("in", b"other")
    with pytest.raises(Conflict):
        photos.copy("in", "out", if_etag=seen.etag)
    with pytest.raises(NotFound):
        photos.copy("gone", "out")


def test_a_large_object_is_not_read_into_memory(photos):
    """`get` refuses what is larger than it may be, by its length, before reading."""
    photos.put("a", b"12345")
    with pytest.raises(Refused):
        photos.get("a", max_bytes=4)
    photos.delete("a")
    photos.delete("a")
    with pytest.raises(NotFound):
        photos.get("a")


def test_a_store_that_is_away_is_unavailable(photos, store):
    """The error is the library's own, with botocore's as its cause and no key in its text."""

    def away(operation, arguments):
        raise EndpointConnectionError(endpoint_url="http://nowhere")

    store.fault = away
    with pytest.raises(Unavailable) as caught:
        photos.head("users/alice/secret-name")
    assert "secret-name" not in str(caught.value)
    assert caught.value.caused_by == "botocore.exceptions.EndpointConnectionError"


def test_without_a_secret_only_links_are_given_out(store):
    """Signing a form that nobody could confirm is refused."""
    bucket = Bucket("photos", client=store)
    with pytest.raises(ConfigurationError):
        bucket.presign_post(POLICY, owner="a", filename="a.jpg")
    assert bucket.presign_get("a")


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1", "eu-central-2"])
@pytest.mark.parametrize("ready", [True, False])
def test_every_region_signs_with_version_4(monkeypatch, region, ready):
    """A client made here and a ready one with boto3's old default both sign with version 4, in every region."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFAKE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fake secret")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    given = boto3.session.Session(region_name=region).client("s3") if ready else None
    old = ready and _old_signature(given)
    bucket = Bucket("photos", client=given, region=region, secrets=["s"])
    judge = FakeS3(["photos"], region=region)
    judge.put_object(Bucket="photos", Key="a b", Body=b"x")
    link, ticket = bucket.presign_get("a b"), bucket.presign_post(POLICY, owner="a", filename="a.jpg")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link
    assert judge.open_link(link)[0] == 200, "botocore's signature, verified by other code"
    assert upload(judge, ticket) == 201
    assert upload(judge, ticket, b"1" * 11) == 400
    if ready:
        assert _old_signature(given) == old, "its own signing is left as it was"
        assert old or region == "eu-central-2", "a region younger than version 4 never had the old one"
    else:
        assert f"photos.s3.{region}.amazonaws.com" in link


def _old_signature(client):
    return "AWSAccessKeyId=" in client.generate_presigned_url("get_object", Params={"Bucket": "photos", "Key": "a"})


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": "/users/"},
        {"prefix": "users"},
        {"prefix": "a/../b/"},
        {"prefix": "{user}/"},
        {"prefix": "{owner/"},
        {"max_bytes": 0},
        {"min_bytes": -1},
        {"max_bytes": 6 * 1024**3},
        {"content_types": []},
        {"content_types": "image/jpeg"},
        {"content_types": ["image/*"]},
        {"expires": 0},
        {"expires": 604_801},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options):
    """A mistake in a policy is told where it is written."""
    good = {"prefix": "users/{owner}/", "max_bytes": 10, "content_types": ["image/jpeg"]}
    UploadPolicy(**good)
    with pytest.raises(ConfigurationError):
        UploadPolicy(**good | options)


@pytest.mark.parametrize("name", ["s3://photos/", "photos/", "", "a", "a..b", "my photos", None])
def test_what_is_no_buckets_name_is_refused(name):
    """Where the bucket is made, not at the first upload."""
    with pytest.raises(ConfigurationError, match="no bucket's name"):
        Bucket(name, client=FakeS3(buckets=["photos"]))


def test_an_access_point_is_a_bucket_too():
    """It is named by its ARN."""
    name = "arn:aws:s3:eu-west-1:123456789012:accesspoint/photos"
    assert Bucket(name, client=FakeS3(buckets=["photos"])).name == name


def test_an_endpoint_without_a_scheme_is_refused():
    """With what to write instead."""
    with pytest.raises(ConfigurationError, match="with its scheme"):
        Bucket("photos", endpoint="127.0.0.1:5000", region="eu-west-1")


@pytest.mark.parametrize("sizes", [{"max_bytes": "10MB"}, {"max_bytes": 1e6}, {"max_bytes": 10, "min_bytes": "1"}])
def test_sizes_are_numbers_of_bytes(sizes):
    """A text is refused with what to write instead."""
    with pytest.raises(ConfigurationError, match="numbers of bytes"):
        UploadPolicy(prefix="p/", content_types=["image/jpeg"], **sizes)
