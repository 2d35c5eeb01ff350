"""The keys that were changed while the store was away."""

from __future__ import annotations

from resilient.cache._journal import Journal


def test_a_key_added_during_its_replay_is_replayed_again() -> None:
    """What changes while its older change is told is not forgotten."""
    journal = Journal(10, "all")
    journal.add("a")
    journal.add("b")
    taken = journal.begin()
    assert taken == ["a", "b"]
    assert journal.begin() is None
    journal.add("a")
    journal.done(taken)
    assert journal.begin() == ["a"]
    journal.done([])
    assert len(journal) == 1


def test_a_journal_that_overflows_holds_the_key_that_stands_for_all() -> None:
    """When it cannot hold all keys it forgets them: everything is to be told as changed."""
    journal = Journal(2, "all")
    for key in "abc":
        journal.add(key)
    assert journal.begin() == ["all"]
