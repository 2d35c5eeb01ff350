"""Assets with names that tell their content, so that browsers may keep them for ever and pages never mix versions.

`collect` copies a folder of assets under names that bear a hash of what is in them, ``app.css`` as
``app.3f1c9a0b7d52.css``, with a manifest that tells which is which. What a style sheet refers to is renamed in it too.
An edited asset gets a new name; copies of former versions stay, so that a page that a browser still shows, or that
another instance still makes, goes on with the files it was made for.

`resilient.flask.Assets` serves them. For Django see its own ``ManifestStaticFilesStorage``.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from resilient.clock import SYSTEM
from resilient.errors import ConfigurationError

__all__ = ["MANIFEST", "Manifest", "collect", "is_hashed", "prune"]

MANIFEST = "manifest.json"
"""The name of the manifest in the folder of the copies."""

_HASH = 12
_HASHED = re.compile(rf"(?:.*/)?[^/]*\.[0-9a-f]{{{_HASH}}}(?:\.[^/.]+)?")
_REFERENCES = re.compile(
    r"""(?P<head>url\(\s*|@import\s+(?=["']))(?P<quote>["']?)(?P<name>[^"')\s;]+)(?P=quote)"""
    r"""|(?P<map>[#@]\s*sourceMappingURL=)(?P<source>[^\s*]+)"""
    r"""|(?P<comment>/\*(?![#@]).*?\*/)""",
    re.DOTALL | re.IGNORECASE,
)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|/|#|\?", re.IGNORECASE)


def is_hashed(name: str) -> bool:
    """Whether a name bears a hash, so that what is under it never changes.

    Examples:
        >>> is_hashed("css/app.3f1c9a0b7d52.css"), is_hashed("css/app.css")
        (True, False)
    """
    return _HASHED.fullmatch(name) is not None


class Manifest:
    """Which name an asset has now. Read once: all pages of a process agree.

    Args:
        names: The name with the hash for each name without.

    Examples:
        >>> Manifest({"app.css": "app.3f1c9a0b7d52.css"})["app.css"]
        'app.3f1c9a0b7d52.css'
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = MappingProxyType(dict(names))

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """The manifest of a folder that `collect` has filled. Raises ConfigurationError where there is none."""
        path = Path(folder) / MANIFEST
        try:
            told = json.loads(path.read_bytes())
            if told["version"] != 1:
                raise ConfigurationError(f"{path} is of another version than this library reads")
            return cls(told["files"])
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"{path} is not there: the assets were not collected",
                advice="run `resilient assets collect SOURCE TARGET` when you build",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{path} is no manifest of assets", advice="collect the assets again") from error

    def __getitem__(self, name: str) -> str:
        try:
            return self.names[name]
        except KeyError:
            raise ConfigurationError(
                f"there is no asset {name!r}", advice="is it spelled so, and was it collected?"
            ) from None


def collect(source: str | Path, target: str | Path) -> Manifest:
    """Copy assets under names that bear their hash, and write the manifest last.

    Each file is complete before a name leads to it, and nothing that was there is taken away: see `prune`. May run
    while another process serves the folder.

    Args:
        source: A folder. Files whose names begin with a dot are left out, and those in folders of such names.
        target: The folder for the copies; it is made where it is not there.

    Raises:
        ConfigurationError: The source is no folder, or a style sheet refers to a file that is not there, or to itself
            by way of others.
    """
    root, into = Path(source), Path(target)
    if not root.is_dir():
        raise ConfigurationError(f"{root} is no folder of assets")
    inside = into.resolve()
    names = {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and not path.resolve().is_relative_to(inside)
    }
    collector = _Collector(names, into)
    found = Manifest({name: collector.collected(name) for name in names})
    told = json.dumps({"version": 1, "files": dict(found.names)}, indent=1, sort_keys=True)
    _write(into / MANIFEST, told.encode())
    return found


def prune(target: str | Path, older_than: float) -> int:
    """Take away copies of former versions.

    Args:
        target: The folder of the copies.
        older_than: Seconds since a copy was last collected; longer than any page is shown or kept by a cache.

    Returns:
        How many were taken away.
    """
    into = Path(target)
    now, kept = set(Manifest.read(into).names.values()), SYSTEM.wall() - older_than
    gone = [
        path
        for path in into.rglob("*")
        if path.is_file()
        and is_hashed(name := path.relative_to(into).as_posix())
        and name not in now
        and path.stat().st_mtime < kept
    ]
    for path in gone:
        path.unlink(missing_ok=True)
    return len(gone)


class _Collector:
    """Copies files, those first to which others refer."""

    def __init__(self, names: Mapping[str, Path], into: Path) -> None:
        self._names = names
        self._into = into
        self._done: dict[str, str] = {}
        self._begun: list[str] = []

    def collected(self, name: str) -> str:
        """The name of a file's copy, which is there."""
        if name in self._done:
            return self._done[name]
        if name in self._begun:
            raise ConfigurationError(f"assets refer to each other in a circle: {' → '.join([*self._begun, name])}")
        self._begun.append(name)
        data = self._names[name].read_bytes()
        if name.endswith((".css", ".js", ".mjs")):
            data = self._renamed(name, data)
        self._begun.pop()
        stem, suffix = posixpath.splitext(name)
        hashed = f"{stem}.{hashlib.sha256(data).hexdigest()[:_HASH]}{suffix}"
        path = self._into / hashed
        if path.is_file():
            os.utime(path)  # collected now, too
        else:
            _write(path, data)
        self._done[name] = hashed
        return hashed

    def _renamed(self, name: str, data: bytes) -> bytes:
        """A style sheet or a script with the new names of what it refers to."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return data  # of another encoding: as it is
        style = name.endswith(".css")

        def renamed(found: re.Match[str]) -> str:
            if found["comment"] is not None:
                return found[0]
            if found["map"] is not None:
                return f"{found['map']}{self._reference(name, found['source'], must=False)}"
            if not style:
                return found[0]
            return f"{found['head']}{found['quote']}{self._reference(name, found['name'])}{found['quote']}"

        return _REFERENCES.sub(renamed, text).encode()

    def _reference(self, name: str, told: str, *, must: bool = True) -> str:
        """What a file's reference becomes."""
        if _ELSEWHERE.match(told):
            return told
        path, mark, rest = re.fullmatch(r"([^?#]*)([?#]?)(.*)", told, re.DOTALL).groups()  # type: ignore[union-attr]  # matches everything
        meant = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        if meant not in self._names:
            if must:
                raise ConfigurationError(f"{name} refers to {told}, which is not among the assets")
            return told
        hashed = self.collected(meant)
        return posixpath.join(posixpath.dirname(path), posixpath.basename(hashed)) + mark + rest


def _write(path: Path, data: bytes) -> None:
    """Put a file in place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
