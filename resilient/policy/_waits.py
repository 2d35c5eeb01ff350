"""Sleeping between attempts, with the one switch that turns it off in users' tests."""

from __future__ import annotations

__all__ = ["length", "switch"]

_on = True


def switch(on: bool) -> bool:  # noqa: FBT001 - a switch
    """Turn waiting on or off for the whole process. Returns how it was."""
    global _on
    before, _on = _on, on
    return before


def length(seconds: float) -> float:
    """The wait as it will be: itself, or nothing while waiting is turned off."""
    return seconds if _on else 0.0
