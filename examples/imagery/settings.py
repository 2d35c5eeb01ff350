"""What the application must be told: where its parts are. Passed to each process in one environment variable."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from resilient.errors import ConfigurationError

__all__ = ["SABOTAGES", "Settings"]

VARIABLE = "IMAGERY_SETTINGS"
SABOTAGE = "IMAGERY_SABOTAGE"

SABOTAGES = {
    "": "everything works as it should",
    "delete-before-work": "the worker acknowledges each message first and works then: a crash loses the image",
    "no-ledger": "the worker keeps no record of its work: a message delivered twice is charged twice",
}
"""The ways to break a promise on purpose, so that a failing tour can be shown."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the parts are, and a few limits.

    Args:
        database: URL of the primary.
        replicas: URLs of its read replicas.
        shards: Name to URL of the databases that hold the timelines.
        redis: URL of the cache; ``None`` for one in this process.
        endpoint: Address of a server that speaks S3 and SQS; ``None`` for AWS itself.
        region: The AWS region.
        bucket: The bucket of the images.
        jobs: URL of the queue of images to process.
        events: URL of the queue of things that happened, which become timeline rows.
        secret: Seals upload tokens.
        work_seconds: Seconds each image takes at least, so that a small picture can stand for a large one.
        visibility: Seconds after which a message whose worker died is handed to another one.
        concurrency: How many pictures one worker has in hand.
        sabotage: One of `SABOTAGES`.
    """

    database: str
    replicas: tuple[str, ...] = ()
    shards: dict[str, str]
    redis: str | None = None
    endpoint: str | None = None
    region: str = "eu-west-1"
    bucket: str = "imagery"
    jobs: str
    events: str
    secret: str
    work_seconds: float = 0.0
    visibility: int = 30
    concurrency: int = 4
    sabotage: str = ""

    def __post_init__(self) -> None:
        if self.sabotage not in SABOTAGES:
            known = ", ".join(filter(None, SABOTAGES))
            raise ConfigurationError(f"{SABOTAGE} is one of: {known}")

    def to_environment(self) -> dict[str, str]:
        """The variables from which another process makes the same settings."""
        return {VARIABLE: msgspec.json.encode(self).decode()}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """The settings of this process.

        Raises:
            ConfigurationError: There are none, or they are malformed.
        """
        try:
            return msgspec.json.decode(environment[VARIABLE], type=cls)
        except KeyError:
            raise ConfigurationError(f"{VARIABLE} is not set", advice="start Imagery with: make demo SERVE=1") from None
        except msgspec.DecodeError as error:
            raise ConfigurationError(f"{VARIABLE} is malformed") from error
