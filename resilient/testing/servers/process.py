"""One process with everything it starts: begun, killed, frozen, begun again, and never left behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

from resilient.clock import SYSTEM
from resilient.errors import ConfigurationError, DeadlineExceeded, Unavailable
from resilient.runtime import after_fork

__all__ = ["Process", "State"]

State = Literal["new", "running", "frozen", "ended", "stopped"]


class Process:
    """A process in a group and a folder of its own.

    Whatever it starts belongs to its group and ends with it. It ends with `stop`, with the ``with`` block, when the
    interpreter ends, and also when the interpreter is killed: a small guard process watches for that.

    Args:
        command: What to run, with its arguments.
        env: Variables added to this process's environment; ``None`` as a value removes one.
        cwd: The folder to run it in; by default its own.
        name: What messages call it; by default the command's name.

    Examples:
        >>> import sys
        >>> with Process([sys.executable, "-c", "print('hello')"]) as process:
        ...     process.wait(10), process.output().strip()
        (0, 'hello')
    """

    grace: ClassVar[float] = 5.0
    """Seconds that `restart` waits after SIGTERM before it kills."""
    stop_grace: ClassVar[float] = 5.0
    """The same for `stop`; 0 where nothing of it is needed any more."""

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]] = (),
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        name: str | None = None,
    ) -> None:
        self._command = [os.fspath(part) for part in command]
        self._env = dict(env or {})
        self._cwd = cwd
        self.name = name or (Path(self._command[0]).name if self._command else type(self).__name__)
        self._popen: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._prepared = False
        self._has_group = False
        self._state: State = "new"
        self._owner = os.getpid()
        self._lock = threading.RLock()

    # ------------------------------------------------------------------------------------------------ for subclasses

    def _argv(self) -> list[str]:
        """The command line; called at each start."""
        return self._command

    def _prepare(self, directory: Path) -> None:
        """Fill the new, empty folder before the first start."""

    def _await_ready(self) -> None:
        """Return when the process does its work; raise where it cannot."""

    # ----------------------------------------------------------------------------------------------------- what it is

    @property
    def state(self) -> State:
        """``new``, ``running``, ``frozen``, ``ended`` (killed, or by itself) or ``stopped`` (its folder is gone)."""
        if self._state in {"running", "frozen"} and (self._popen is None or self._popen.poll() is not None):
            return "ended"
        return self._state

    @property
    def pid(self) -> int:
        """The process's number. Raises Unavailable where there is none."""
        if self._popen is None:
            raise Unavailable(f"{self.name} was not started")
        return self._popen.pid

    @property
    def directory(self) -> Path:
        """The folder of its own: made at the first start, kept by `kill` and `restart`, removed by `stop`."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="resilient-"))
            guard.add("folder", self._directory)
        return self._directory

    def output(self) -> str:
        """All it has printed so far, on both streams, over all its starts."""
        if self._directory is None:
            return ""
        try:
            return (self._directory / "output.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.state}>"

    # ------------------------------------------------------------------------------------------------- its whole life

    def start(self) -> Self:
        """Start it, and return when it answers. Does nothing where it runs.

        Raises:
            Unavailable: It ended before it answered, or did not answer in time; its last output is in the message.
        """
        with self._lock:
            if self.state in {"running", "frozen"}:
                return self
            guard.watch(self)
            if not self._prepared:
                self._prepare(self.directory)
                self._prepared = True
            self._spawn()
            try:
                self._await_ready()
            except BaseException:
                self._signal(signal.SIGKILL)
                self._reap()
                raise
            return self

    def _spawn(self) -> None:
        env = {**os.environ, **self._env, "RESILIENT_GUARD": guard.mark}
        with (self.directory / "output.log").open("ab") as log:
            self._popen = subprocess.Popen(
                self._argv(),
                cwd=self._cwd or self.directory,
                env={name: value for name, value in env.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guard.add("group", self._popen.pid)
        self._has_group = True
        self._state = "running"

    def stop(self) -> None:
        """End it and all it started, also when frozen or dead, and remove its folder. Always works; may be repeated."""
        with self._lock:
            self._end(self.stop_grace)
            if self._directory is not None and self._owner == os.getpid():
                shutil.rmtree(self._directory, ignore_errors=True)
                guard.drop("folder", self._directory)
                self._directory = None
            self._prepared = False
            self._state = "stopped"
            guard.forget(self)

    def kill(self) -> None:
        """End it and all it started at once with SIGKILL, as a crash does. Its folder stays for `restart`."""
        with self._lock:
            self._end(0.0)

    def restart(self) -> Self:
        """End it where it runs (politely), then start it in the same folder."""
        with self._lock:
            self._end(self.grace)
            return self.start()

    def freeze(self) -> None:
        """Stop it with SIGSTOP: its connections stay open and are accepted, and nothing answers, as on a hung host."""
        with self._lock:
            if self.state != "running":
                raise ConfigurationError(f"{self.name} is {self.state}, so it cannot be frozen")
            self._signal(signal.SIGSTOP)
            self._wait_stopped()
            self._state = "frozen"

    def thaw(self) -> None:
        """Let a frozen process go on where it was. Does nothing where it is not frozen."""
        with self._lock:
            if self.state == "frozen":
                self._signal(signal.SIGCONT)
                self._state = "running"

    def wait(self, timeout: float) -> int:
        """Wait until it ends by itself.

        Returns:
            Its exit status; negative numbers are signals.

        Raises:
            DeadlineExceeded: It still runs after that many seconds.
        """
        if self._popen is None:
            raise Unavailable(f"{self.name} was not started")
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise DeadlineExceeded(f"{self.name} still runs after {timeout:g} s") from None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # ------------------------------------------------------------------------------------------------------- inside

    def _signal(self, number: signal.Signals) -> None:
        if self._popen is not None and self._owner == os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    def _wait_stopped(self) -> None:
        """SIGSTOP is delivered in its own time; a freeze that has not begun yet would make tests lie."""
        leader = False
        for _ in range(200):
            leader = leader or os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG) is not None
            if leader and set(_states(self.pid)) <= {"T", *_BURIED}:
                return
            if self._popen is None or self._popen.poll() is not None:
                return
            SYSTEM.sleep(0.002)

    def _end(self, grace: float) -> None:
        if self._popen is None or not self._has_group or self._owner != os.getpid():
            return  # not started, ended already, or a forked child's copy of someone else's process
        if grace > 0 and self._popen.poll() is None:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(grace)
        self._signal(signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        if self._popen is None:
            return
        self._popen.wait()
        for _ in range(100):  # children of a killed leader are buried by the system, a moment later
            if not _group_alive(self._popen.pid):
                break
            SYSTEM.sleep(0.005)
        guard.drop("group", self._popen.pid)
        self._has_group = False
        self._state = "ended"


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return not _PROC.exists() or any(state not in _BURIED for state in _states(group))


_PROC = Path("/proc/self/stat")
_BURIED = {"Z", "X"}  # dead, but for an entry that nobody has removed yet


def _states(group: int) -> Iterator[str]:
    """The states of a group's processes, as Linux tells them; elsewhere none."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile
            state, _, number = stat.read_text().rpartition(")")[2].split()[:3]
            if int(number) == group:
                yield state


class Guard:
    """This process's list of what it must not leave behind, and the helper that acts when this process is killed."""

    def __init__(self) -> None:
        self._reset()
        after_fork(self._forked)

    def _reset(self) -> None:
        self.mark = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._helper: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._processes: set[Process] = set()

    def _forked(self) -> None:
        if self._helper is not None:
            os.close(self._pipe)  # else the helper would wait for this child too
            self._helper.returncode = 0  # the parent's child, not ours: nothing to wait for
        self._reset()

    def watch(self, process: Process) -> None:
        """Stop that process when the interpreter ends, even where its owner forgot it."""
        with self._lock:
            self._processes.add(process)

    def forget(self, process: Process) -> None:
        """That process was stopped."""
        with self._lock:
            self._processes.discard(process)

    def add(self, kind: Literal["group", "folder"], value: object) -> None:
        """Tell the helper of a process group or a folder; start it where it does not run yet."""
        with self._lock:
            if self._helper is None:
                self._start()
            self._tell(f"+{kind} {value}\n")

    def drop(self, kind: Literal["group", "folder"], value: object) -> None:
        """Tell the helper that it is gone."""
        with self._lock:
            self._tell(f"-{kind} {value}\n")

    def _start(self) -> None:
        script = Path(__file__).with_name("_guard.py")
        reader, self._pipe = os.pipe()
        try:
            self._helper = subprocess.Popen(
                [sys.executable, "-I", "-S", os.fspath(script), self.mark],
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is not meant for it
            )
        finally:
            os.close(reader)
        atexit.register(self._finish, os.getpid())

    def _tell(self, line: str) -> None:
        if self._helper is not None:
            with contextlib.suppress(OSError):  # a helper that was killed cannot help; `stop` still works
                os.write(self._pipe, line.encode())

    def _finish(self, owner: int) -> None:
        if owner != os.getpid() or self._helper is None:
            return
        for process in list(self._processes):
            process.stop()
        os.close(self._pipe)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._helper.wait(2.0)


guard = Guard()
"""The one guard of this process."""
