"""The plugin costs nothing until used, and its fixtures give each test a fake of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

THIRD = ["redis", "boto3", "botocore", "moto", "sqlalchemy", "fakeredis", "pymysql", "django", "flask", "tenacity"]


@pytest.mark.parametrize(
    "module", ["resilient.testing", "resilient.testing.pytest_plugin", "resilient.testing.servers"]
)
def test_importing_it_loads_no_third_party_library(module):
    """Collecting tests, or naming a server, loads none of the libraries that the fakes and servers need."""
    code = f"import sys, {module}; print(sorted(set({THIRD!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_that_does_not_exist_is_refused():
    """A typing error is an AttributeError, as on any module."""
    import resilient.testing

    with pytest.raises(AttributeError, match="FakeClok"):
        _ = resilient.testing.FakeClok


@pytest.mark.parametrize(
    "name", ["FakeClock", "FakeReplicaSet", "FakeS3", "FakeSqs", "MemoryCache", "SqliteReplication", "faults"]
)
def test_every_name_loads(name):
    """What __all__ promises is there."""
    import resilient.testing

    assert name in resilient.testing.__all__
    assert name in dir(resilient.testing)
    assert getattr(resilient.testing, name) is not None


def test_the_clock_fixture(resilient_clock):
    """resilient_clock moves by sleeping on it."""
    before = resilient_clock.monotonic()
    resilient_clock.sleep(30)
    assert resilient_clock.monotonic() - before == 30


def test_the_cache_fixture(resilient_cache):
    """resilient_cache is an empty cache that keeps what it is given."""
    assert resilient_cache.get("a", "nothing") == "nothing"
    resilient_cache.set("a", 1)
    assert resilient_cache.get("a") == 1


def test_the_cache_fixture_is_new_for_each_test(resilient_cache):
    """Nothing of the test before is in it."""
    assert resilient_cache.get("a", "nothing") == "nothing"


def test_the_fakes_share_the_clock(resilient_clock, resilient_cache, resilient_sqs):
    """Time moves for all fakes of a test at once: an entry expires, a message is visible again."""
    resilient_cache.set("a", 1, ttl=60)
    url = resilient_sqs.create_queue(QueueName="orders", Attributes={"VisibilityTimeout": "30"})["QueueUrl"]
    resilient_sqs.send_message(QueueUrl=url, MessageBody="hello")
    assert resilient_sqs.receive_message(QueueUrl=url)["Messages"]
    assert not resilient_sqs.receive_message(QueueUrl=url).get("Messages")
    resilient_clock.advance(61)
    assert resilient_cache.get("a", "gone") == "gone"
    assert resilient_sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "hello"


def test_the_sqs_fixture(resilient_sqs):
    """resilient_sqs takes a message and gives it back."""
    url = resilient_sqs.create_queue(QueueName="orders")["QueueUrl"]
    resilient_sqs.send_message(QueueUrl=url, MessageBody="hello")
    assert resilient_sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "hello"


def test_the_s3_fixture(resilient_s3):
    """resilient_s3 keeps an object."""
    resilient_s3.create_bucket(Bucket="pictures")
    resilient_s3.put_object(Bucket="pictures", Key="a", Body=b"hello")
    assert resilient_s3.get_object(Bucket="pictures", Key="a")["Body"].read() == b"hello"
