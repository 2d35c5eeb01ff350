"""The ``resilient`` command.

Targets of your own are written ``module:attr``; the module is looked for in the current folder too. It ends with 0 when
all is well, 1 when it is not, and 2 when it could not be asked: a wrong argument, a module that is not there, an object
of another kind, a server that does not answer.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import importlib
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from resilient import __version__
from resilient.errors import ResilientError
from resilient.runtime import start_thread

__all__ = ["main"]

T = TypeVar("T")

_ADDRESS = re.compile(r"[^/:]+:\d+(/.*)?")  # host:port without a scheme; no attribute begins with a digit
_MAX_BODY = 65_536  # bytes of a probe's answer that are read


class _Failed(Exception):
    """The command cannot do what it was asked; its text is the line to show."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; by default those of the process.

    Returns:
        The exit status: 0 all is well, 1 it is not, 2 it could not be asked.

    Examples:
        >>> main(["health", "nowhere:health"])
        2
    """
    options = _parse(argv)
    try:
        return int(options.run(options))
    except _Failed as error:
        return _complain(str(error))
    except ResilientError as error:
        return _complain(_in_a_line(error))
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; Python would complain of that once more at its end
        return 1


def _complain(line: str) -> int:
    sys.stderr.write(f"resilient: {line}\n")
    return 2


def _in_a_line(error: BaseException) -> str:
    """An error's type and text, whatever lines the text has."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="resilient", description="Ask and run the parts of an application.")
    parser.add_argument("--version", action="version", version=f"resilient {__version__}")
    rooms = parser.add_subparsers(required=True, metavar="COMMAND")

    health = rooms.add_parser("health", help="ask a health route, or run the checks of a Health here")
    health.add_argument("target", help="an http(s) URL, or module:attr of a resilient.health.Health")
    health.add_argument("--view", help="live, ready, startup, all, or a group (default: ready); a URL names its own")
    health.add_argument("--timeout", type=float, default=2.0, help="seconds to wait for a URL (default: 2)")
    health.set_defaults(run=_health)

    queue = rooms.add_parser("queue", help="consumers").add_subparsers(required=True, metavar="COMMAND")
    run = queue.add_parser("run", help="run a consumer until SIGTERM")
    run.add_argument("target", help="module:attr of a resilient.queue.Consumer")
    run.add_argument("--until-empty", action="store_true", help="end when the queue is empty")
    run.set_defaults(run=_queue_run)

    cache = rooms.add_parser("cache", help="caches").add_subparsers(required=True, metavar="COMMAND")
    inspect = cache.add_parser("inspect", help="tell what stands under keys, or of a whole cache; never a value")
    inspect.add_argument("target", help="module:attr of a resilient.cache.Cache or AsyncCache, or a server's URL")
    inspect.add_argument("keys", nargs="*", metavar="KEY", help="keys as cache.get takes them; none: the whole cache")
    inspect.add_argument("--namespace", default="cache", help="the cache's namespace, for a URL (default: cache)")
    inspect.set_defaults(run=_cache_inspect)

    shards = rooms.add_parser("shards", help="shards").add_subparsers(required=True, metavar="COMMAND")
    layout = shards.add_parser("layout", help="show where the buckets are")
    layout.add_argument("target", help="module:attr of a resilient.storage.shards.ShardSet")
    layout.set_defaults(run=_shards_layout)

    assets = rooms.add_parser("assets", help="assets of pages").add_subparsers(required=True, metavar="COMMAND")
    collect = assets.add_parser("collect", help="copy assets under names that tell their content, with a manifest")
    collect.add_argument("source", help="the folder of the assets")
    collect.add_argument("target", help="the folder for the copies; former ones stay")
    collect.add_argument("--prune-days", type=float, help="take away former copies that are older")
    collect.set_defaults(run=_assets_collect)
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; keys may stand behind an option too, where argparse alone takes them for something else."""
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if rest and (not hasattr(options, "keys") or any(each.startswith("-") for each in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.keys += rest
    return options


# --------------------------------------------------------------------------------------------------------- targets


def _load(target: str, kind: Callable[[], type[T]]) -> T:
    """The object that ``module:attr`` names. The kind is looked up only after the module was found."""
    module_name, colon, attribute = target.partition(":")
    if not (colon and module_name and attribute):
        raise _Failed(f"{target!r} is no target: write module:attr, as in shop.health:health")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found = _import(module_name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise _Failed(f"the module {module_name!r} has no {attribute!r}") from None
        except Exception as error:  # a property, or the module's own way to look names up
            raise _Failed(f"{target} cannot be read: {_in_a_line(error)}") from error
    wanted = kind()
    if not isinstance(found, wanted):
        raise _Failed(f"{target} is a {type(found).__name__}, not a {wanted.__name__}")
    return found


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise _Failed(f"there is no module {name!r} here or on the Python path") from None
        raise _Failed(f"the module {name!r} needs {error.name!r}, which is not installed") from error
    except Exception as error:
        raise _Failed(f"the module {name!r} cannot be imported: {_in_a_line(error)}") from error


# ---------------------------------------------------------------------------------------------------------- health


def _health(options: argparse.Namespace) -> int:
    if _ADDRESS.fullmatch(options.target):
        raise _Failed(
            f"{options.target!r} is no target: an address begins with a scheme, as in http://{options.target}"
        )
    if "://" in options.target:
        if options.view is not None:
            raise _Failed(f"a URL names the view itself: leave --view away and ask for …/health/{options.view}")
        return _health_of_url(options.target, options.timeout)
    from resilient.health import Health
    from resilient.health.lines import exit_code, lines

    health = _load(options.target, lambda: Health)
    health.observe()  # this process serves nobody
    report = health.report(options.view or "ready")
    for line in lines(report):
        _say(line)
    return exit_code(report)


def _health_of_url(url: str, timeout: float) -> int:
    if not url.startswith(("http://", "https://")):
        raise _Failed("a URL begins with http:// or https://")
    if not 0 < timeout < threading.TIMEOUT_MAX:
        raise _Failed(f"--timeout {timeout:g} is no time: use seconds > 0")
    try:
        status, body = _in_time(lambda: _get(url, timeout), timeout)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _Failed(f"no answer: {reason or type(error).__name__}") from error
    _say(f"{status} {body}".strip())
    if status in {200, 503}:
        return 0 if status == 200 else 1
    raise _Failed(f"a health route answers 200 or 503, this one {status}")


def _in_time(function: Callable[[], T], seconds: float) -> T:
    """What a function returns or raises; TimeoutError where it has not ended by then.

    A socket's own limit is for each wait: a server that sends a byte now and then would hold a probe up for ever.
    """
    told: list[Callable[[], T]] = []

    def run() -> None:
        try:
            found = function()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            told.append(lambda error=error: _raised(error))  # type: ignore[misc] # a default binds what except unbinds
        else:
            told.append(lambda: found)

    thread = start_thread(run, name="probe")
    thread.join(seconds)
    if not told:
        raise TimeoutError("timed out")
    return told[0]()


def _raised(error: BaseException) -> Any:
    raise error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A balancer does not follow a redirect either."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _get(url: str, timeout: float) -> tuple[int, str]:
    # An opener of its own: no proxy from the environment stands between a probe and what it probes.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(url, timeout=timeout) as answer:
            return answer.status, _text(answer.read(_MAX_BODY))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _text(error.read(_MAX_BODY))


def _text(body: bytes) -> str:
    """An answer as one printable line."""
    return "".join(each if each.isprintable() else " " for each in body.decode(errors="replace")).strip()


# ------------------------------------------------------------------------------------------------- queue and shards


def _queue_run(options: argparse.Namespace) -> int:
    def kind() -> type[Any]:
        from resilient.queue import Consumer

        return Consumer

    done = _load(options.target, kind).run(until_empty=options.until_empty)
    _say(" ".join(f"{each.name}={getattr(done, each.name)}" for each in dataclasses.fields(done)))
    return 0


def _cache_inspect(options: argparse.Namespace) -> int:
    from resilient.cache import AsyncCache, Cache
    from resilient.cache._inspect import lines_of_cache, lines_of_key

    if "://" in options.target:
        cache: Any = Cache(options.target, namespace=options.namespace, ttl=1, connect_timeout=2.0, timeout=2.0)
    else:
        cache = _load(options.target, lambda: object)
    if not isinstance(cache, Cache | AsyncCache):
        advice = "; name its cache, and the key that its .key(...) tells" if hasattr(cache, "__wrapped__") else ""
        raise _Failed(f"{options.target} is a {type(cache).__name__}, not a Cache{advice}")
    try:
        told = [lines_of_key(cache, key) for key in options.keys] or [(True, lines_of_cache(cache))]
    except cache.store.failures as error:
        raise _Failed(f"the cache's server does not answer: {type(error).__name__}") from error
    for _, lines in told:
        for line in lines:
            _say(line)
    if "://" in options.target and any(lines[1:] == ["  nothing"] for _, lines in told):
        _say(f"looked for in the namespace {options.namespace!r}; --namespace names another")
    return 0 if all(served for served, _ in told) else 1


def _shards_layout(options: argparse.Namespace) -> int:
    def kind() -> type[Any]:
        from resilient.storage.shards import ShardSet

        return ShardSet

    _say(str(_load(options.target, kind).layout()))
    return 0


def _assets_collect(options: argparse.Namespace) -> int:
    from resilient.web.assets import collect, prune

    found = collect(options.source, options.target)
    gone = 0 if options.prune_days is None else prune(options.target, options.prune_days * 86_400)
    _say(f"{len(found.names)} assets in {options.target}, {gone} former copies taken away")
    return 0


if __name__ == "__main__":  # without this, python -m resilient.cli would say of everything that all is well
    sys.exit(main())
