"""created -> uploaded -> processed: each step is one conditional UPDATE.

A step is taken from its source state *or* from its target state, with the version checked. So the step may be repeated
after a lost answer, two racing steps have one winner, and no step is ever taken backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from examples.imagery.model import Image

__all__ = ["PROCESS", "UPLOAD", "Step", "take"]


@dataclass(frozen=True)
class Step:
    """One step of an image's way.

    Args:
        source: The state it leads from.
        target: The state it leads to.
        version: The version of the target; the source has one less.
    """

    source: str
    target: str
    version: int

    @property
    def allowed(self) -> sa.ColumnElement[bool]:
        """The condition under which a row may take this step, or has taken it already."""
        before = sa.and_(Image.state == self.source, Image.version == self.version - 1)
        after = sa.and_(Image.state == self.target, Image.version == self.version)
        return sa.or_(before, after)


UPLOAD = Step("created", "uploaded", 1)
PROCESS = Step("uploaded", "processed", 2)


def take(session: Session, step: Step, image_id: str, *conditions: sa.ColumnElement[bool], **values: Any) -> bool:
    """Take a step in the session's transaction.

    It begins with the write, so that the row is locked before anything is decided.

    Args:
        session: Its transaction also holds whatever belongs to the step.
        step: Which step.
        image_id: Whose.
        *conditions: What else must be true of the row.
        **values: Columns to set with it.

    Returns:
        Whether the row was where the step could be taken.
    """
    change = (
        sa.update(Image)
        .where(Image.id == image_id, step.allowed, *conditions)
        .values(state=step.target, version=step.version, **values)
        .execution_options(synchronize_session=False)
    )
    return cast("sa.CursorResult[Any]", session.execute(change)).rowcount == 1
