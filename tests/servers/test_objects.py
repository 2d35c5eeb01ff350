"""Objects on moto's S3. It accepts any signature: that forms and links are verified is shown on the fake."""

import http.client
import urllib.request
from urllib.parse import urlsplit

import pytest

from resilient.errors import Conflict, NotFound, Refused, Unavailable
from resilient.policy import deadline
from resilient.storage.objects import Bucket, UploadPolicy

POLICY = UploadPolicy(prefix="users/{owner}/", max_bytes=1000, content_types=["image/jpeg"])


@pytest.fixture
def environment(moto_server, monkeypatch):
    for name, value in moto_server.env.items():
        monkeypatch.setenv(name, value)
    moto_server.client("s3").create_bucket(
        Bucket="photos", CreateBucketConfiguration={"LocationConstraint": moto_server.region}
    )
    return moto_server


@pytest.fixture
def photos(environment):
    bucket = Bucket("photos", secrets=["s"])
    yield bucket
    bucket.client.close()


def post(ticket, data):
    """Send the form as a browser does."""
    boundary = "resilient-test-boundary"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in ticket.fields.items()
    ]
    head = "".join(parts) + (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
    target = urlsplit(ticket.url)
    connection = http.client.HTTPConnection(target.hostname, target.port, timeout=10)
    try:
        kind = f"multipart/form-data; boundary={boundary}"
        connection.request("POST", target.path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_a_form_uploads_and_is_confirmed(photos):
    """The browser's POST goes straight to the store; the confirmation tells what is there."""
    ticket = photos.presign_post(POLICY, owner="alice", filename="a.jpg")
    assert post(ticket, b"\xff\xd8 jpeg \r\n bytes") == 201
    stored = photos.confirm(ticket.token, owner="alice")
    assert (stored.key, stored.size, stored.content_type) == (ticket.key, 16, "image/jpeg")
    assert photos.get(stored.key) == b"\xff\xd8 jpeg \r\n bytes"


def test_a_forged_redirect_is_not_confirmed(photos):
    """There is no object, whatever the client says."""
    with pytest.raises(NotFound):
        photos.confirm(photos.presign_post(POLICY, owner="alice", filename="a.jpg").token)


def test_a_store_that_checks_nothing_is_checked_on(photos):
    """moto takes a form of 2,000 bytes where 1,000 are allowed; the confirmation does not."""
    ticket = photos.presign_post(POLICY, owner="alice", filename="a.jpg")
    assert post(ticket, b"x" * 2000) == 201
    with pytest.raises(Refused):
        photos.confirm(ticket.token)


@pytest.mark.parametrize("key", ["a b+c%2Fd.jpg", "ü/日本.jpg", "users/alice/a.jpg"])
def test_a_link_downloads(photos, key):
    """Any key round-trips through a signed link, which saves the file under its name."""
    photos.put(key, b"data", content_type="image/jpeg")
    link = photos.presign_get(key, filename="my photo.jpg")
    with urllib.request.urlopen(link, timeout=10) as answer:
        assert answer.read() == b"data"
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="my_photo.jpg"')


def test_the_helpers_do_what_they_say(photos):
    """put, head, copy with a pin, delete, and errors of the library."""
    seen = photos.put("in", b"one")
    assert photos.head("in") == photos.head("in")
    assert photos.head("in").etag == seen.etag
    assert photos.copy("in", "out").size == 3
    photos.delete("in")
    with pytest.raises(NotFound):
        photos.get("in")
    with pytest.raises((NotFound, Conflict)):
        photos.copy("in", "out")


def test_a_frozen_store_is_bounded_by_the_deadline(environment, photos, tcp_proxy):
    """A store that hangs costs what the deadline allows, and serves again when it is back."""
    proxy = tcp_proxy(environment.port)
    bucket = Bucket("photos", endpoint=f"http://127.0.0.1:{proxy.port}", region="eu-west-1", secrets=["s"])
    photos.put("a", b"data")
    assert bucket.get("a") == b"data"
    proxy.stall()
    with deadline(0.3), pytest.raises((Unavailable, TimeoutError)):
        bucket.get("a")
    proxy.restore()
    assert bucket.get("a") == b"data"
    bucket.client.close()
