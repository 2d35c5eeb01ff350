"""What a database's error means: MariaDB's and MySQL's numbers, PostgreSQL's SQLSTATEs, SQLite's result codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from resilient.errors import ConfigurationError
from resilient.policy import Failure, Verdict

__all__ = ["classify", "needs_table"]

_MYSQL: dict[int, tuple[Failure, bool]] = {
    **dict.fromkeys((2002, 2003, 2005, 1129), (Failure.UNAVAILABLE, True)),
    **dict.fromkeys((2006, 2013, 2055, 1053, 1927), (Failure.UNAVAILABLE, False)),
    **dict.fromkeys((1040, 1203), (Failure.THROTTLED, True)),
    **dict.fromkeys((1290, 1792, 1836), (Failure.READ_ONLY, True)),
    1205: (Failure.TRANSIENT, True),
    **dict.fromkeys((1969, 3024), (Failure.TIMEOUT, True)),
    **dict.fromkeys((1020, 1062, 1169, 1213, 1586), (Failure.CONFLICT, True)),
    **dict.fromkeys((1044, 1045, 1142, 1143, 1227, 1698), (Failure.AUTH, True)),
    **dict.fromkeys((1048, 1054, 1064, 1146, 1264, 1292, 1364, 1366, 1406, 1451, 1452, 4025), (Failure.INVALID, True)),
}

_SQLSTATE: dict[str, tuple[Failure, bool]] = {
    **dict.fromkeys(("08001", "08004", "57P03"), (Failure.UNAVAILABLE, True)),
    **dict.fromkeys(("08", "57P01", "57P02"), (Failure.UNAVAILABLE, False)),
    **dict.fromkeys(("53300", "53400"), (Failure.THROTTLED, True)),
    "25006": (Failure.READ_ONLY, True),
    "55P03": (Failure.TRANSIENT, True),
    "57014": (Failure.TIMEOUT, True),
    **dict.fromkeys(("23505", "40001", "40P01"), (Failure.CONFLICT, True)),
    **dict.fromkeys(("28", "42501"), (Failure.AUTH, True)),
    **dict.fromkeys(("22", "23", "42"), (Failure.INVALID, True)),
}

_SQLITE: dict[int, tuple[Failure, bool]] = {
    **dict.fromkeys((5, 6), (Failure.TRANSIENT, True)),
    8: (Failure.READ_ONLY, True),
    9: (Failure.TIMEOUT, True),
    14: (Failure.UNAVAILABLE, True),
    **dict.fromkeys((1555, 2067, 2579), (Failure.CONFLICT, True)),
    19: (Failure.INVALID, True),
}


def classify(error: BaseException) -> Verdict | None:
    """What a database's error means, for `resilient.policy`.

    MariaDB and MySQL are told by their error numbers, PostgreSQL by its SQLSTATE, SQLite by its result code.

    Args:
        error: An error of SQLAlchemy or of a driver.

    Returns:
        The verdict, or ``None`` where the error is none of a database's.
    """
    if isinstance(error, exc.TimeoutError):
        return Verdict(Failure.THROTTLED, no_effect=True)
    original = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    found: tuple[Failure, bool] | None = None
    if type(original).__module__.split(".")[0] in {"pymysql", "MySQLdb", "aiomysql", "asyncmy"}:
        found = _mysql(original)  # its SQLSTATEs say less than its numbers
    elif type(original).__module__.split(".")[0] == "psycopg" and getattr(original, "sqlstate", None) is None:
        found = _psycopg(original)
    elif isinstance(state := getattr(original, "sqlstate", None) or getattr(original, "pgcode", None), str):
        found = _SQLSTATE.get(state) or _SQLSTATE.get(state[:2])
    elif isinstance(code := getattr(original, "sqlite_errorcode", None), int):
        found = _SQLITE.get(code) or _SQLITE.get(code & 0xFF)
    return None if found is None else Verdict(found[0], no_effect=found[1])


def _mysql(error: BaseException) -> tuple[Failure, bool] | None:
    number = error.args[0] if error.args else None
    if not isinstance(number, int):
        # PyMySQL's InterfaceError(0, '') means a connection that is closed on our side.
        return (Failure.UNAVAILABLE, False) if type(error).__name__ == "InterfaceError" else None
    if number == 0 and type(error).__name__ == "InterfaceError":
        return Failure.UNAVAILABLE, False
    text = str(error.args[1]) if len(error.args) > 1 else ""
    if number == 1290 and "read" not in text.lower():  # the number is shared by every option that forbids a statement
        return Failure.INVALID, True
    if number in {2003, 2013} and "timed out" in text:
        return Failure.TIMEOUT, number == 2003
    return _MYSQL.get(number)


# What a server that refuses a connection says in English, for psycopg hands on no SQLSTATE of it.
_REFUSED_CONNECTION = (
    (("authentication failed", "no pg_hba.conf entry", "no password supplied"), Failure.AUTH),
    (("too many clients", "connection slots are reserved", "too many connections"), Failure.THROTTLED),
    (('" does not exist',), Failure.INVALID),
)


def _psycopg(error: BaseException) -> tuple[Failure, bool] | None:
    """Errors that libpq raised by itself: no server gave them a state."""
    kind, text = type(error).__name__, str(error)
    if kind == "ConnectionTimeout":
        return Failure.TIMEOUT, True
    if kind not in {"OperationalError", "InterfaceError"}:
        return None
    if text.startswith("timed out:"):
        return Failure.TIMEOUT, False
    if not text.startswith(("connection failed", "connection is bad", "connection to server", "Multiple connection")):
        return (Failure.UNAVAILABLE, False) if kind == "OperationalError" or "closed" in text else None
    for phrases, failure in _REFUSED_CONNECTION:
        if any(phrase in text for phrase in phrases):
            return failure, True
    return Failure.UNAVAILABLE, True


@contextmanager
def needs_table(name: str) -> Iterator[None]:
    """Within the block a table of this library is used: where the database has none, say how it is made.

    Args:
        name: The table.

    Raises:
        ConfigurationError: There is no such table.
    """
    try:
        yield
    except exc.DBAPIError as error:
        if name not in str(error.orig) or not _lacks_table(error.orig):
            raise
        raise ConfigurationError(
            f"the database has no table {name}", advice="make it once, with resilient.queue.create_tables(engine)"
        ) from error


def _lacks_table(error: BaseException | None) -> bool:
    if "no such table" in str(error):  # SQLite has no code of its own for it
        return True
    number = error.args[0] if error is not None and error.args else None
    return number == 1146 or getattr(error, "sqlstate", None) == "42P01"
