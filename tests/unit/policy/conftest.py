import pytest

from resilient.policy import _budget
from resilient.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(autouse=True)
def own_budgets():
    """Pipelines of one name share a budget: those of another test that still live must not spend this one's."""
    _budget._budgets.clear()
