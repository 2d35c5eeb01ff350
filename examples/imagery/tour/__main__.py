"""``python -m examples.imagery.tour``: start the parts, break them one after another, and say what held.

Exit status: 0 if every invariant held, 1 if one did not, 2 if the tour could not be made.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts it with an older one is told so, and sees no traceback
    sys.exit("Imagery needs Python 3.11 or newer, this is {}.{}".format(*sys.version_info[:2]))

import argparse
import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from examples.imagery.parts import Parts


_ROOM = 256 * 2**20
"""Bytes that the databases of the machine take at the start, about."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments and the environment, and go."""
    options = _parser().parse_args(arguments)
    try:
        port = _port(options.port, serve=options.serve)
    except ValueError as error:
        return _refuse(str(error))
    # A shell without job control starts what it puts in the background with SIGINT ignored, and so do some CI systems.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _ended)
    signal.signal(signal.SIGHUP, _ended)
    try:
        return _go(options, port)
    except KeyboardInterrupt:
        _say("\nInterrupted; everything is stopped.")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.imagery.tour", description="A tour of Imagery.")
    parser.add_argument("--table", type=Path, help="also write the table to this file, as Markdown")
    parser.add_argument("--serve", action="store_true", default=os.environ.get("SERVE", "0") not in ("", "0"),
                        help="leave it running afterwards, with its page (or SERVE=1)")  # fmt: skip
    parser.add_argument("--port", default=os.environ.get("PORT") or None, help="the page's port (or PORT=n)")
    parser.add_argument("--embedded", action="store_true", help="use no redis-server and no mariadbd")
    parser.add_argument("--logs", type=Path, help="keep what each process printed in this folder")
    parser.add_argument("--no-tour", action="store_true", help="with --serve: break nothing, only serve the page")
    return parser


def _port(given: str | None, *, serve: bool) -> int | None:
    """The page's port: the one that was asked for, else 8000 if it is free and the page is wanted."""
    if given is None:
        return 8000 if serve and _is_free(8000) else None
    if not given.isdigit() or not 0 < int(given) < 65536:
        raise ValueError(f"PORT={given} is no port: choose one between 1 and 65535")
    if not _is_free(int(given)):
        raise ValueError(f"port {given} is in use: choose another one with PORT=")
    return int(given)


def _is_free(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _visit(parts: Parts, options: argparse.Namespace) -> int:
    from examples.imagery.tour.run import Tour

    status = 0
    if not options.no_tour:
        status = int(any(each.broken for each in Tour(parts, say=_say).run(options.table)))
    if options.serve:
        _serve(parts)
    return status


def _go(options: argparse.Namespace, port: int | None) -> int:
    try:
        from examples.imagery.parts import Parts
        from examples.imagery.settings import SABOTAGE, SABOTAGES
        from resilient.errors import ResilientError
    except ImportError as error:
        return _refuse(f"{error.name or 'a module'} is not installed: run `make demo`, which installs what is needed")
    logging.getLogger("resilient").addHandler(logging.NullHandler())  # the table tells the story
    sabotage = os.environ.get(SABOTAGE, "")
    if sabotage not in SABOTAGES:
        return _refuse(f"{SABOTAGE}={sabotage} is unknown: use one of {', '.join(filter(None, SABOTAGES))}")
    try:
        parts = Parts(port=port, sabotage=sabotage, embedded=options.embedded)
        for name, what in parts.what.items():
            _say(f"{name + ':':13}{what}")
        if sabotage:
            _say(f"{'sabotage:':13}{SABOTAGES[sabotage]}")
        with parts:
            _say(f"{'page:':13}{parts.webs[0].url}/\n")
            try:
                return _visit(parts, options)
            finally:
                if options.logs is not None:
                    parts.keep_logs(options.logs)
    except (ResilientError, OSError) as error:
        return _refuse(f"{error}{_no_room()}")


def _serve(parts: Parts) -> None:
    _say(f"\nStill running: {parts.webs[0].url}/ (Ctrl-C ends it). Break something yourself, for instance:")
    for name, pid in parts.processes().items():
        _say(f"  kill -STOP -- -{pid:<8} # freezes {name}; kill -CONT -- -{pid} thaws it")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    _say("\nEnding.")


def _ended(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _no_room() -> str:
    """What to add to an error where the temporary folder is nearly full: few programs say so themselves."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    return f"\nimagery: {folder} has little room left: {free / 2**20:.1f} MiB" if free < _ROOM else ""


def _refuse(message: str) -> int:
    sys.stderr.write(f"imagery: {message}\n")
    return 2


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
