"""How an entry is kept, and what a reader does with it: one policy, and its decisions. Pure: no clock, no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple, TypedDict

from resilient.arguments import check_seconds
from resilient.cache._entry import Entry, Life
from resilient.cache._versions import VersionOf, version_of
from resilient.errors import ConfigurationError

__all__ = ["LoadOptions", "Loaded", "Policy", "Said", "Use"]


class Use(Enum):
    """What a reader does with what it found."""

    SERVE = "serve"
    EARLY = "early"  # serve it, and have it loaded anew though it is fresh
    REVALIDATE = "revalidate"  # serve it, and have it loaded anew
    LOAD = "load"  # load; what was found may be served should that fail or take long


class LoadOptions(TypedDict, total=False):
    """What a call may say of how its value is loaded and kept, beside its ttl; see `Policy`."""

    negative_ttl: float | None
    stale_if_error: float
    stale_while_revalidate: float
    soft_timeout: float | None
    hard_timeout: float | None
    early: float | bool
    cache_errors: Iterable[type[Exception]]
    error_ttl: float | None
    version_of: VersionOf | None


@dataclass(frozen=True, slots=True)
class Policy:
    """How long entries live, and who waits for a load.

    Args:
        ttl: Seconds for which a value is served without asking its source.
        negative_ttl: Seconds for which it is remembered that there is no such thing; ``None`` does not remember it.
        stale_if_error: Seconds after ``ttl`` for which a value is served when its source fails.
        stale_while_revalidate: Seconds after ``ttl`` for which a value is served while it is loaded anew.
        soft_timeout: Seconds that a reader waits for a load where an old value is at hand, which is served then.
        hard_timeout: Seconds that any reader waits for a load; then it gets an error. The load goes on.
        early: Above 0: a value may be loaded anew before its end, the likelier the nearer the end and the longer its
            load takes; 1.0 is what theory recommends, more is earlier.
        cache_errors: The classes of errors that are remembered as a value would be.
        error_ttl: Seconds for which such an error is remembered; ``negative_ttl`` or 1 by default.
        jitter: By which part of it a ttl is shortened at random, at most; so that what was stored together does not end
            together. Never lengthens.
        version_of: The name of an attribute or a key of the values, or a function of one, that tells the version of the
            row it was made of: a whole number that grows with each change. Of two values the one with the higher
            version stays.

    Raises:
        ConfigurationError: A time is missing, not positive or not finite, or two arguments make no sense together.
    """

    ttl: float
    negative_ttl: float | None = None
    stale_if_error: float = 0.0
    stale_while_revalidate: float = 0.0
    soft_timeout: float | None = None
    hard_timeout: float | None = None
    early: float = 0.0
    cache_errors: tuple[type[Exception], ...] = ()
    error_ttl: float | None = None
    jitter: float = 0.1
    version_of: VersionOf | None = None
    stale: float = field(init=False, default=0.0)
    """Seconds after ``ttl`` for which an entry is kept."""

    def __post_init__(self) -> None:
        if self.ttl is None:  # pyright: ignore[reportUnnecessaryComparison]  # what users forget
            raise ConfigurationError(
                "a cache policy needs a ttl: without one a forgotten entry is wrong for ever",
                advice="pass ttl= here or to the cache",
            )
        for name in ("ttl", "negative_ttl", "error_ttl", "soft_timeout", "hard_timeout"):
            seconds = getattr(self, name)
            if seconds is not None:
                check_seconds(name, seconds)
        for name in ("stale_if_error", "stale_while_revalidate"):
            seconds = getattr(self, name)
            if not (isinstance(seconds, int | float) and 0 <= seconds < math.inf):
                raise ConfigurationError(f"{name} is a number of seconds, not {seconds!r}")
        if not 0 <= self.jitter < 1:
            raise ConfigurationError(f"jitter is a part between 0 and 1, not {self.jitter!r}")
        if not 0 <= self.early < math.inf:
            raise ConfigurationError(f"early is True or a factor from 0 up, not {self.early!r}")
        self._check_pairs()
        for kind in self.cache_errors:
            if not (isinstance(kind, type) and issubclass(kind, Exception)):  # type: ignore[redundant-expr]
                raise ConfigurationError(f"cache_errors holds classes of errors, not {kind!r}")
        object.__setattr__(self, "stale", max(self.stale_if_error, self.stale_while_revalidate))

    def _check_pairs(self) -> None:
        if self.version_of is not None and not isinstance(self.version_of, str) and not callable(self.version_of):
            raise ConfigurationError(f"version_of is a name or a function, not {self.version_of!r}")
        if self.soft_timeout is not None and self.stale_if_error <= self.stale_while_revalidate:
            raise ConfigurationError(
                "soft_timeout serves the old value to a reader who waits for a load, and here nobody waits who has one",
                advice="add stale_if_error=, longer than stale_while_revalidate=, or write hard_timeout=",
            )
        if self.soft_timeout is not None and self.hard_timeout is not None and self.soft_timeout > self.hard_timeout:
            raise ConfigurationError("soft_timeout is not above hard_timeout")

    def lives(self, chance: float, *, negative: bool = False, error: bool = False) -> tuple[float, float]:
        """Seconds fresh and seconds kept for one entry.

        Args:
            chance: A random number from 0 up to 1.
            negative: Whether the entry says that there is no such thing; such an entry is never served stale.
            error: Whether it names an error; nor is such an entry.

        Examples:
            >>> Policy(100, stale_if_error=60).lives(0.5)
            (95.0, 155.0)
        """
        shorter = 1.0 - self.jitter * chance
        if error:
            fresh = (self.error_ttl or self.negative_ttl or min(1.0, self.ttl)) * shorter
            return fresh, fresh
        if negative:
            fresh = (self.negative_ttl or self.ttl) * shorter
            return fresh, fresh
        fresh = self.ttl * shorter
        return fresh, fresh + self.stale

    def version(self, value: object) -> int:
        """The version of a value, as an entry keeps it; 0 where none is told. Raises InvalidInput where it is none."""
        return 0 if self.version_of is None else version_of(value, self.version_of)

    def use(self, entry: Entry, life: Life, now: float, chance: float) -> Use:
        """What a reader does with a readable entry.

        Args:
            entry: What it found.
            life: What that is worth.
            now: What the wall clock shows.
            chance: A random number above 0 and up to 1, for loading early.
        """
        age = now - entry.created
        if life is Life.FRESH:
            # XFetch: the longer a load takes, the sooner before the end one reader begins with it.
            soon = self.early > 0 and age - entry.cost * self.early * math.log(chance) >= entry.fresh
            return Use.EARLY if soon else Use.SERVE
        if life is Life.STALE and age < entry.fresh + self.stale_while_revalidate:
            return Use.REVALIDATE
        return Use.LOAD

    def stands_in(self, entry: Entry, now: float) -> bool:
        """Whether an old value may be served since its source fails."""
        return now - entry.created < entry.fresh + self.stale_if_error

    def patience(self, *, stale: bool) -> float | None:
        """Seconds that a reader waits for a load led elsewhere; ``None`` is as long as it takes."""
        return self.soft_timeout if stale and self.soft_timeout is not None else self.hard_timeout


class Loaded(NamedTuple):
    """What is known of the functions that load lazily under one template."""

    policy: Policy
    version: int
    tags: tuple[str, ...]

    def also(self, other: Loaded) -> Loaded:
        """Of both: the shorter life, and all tags."""
        first = self if self.policy.ttl <= other.policy.ttl else other
        return first._replace(tags=tuple(dict.fromkeys((*self.tags, *other.tags))))


class Said(NamedTuple):
    """What a function that writes says of how its values are kept; where it says nothing, the one that loads does."""

    ttl: float | None = None
    version: int | None = None
    version_of: VersionOf | None = None

    def kept(self, policy: Policy, loaded: Loaded | None) -> tuple[Policy, int]:
        """How its values are kept, and the version of what they mean.

        Args:
            policy: What it says together with its cache.
            loaded: What is known of who loads under the same template, if anybody does.

        Examples:
            >>> loaded = Loaded(Policy(60, stale_if_error=600), 2, ())
            >>> policy, version = Said().kept(Policy(300), loaded)
            >>> policy.ttl, policy.stale_if_error, version
            (60, 600, 2)
        """
        if loaded is None:
            return policy, self.version or 0
        ttl = loaded.policy.ttl if self.ttl is None else policy.ttl
        version_of = loaded.policy.version_of if self.version_of is None else self.version_of
        version = loaded.version if self.version is None else self.version
        return replace(loaded.policy, ttl=ttl, version_of=version_of), version
