"""The application and its tour on embedded parts: small, but with every process and every fault's own way."""

import dataclasses

import pytest

from examples.imagery.parts import Parts
from examples.imagery.tour.phases import PHASES
from examples.imagery.tour.run import Tour


@pytest.fixture
def short(repeat):
    """Seconds, as they stand in a run of full size; a little more than a third of them in a quick one."""
    return lambda seconds: seconds if repeat(50) >= 50 else 0.4 * seconds


def some(short, *names):
    """Those faults, each held for a short while."""
    return tuple(dataclasses.replace(each, hold=short(each.hold)) for each in PHASES if each.name in names)


def broken(findings):
    return [str(each) for each in findings if each.broken]


@pytest.mark.timeout(300)
def test_a_small_tour(tmp_path, short):
    """Cache, replica and shard die, a worker is killed in the midst of an image: every invariant holds."""
    faults = some(short, "cache killed", "replica killed", "worker kill -9", "shard stopped")
    with Parts(embedded=True) as parts:
        tour = Tour(parts, say=lambda _: None, users=4, calm=short(2.0), faults=faults)
        findings = tour.run(tmp_path / "table.md")
        assert not broken(findings)
        assert len(tour.crowd.accepted) >= 4
        assert all(phase.requests for phase in tour.tally.phases)
        assert tour.tally.checked > 50
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:8]] == [
        "calm",
        *(fault.name for fault in faults),
        "all mended",
    ]


@pytest.mark.timeout(300)
def test_a_tour_without_the_ledger_fails(short):
    """The same tour can fail: without the record of work, a message delivered twice is charged twice."""
    with Parts(embedded=True, sabotage="no-ledger", processes=1) as parts:
        faults = some(short, "delivered twice")
        tour = Tour(parts, say=lambda _: None, users=3, calm=short(1.0), faults=faults, settle=3.0)
        found = broken(tour.run())
    assert any("each image was charged once" in each for each in found)
