import pytest

from resilient.testing.clock import FakeClock


@pytest.fixture
def clock():
    return FakeClock()
