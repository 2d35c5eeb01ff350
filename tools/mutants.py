"""Mutation testing of the pure cores: every small change of a core should make one of its room's tests fail.

    python tools/mutants.py [--at-least SCORE] [--jobs N] [ROOM or MODULE ...]
    python tools/mutants.py --rooms

mutmut makes the changes and runs the tests; this runs it once for each room, in a copy of the sources under mutants/,
and tells what survived. Without arguments every core of every room is tested. Exits 1 where a score is too low.

Left out, and said so in the counts: changes to prose, which is any literal text with a space in it (messages, advice),
and the few listed here that no test can tell from the original.
mutmut itself leaves out what it cannot change safely: functions with a decorator other than ``classmethod`` and
``staticmethod`` (properties, context managers), annotations, and whatever stands outside of functions.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "mutants"
KILLED = {1, 2, 3}
"""Exit codes of pytest: a test failed, or could not even be collected."""
TIMED_OUT = {36, -24, 24, 152}
"""Stopped by mutmut, as what makes a test run for ever. Whatever else ended a run is told, and does not count."""


NO_SHRINKING = """
from hypothesis import Phase

settings.register_profile("mutants", settings.get_profile("quick"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("mutants")
"""
"""A failure is all that is asked for: making it small and explaining it takes most of the time."""


@dataclass(frozen=True)
class Room:
    """Cores that are tested together."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    at_least: float = 0.9
    without: tuple[str, ...] = ()
    """Files with tests of the sources as they are written, which the rewritten ones cannot pass; and tests, as in
    ``file::test``, that take long and kill nothing that quicker ones do not."""


def _in(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"resilient/{folder}/{name}.py" for name in names)


ROOMS = {
    "ground": Room(("resilient/causality.py",), ("tests/unit/ground/test_causality.py",)),
    "policy": Room(
        _in(
            "policy",
            *("_breaker", "_budget", "_bulkhead", "_checks", "_deadline", "_hedge", "_order", "_retry"),
            *("_waits", "classify", "limiter", "strategies", "weighted"),
        ),
        ("tests/unit/policy",),
        at_least=0.95,
        without=("tests/unit/policy/test_types.py",),
    ),
    "ledger": Room(_in("ledger", "_record"), ("tests/unit/ledger/test_record.py",)),
    "replicas": Room(
        _in("storage/replicas", "_health", "_routing"),
        ("tests/unit/replicas/test_health.py", "tests/unit/replicas/test_routing.py"),
    ),
    "shards": Room(
        _in("storage/shards", "_map", "_merge", "_plan"),
        tuple(f"tests/unit/shards/test_{each}.py" for each in ("map", "merge", "plan")),
    ),
    "objects": Room(
        _in("storage/objects", "_evaluate", "_keys", "_policy", "_token"),
        ("tests/unit/objects",),
    ),
    "queue": Room(
        _in("queue", "_inhand", "_limits"),
        ("tests/unit/queue/test_inhand.py", "tests/unit/queue/test_limits.py"),
    ),
    "cache": Room(
        _in("cache", "_entry", "_freshness", "_keys", "_tags"),
        tuple(f"tests/unit/cache/test_{each}.py" for each in ("entry", "freshness", "keys", "codecs_values")),
    ),
    "health": Room(
        _in("health", "_core", "_history", "_report", "_standing", "_streak"),
        tuple(f"tests/unit/health/test_{each}.py" for each in ("core", "history", "report", "standing", "streak")),
        without=("tests/unit/health/test_report.py::test_nothing_of_an_exception_ever_leaves",),
    ),
}

EQUIVALENT = {
    ("resilient/causality.py", 'version, *parts = text[: _MAX_TEXT + 2].split("!")'): "longer text is refused anyway",
    ("resilient/causality.py", 'name, _, position = part.rpartition(":")'): "a second colon is refused on either side",
    (
        "resilient/cache/_entry.py",
        "return int.from_bytes(raw[VERSION], ) if len(raw) >= HEADER.size else 0",
    ): "the same order is the default",
    (
        "resilient/cache/_entry.py",
        "return head + raw[VERSION] + len(note).to_bytes(2, ) + note + raw",
    ): "the same order is the default",
    (
        "resilient/cache/_entry.py",
        "return raw[HEADER.size + int.from_bytes(raw[TAGGED], ) :]",
    ): "the same order is the default",
    ("resilient/cache/_entry.py", "end = 2 + int.from_bytes(body[:2], )"): "the same order is the default",
    (
        "resilient/cache/_entry.py",
        "if raw is None or len(raw) <= HEADER.size or raw[0] != MAGIC or raw[1] != FORMAT or not raw[2] & _EMPTY:",
    ): "a header alone bears no note either",
    (
        "resilient/cache/_freshness.py",
        "return 0 if (self.version_of is None) and False else version_of(value, self.version_of)",
    ): "where nothing tells a version, that is 0 as well",
    (
        "resilient/cache/_freshness.py",
        "soon = self.early >= 0 and age - entry.cost * self.early * math.log(chance) >= entry.fresh",
    ): "with a factor of 0 it is soon at the end, and then it is fresh no more",
    ("resilient/cache/_keys.py", "and 1 < len(key) <= _LONGEST"): "a single letter is then looked at with care",
    ("resilient/cache/_keys.py", "and 0 < len(key) < _LONGEST"): "the longest is then looked at with care",
    ("resilient/cache/_keys.py", 'whole = "".join(None)'): "each key is then looked at alone, to the same end",
    ("resilient/cache/_keys.py", 'whole = "XXXX".join(keys)'): "plain letters between keys make none of them odd",
    ("resilient/cache/_keys.py", 'whole = "XX#XX"'): "any text with a hash sign in it will do",
    ("resilient/cache/_keys.py", "and max(map(len, keys)) < _LONGEST"): "the longest is then looked at alone",
    ("resilient/cache/_keys.py", 'between = "XXXX"'): "nothing and letters alone are refused alike",
    ("resilient/policy/_breaker.py", "self.settled = False => self.settled = None"): "as false as False",
    ("resilient/policy/_breaker.py", "self.epoch = 0 => self.epoch = 1"): "any number will do",
    ("resilient/policy/_breaker.py", "self.epoch -= 1"): "any change of the number will do",
    ("resilient/policy/_breaker.py", "self.epoch += 2"): "any change of the number will do",
    ("resilient/policy/_breaker.py", "self._out = 0 => self._out = None"): "it is set when a half-open time begins",
    ("resilient/policy/_breaker.py", "self._out = 0 => self._out = 1"): "it is set when a half-open time begins",
    (
        "resilient/policy/_breaker.py",
        "self._streak = 0 => self._streak = None",
    ): "it is set when a half-open time begins",
    ("resilient/policy/_breaker.py", "self._streak = 0 => self._streak = 1"): "it is set when a half-open time begins",
    ("resilient/policy/_breaker.py", "self._failures = 0 => self._failures = 1"): "only differences are looked at",
    ("resilient/policy/_breaker.py", "self._slow = 0 => self._slow = 1"): "only differences are looked at",
    ("resilient/policy/_breaker.py", "self._row_began = 0 => self._row_began = None"): "the first failure begins a row",
    ("resilient/policy/_breaker.py", "self._row_began = 0 => self._row_began = 1"): "the first failure begins a row",
    ("resilient/policy/_budget.py", "self._total = 0 => self._total = 1"): "the bucket is full at first",
    ("resilient/policy/_bulkhead.py", "if left < 0 or not waiting:"): "at the edge it waits for no time and is refused",
    ("resilient/policy/_bulkhead.py", "waiting = False => waiting = None"): "as false as False",
    ("resilient/policy/_deadline.py", "return outer if left_of(outer) < left_of(expires) else expires"): (
        "of two moments that come at once, either is the nearest"
    ),
    ("resilient/policy/_deadline.py", "await timer.__aexit__(kind, None, trace)"): "asyncio looks at the class alone",
    ("resilient/policy/_deadline.py", "await timer.__aexit__(kind, error, None)"): "asyncio looks at the class alone",
    ("resilient/policy/_hedge.py", "done: set[concurrent.futures.Future[Any]] = None"): "it is set before it is read",
    ("resilient/policy/_hedge.py", 'winner = None => winner = ""'): "as false as None",
    (
        "resilient/policy/_order.py",
        "if inner in kinds and outer in kinds and kinds.index(inner) >= kinds.index(outer):",
    ): "two kinds never stand in one place",
    (
        "resilient/policy/_order.py",
        "outside = [index for index in places if Retry not in kinds or index <= kinds.index(Retry)]",
    ): "two kinds never stand in one place",
    ("resilient/policy/_retry.py", "self.wait = 0.0 => self.wait = None"): "it is set before it is read",
    ("resilient/policy/_retry.py", "self.wait = 0.0 => self.wait = 1.0"): "it is set before it is read",
    ("resilient/policy/_retry.py", "state.set_exception((type(None), error, None))"): "tenacity keeps the error alone",
    (
        "resilient/policy/classify.py",
        "return verdict if (hint is None) and False else Verdict(verdict.failure, verdict.no_effect, hint)",
    ): "an equal verdict",
    (
        "resilient/health/_core.py",
        "return result if result.status < worst else Result(worst, result.reason, result.values)",
    ): "an equal result",
    ("resilient/health/_core.py", "if status < Status.WARN:"): "a warning comes out as one on every way",
    (
        "resilient/health/_core.py",
        "failure = Failure.PERMANENT if (verdict is None) and False else Failure(verdict.failure)",
    ): "what None has not is caught, and the same word told",
    ("resilient/health/_history.py", "self._failed = False => self._failed = None"): "as false as False",
    (
        "resilient/health/_history.py",
        "self._failed = False => self._failed = True",
    ): "it is set with the first outcome there is",
    (
        "resilient/health/_history.py",
        "self._ended = 0.0 => self._ended = 1.0",
    ): "it is set with the first outcome there is",
    (
        "resilient/health/_history.py",
        "if run.counted == 0 and until <= run.started + _ENOUGH * self.terms.timeout:",
    ): "a tolerance, whose exact edge has no meaning",
    (
        "resilient/health/_standing.py",
        'if group.name == "live" and found >= Status.WARN and now < self._grace_ends:',
    ): "a warning is told as one either way",
    (
        "resilient/health/_streak.py",
        'if not is_number(self.grace) or not 0 <= self.grace < float("INF"):',
    ): "the same number",
    (
        "resilient/health/_streak.py",
        "return Streak(told, bad, first_bad=first, last_bad=began, began=began)",
    ): "0 is what it has without",
    (
        "resilient/storage/replicas/_health.py",
        "self.state, self._good, self._bad = state, 0, 1",
    ): "a good probe, without which it does not come back, counts the bad ones anew",
    ("resilient/policy/limiter.py", 'self._due = float("-INF")'): "the same number",
    ("resilient/policy/limiter.py", "if pause < 1e-9:"): "a tolerance, whose exact edge has no meaning",
}
"""Changes that no test can tell from the original, by module and changed line, each with its reason.

Where the changed line alone might be met elsewhere, the line it was stands before it: ``old => new``.
"""


@dataclass(frozen=True)
class Mutant:
    """One change, and what became of it."""

    name: str
    line: int
    diff: str
    left_out: str
    outcome: str


# ------------------------------------------------------------------------------------------------------ the changes


def is_prose(node: ast.AST | None) -> bool:
    """Whether it is literal text for people."""
    if isinstance(node, ast.JoinedStr):
        return any(is_prose(part) for part in node.values)
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip()


def only_prose(old: ast.AST, new: ast.AST) -> bool:
    """Whether two functions differ in prose alone: reworded, replaced by None, or left out of a call.

    Example:
        >>> before = ast.parse("raise Refused('no such key', retry_after=1)")
        >>> only_prose(before, ast.parse("raise Refused(None, retry_after=1)"))
        True
        >>> only_prose(before, ast.parse("raise Refused('no such key', retry_after=2)"))
        False
    """
    if is_prose(old):
        return is_prose(new) or (isinstance(new, ast.Constant) and new.value is None)
    if type(old) is not type(new):
        return False
    if isinstance(old, ast.Call) and isinstance(new, ast.Call):
        before = [(None, each) for each in old.args] + [(each.arg, each.value) for each in old.keywords]
        after = [(None, each) for each in new.args] + [(each.arg, each.value) for each in new.keywords]
        if len(before) == len(after) + 1:
            left_out = next((at for at, each in enumerate(after) if before[at][0] != each[0]), len(after))
            candidates = [at for at in range(len(before)) if is_prose(before[at][1]) and at <= left_out]
            return only_prose(old.func, new.func) and any(
                all(
                    mine[0] == theirs[0] and ast.dump(mine[1]) == ast.dump(theirs[1])
                    for mine, theirs in zip(before[:at] + before[at + 1 :], after, strict=True)
                )
                for at in candidates
            )
    mine, theirs = list(ast.iter_fields(old)), list(ast.iter_fields(new))
    return all(_same_field(one, other) for (_, one), (_, other) in zip(mine, theirs, strict=True))


def _same_field(one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_field, one, other))
    if isinstance(one, ast.AST) and isinstance(other, ast.AST):
        return only_prose(one, other)
    return one == other


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The functions of a module and the methods of its classes, by the name that mutmut gives them."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"x_{node.name}", node
        elif isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"xǁ{node.name}ǁ{child.name}", child


def outcome_of(code: int | None) -> str:
    """What an exit code says of a mutant."""
    if code in KILLED:
        return "killed"
    if code in TIMED_OUT:
        return "timeout"
    return {0: "survived", 5: "untested", 33: "untested", None: "unchecked"}.get(code, f"unknown ({code})")


def changes(diff: str) -> set[str]:
    """The changed lines of a diff without their comments, each alone and with every line that was taken away."""
    old, new = ([_code(line) for line in diff.splitlines() if line[:2] == sign] for sign in ("- ", "+ "))
    return {*new, *(f"{before} => {after}" for before in old for after in new)}


def _code(line: str) -> str:
    return line[2:].partition("  #")[0].strip()


def mutants_of(folder: Path, module: str) -> Iterator[Mutant]:
    """Every change that mutmut made to one module, read from what it left in its folder."""
    original = dict(functions(ast.parse((folder / module).read_text())))
    text = (folder / "mutants" / module).read_text()
    lines = text.splitlines()
    made = {node.name: node for _, node in functions(ast.parse(text))}

    def code(name: str, mutant: str) -> str:
        node = made[mutant]
        source = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
        return source.replace(mutant, name, 1)

    codes = json.loads((folder / "mutants" / f"{module}.meta").read_text())["exit_code_by_key"]
    for key, exit_code in codes.items():
        mutant = key.rpartition(".")[2]
        mangled = mutant.partition("__mutmut_")[0]
        node = original[mangled]
        before, after = code(node.name, f"{mangled}__mutmut_orig"), code(node.name, mutant)
        old, new = before.splitlines(), after.splitlines()
        first = next((at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), 0)
        diff = [line for line in difflib.ndiff(old, new) if line[:2] in {"- ", "+ "}]
        left_out = "prose" if only_prose(ast.parse(before), ast.parse(after)) else ""
        if any((module, change) in EQUIVALENT for change in changes("\n".join(diff))):
            left_out = "equivalent"
        yield Mutant(mutant, node.lineno + first, "\n".join(diff), left_out, outcome_of(exit_code))


# ---------------------------------------------------------------------------------------------------------- running


def prepare(name: str, room: Room, modules: list[str]) -> Path:
    """A folder with what mutmut needs to know about one room."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "resilient", folder / "resilient", ignore=ignore)
    for test in room.tests:
        home = Path(test) if (ROOT / test).is_dir() else Path(test).parent
        shutil.copytree(ROOT / home, folder / home, ignore=ignore, dirs_exist_ok=True)
    conftest = (ROOT / "tests" / "conftest.py").read_text()
    (folder / "tests" / "conftest.py").write_text(conftest + NO_SHRINKING)
    settings = {
        "source_paths": ["resilient"],
        "only_mutate": modules,
        "also_copy": ["tests"],
        "pytest_add_cli_args": ["-p", "no:xdist", "-p", "no:cacheprovider", "--timeout", "30"]
        + [f"{'--deselect' if '::' in test else '--ignore'}={test}" for test in room.without],
        "pytest_add_cli_args_test_selection": list(room.tests),
        "process_isolation": "forkserver",
        "timeout_multiplier": 5.0,
        "timeout_constant": 2.0,
        "use_git_change_detection": False,
        "track_dependencies": False,
    }
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    project = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(f"{project}\n[tool.mutmut]\n{table}\n")
    return folder


def test(name: str, modules: list[str], at_least: float | None, jobs: int) -> bool:
    """Test the modules of one room and tell the result. Returns whether every score is high enough."""
    room = ROOMS[name]
    wanted = room.at_least if at_least is None else at_least
    folder = prepare(name, room, modules)
    started = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", "from mutmut.__main__ import cli; cli()", "run", "--max-children", str(jobs)],
        cwd=folder,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if ran.returncode != 0:
        print(f"{name}: mutmut ended with {ran.returncode}\n{ran.stdout[-4000:]}")
        return False
    print(f"\n{name}: {time.monotonic() - started:.0f} s with {jobs} processes")
    enough = [report(folder, module, wanted) for module in modules]
    return all(enough)


def report(folder: Path, module: str, wanted: float) -> bool:
    """Print one module's score and its survivors."""
    every = list(mutants_of(folder, module))
    counts = Counter(each.outcome for each in every if not each.left_out)
    left_out = Counter(each.left_out for each in every if each.left_out)
    total = sum(counts.values())
    score = (counts["killed"] + counts["timeout"]) / total if total else 1.0
    parts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    parts += "".join(f"; {count} {why} left out" for why, count in sorted(left_out.items()))
    enough = score >= wanted and not counts["unchecked"]
    met = {change for each in every for change in changes(each.diff)}
    for gone in (line for where, line in EQUIVALENT if where == module and line not in met):
        print(f"{module}: listed as equivalent, but no such change is made any more: {gone}")
        enough = False
    print(f"{module}: {score:.1%} of {total} ({parts})" + ("" if enough else "  TOO LOW"))
    reasons = {line: why for (where, line), why in EQUIVALENT.items() if where == module}
    for each in every:
        if each.left_out == "equivalent":
            change = next(change for change in changes(each.diff) if change in reasons)
            print(f"  {module}:{each.line}: left out, {reasons[change]}: {change}")
    for each in every:
        if not each.left_out and each.outcome not in {"killed", "timeout"}:
            print(f"  {module}:{each.line}: {each.outcome}")
            print(textwrap.indent(each.diff, "      "))
    return enough


def chosen(arguments: list[str]) -> dict[str, list[str]]:
    """The modules to test, by room."""
    found: dict[str, list[str]] = {}
    for name, room in ROOMS.items():
        modules = [each for each in room.modules if not arguments or name in arguments or each in arguments]
        if modules:
            found[name] = modules
    known = {*ROOMS, *(each for room in ROOMS.values() for each in room.modules)}
    unknown = [each for each in arguments if each not in known]
    if unknown:
        raise SystemExit(f"no such core: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return found


def main() -> int:
    """Run; see the module's text."""
    parser = argparse.ArgumentParser(description="Mutation testing of the pure cores.")
    parser.add_argument("--at-least", type=float, help="the score each module needs; by default its room's")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rooms", action="store_true", help="name the rooms that have cores, and do nothing")
    parser.add_argument("cores", nargs="*", help="rooms or modules; by default all")
    options = parser.parse_args()
    if options.rooms:
        print(*ROOMS)
        return 0
    enough = [test(name, each, options.at_least, options.jobs) for name, each in chosen(options.cores).items()]
    return 0 if all(enough) else 1


if __name__ == "__main__":
    sys.exit(main())
