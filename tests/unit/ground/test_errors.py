"""The tree of errors: what they say, and that they travel."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from resilient import errors

EVERY = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ResilientError)]


def make(kind: type[errors.ResilientError]) -> errors.ResilientError:
    if kind is errors.MissingExtra:
        return errors.MissingExtra("redis", "redis")
    return kind("the cache did not answer", advice="look at its load", retry_after=2.5)


@pytest.mark.parametrize("kind", EVERY)
def test_pickling_keeps_everything_but_the_cause(kind: type[errors.ResilientError]) -> None:
    """An error that crosses a process keeps its type, message, advice and fields, and the name of its cause."""
    error = make(kind)
    error.__cause__ = ConnectionResetError("10.0.0.7 said no to password hunter2")
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert (twin.advice, twin.retry_after) == (error.advice, error.retry_after)
    assert twin.caused_by == "builtins.ConnectionResetError"
    assert b"hunter2" not in pickle.dumps(error)
    assert pickle.loads(pickle.dumps(twin)).caused_by == "builtins.ConnectionResetError"


@pytest.mark.parametrize("kind", EVERY)
def test_a_copy_keeps_the_cause(kind: type[errors.ResilientError]) -> None:
    """A copy within the process has the live cause as well."""
    error = make(kind)
    error.__cause__ = KeyError("x")
    twin = copy.copy(error)
    assert (type(twin), str(twin), twin.__cause__) == (kind, str(error), error.__cause__)


def test_a_subclass_with_its_own_arguments_travels() -> None:
    """A subclass may take any arguments: its __init__ is not run again on unpickling."""
    error = errors.MissingExtra("mysql", "pymysql")
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.extra, twin.module) == ("mysql", "pymysql")
    assert "pip install 'resilient-patterns[mysql]'" in str(twin)


def test_the_message_says_what_to_do() -> None:
    """The text is the message followed by the advice, and the message alone where there is none."""
    assert str(errors.Unavailable("no answer", advice="wait")) == "no answer; wait"
    assert str(errors.Unavailable("no answer")) == "no answer"
    assert errors.Unavailable("no answer", advice="wait").message == "no answer"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ConfigurationError, ValueError),
        (errors.MissingExtra, ImportError),
        (errors.InvalidInput, ValueError),
        (errors.NotFound, LookupError),
        (errors.DeadlineExceeded, TimeoutError),
        (errors.CircuitOpen, errors.Unavailable),
        (errors.Overloaded, errors.Unavailable),
    ],
)
def test_existing_handlers_catch_them(kind: type[errors.ResilientError], builtin: type[Exception]) -> None:
    """Code that catches the builtin exceptions of the same meaning catches ours."""
    with pytest.raises(builtin):
        raise make(kind)


def test_the_tree_is_drawn_whole() -> None:
    """The drawing at the head of the module names every error, and nothing that does not exist."""
    drawing = (errors.__doc__ or "").split("```text\n")[1].split("\n```")[0]
    drawn = {line.split("── ")[-1].split()[0] for line in drawing.splitlines()}
    assert drawn == {kind.__name__ for kind in EVERY} == set(errors.__all__) - {"needs_extra"}
