"""Queues over the fake."""

import pytest

from resilient.queue import Queue
from resilient.testing.sqs import FakeSqs


@pytest.fixture
def sqs():
    """SQS in this process, on the system's clock."""
    return FakeSqs()


@pytest.fixture
def make_queue(sqs):
    """Makes a queue of that name and settings."""

    def make(name="jobs", **attributes):
        return Queue(sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"], client=sqs)

    return make


@pytest.fixture
def jobs(make_queue):
    """One queue."""
    return make_queue()
