"""Where the shard map is stored: one row for each version, in the control database."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from resilient.clock import Clock
from resilient.errors import ConfigurationError, Conflict
from resilient.storage.shards._map import ShardMap
from resilient.wire import sql

__all__ = ["create", "load", "shard_map_table"]

shard_map_table = sa.Table(
    "resilient_shard_map",
    sql.metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
)
"""The versions of the shard map; the highest is the one in force."""


def load(control: Engine) -> ShardMap:
    """The map in force.

    Raises:
        ConfigurationError: None was created yet.
        Unavailable: The control database does not answer.
    """
    with control.connect() as connection:
        row = connection.execute(_newest()).first() if _exists(control) else None
    if row is None:
        raise ConfigurationError(
            "no shard map is stored yet", advice="create one once: shards.create(ShardMap.hashed(…))"
        )
    return ShardMap.from_json(row.spec, row.version)


def create(control: Engine, shard_map: ShardMap, clock: Clock) -> ShardMap:
    """Store the first map. The same map again is no error.

    Raises:
        Conflict: Another map is stored.
    """
    shard_map_table.create(control, checkfirst=True)
    row = {"version": 1, "created_at": clock.wall(), "spec": shard_map.to_json()}
    try:
        with control.begin() as connection:
            connection.execute(sa.insert(shard_map_table), [row])
    except IntegrityError:
        stored = load(control)
        if stored.owners != shard_map.owners:
            raise Conflict(
                f"a shard map is stored already, now at version {stored.version}",
                advice="the stored map is the truth: leave out create()",
            ) from None
        return stored
    return shard_map


def _newest() -> Any:
    columns = shard_map_table.c
    return sa.select(columns.version, columns.spec).order_by(columns.version.desc()).limit(1)


def _exists(control: Engine) -> bool:
    return sa.inspect(control).has_table(shard_map_table.name)
