"""The forms a body may have: safe (msgpack), JSON, signed pickle, and that of a codec of the user's."""

from __future__ import annotations

import pickle
import typing
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from resilient.cache._codecs._exact import Exact
from resilient.cache._codecs._numbers import EXACT, JSON, OWN, PICKLE, TAGGED, TYPED
from resilient.cache._codecs._plain import is_plain, is_plain_json
from resilient.cache._codecs._same import same
from resilient.cache._codecs._types import ANYTHING, is_loose, is_native, is_open
from resilient.cache._entry import Unreadable
from resilient.errors import InvalidInput, needs_extra

__all__ = ["Form", "JsonForm", "OwnForm", "PickleForm", "SafeForm", "ValueCodec"]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class ValueCodec(Protocol):
    """A codec of your own, for ``Cache(codec=...)``.

    ``name`` is kept in entries: change it when entries written so far must not be read any more. Whatever ``decode``
    raises makes the entry a miss.
    """

    name: str

    def encode(self, value: Any) -> bytes:
        """The bytes of a value."""
        ...

    def decode(self, raw: bytes) -> Any:
        """The value of such bytes."""
        ...


class Form(Protocol):
    """How values of one type become bytes."""

    @property
    def usual(self) -> tuple[int, Callable[[Any], Any]]:
        """The number that most values get, and what reads these."""
        ...

    def write(self, value: Any) -> tuple[int, bytes]:
        """The form's number and the bytes. Raises InvalidInput where the value could not be brought back."""
        ...

    def read(self, number: int, data: bytes) -> Any:
        """The value. Raises whatever broken bytes lead to."""
        ...


class SafeForm:
    """msgpack: typed where msgspec reads the type alone and brings the value back as it was, exact elsewhere."""

    __slots__ = ("_decode", "_exact", "_kind", "_proved", "_same")

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._exact = Exact(kind)
        self._proved = False
        self._decode: Callable[[Any], Any] | None = None
        self._same: Callable[[Any, Any], bool] = same
        if kind is ANYTHING or is_open(kind) or not is_native(kind):
            return
        try:
            self._decode = msgspec.msgpack.Decoder(typing.Optional[kind]).decode  # noqa: UP045 - kind may be any form
        except (TypeError, RuntimeError):
            return  # msgspec does not tell the members of this union apart; the exact form does
        if not is_loose(kind):
            self._same = _equal

    def write(self, value: Any) -> tuple[int, bytes]:
        """As `Form.write`."""
        if self._decode is not None:
            data = self._typed(value)
            if data is not None:
                return TYPED, data
        elif is_plain(value):
            try:
                return (TAGGED if self._kind is ANYTHING else EXACT), _encode(value)
            except (OverflowError, UnicodeEncodeError):
                pass  # a number of more than 64 bits, or half a surrogate pair: the exact form marks them
        used, data = self._exact.write(value)
        if used and not self._proved:
            self._exact.read(data)  # once: a class whose objects cannot be put together is found at the first store
            self._proved = True
        return (TAGGED if self._kind is ANYTHING else EXACT), data

    @property
    def usual(self) -> tuple[int, Callable[[Any], Any]]:
        """As `Form.usual`."""
        if self._decode is not None:
            return TYPED, self._decode
        return (TAGGED if self._kind is ANYTHING else EXACT), self._exact.read

    def _typed(self, value: Any) -> bytes | None:
        assert self._decode is not None  # noqa: S101 - asked by the caller
        try:
            data = _encode(value)
            return data if self._same(self._decode(data), value) else None
        except Exception:  # noqa: BLE001 - a hook of the user's class may raise anything; then it is written exactly
            return None

    def read(self, number: int, data: bytes) -> Any:
        """As `Form.read`."""
        if number == EXACT:
            return self._exact.read(data)
        if number == TAGGED:
            value = self._exact.read(data)
            return value if self._kind is ANYTHING or value is None else msgspec.convert(value, self._kind)
        if number == TYPED:
            if self._decode is not None:
                return self._decode(data)
            if self._kind is ANYTHING:
                return _decode(data)  # its fields, without the class
        raise Unreadable("other codec")


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other)


class JsonForm:
    """JSON, for readers that are not this library: text, numbers, true, false, null, lists and dicts of text."""

    __slots__ = ("_dumps", "_loads")

    def __init__(self, *, fast: bool) -> None:
        self._dumps: Callable[[Any], bytes] = msgspec.json.Encoder().encode
        self._loads: Callable[[bytes], Any] = msgspec.json.Decoder().decode
        if fast:
            with needs_extra("orjson"):
                import orjson
            self._dumps, self._loads = orjson.dumps, orjson.loads

    def write(self, value: Any) -> tuple[int, bytes]:
        """As `Form.write`."""
        if not is_plain_json(value):
            raise InvalidInput(
                "this value cannot be cached as JSON: it holds something that JSON would change",
                advice="make the cache with codec='safe', which keeps tuples, sets, dates, numbers as keys and classes",
            )
        return JSON, self._dumps(value)

    @property
    def usual(self) -> tuple[int, Callable[[Any], Any]]:
        """As `Form.usual`."""
        return JSON, self._loads

    def read(self, number: int, data: bytes) -> Any:
        """As `Form.read`."""
        if number != JSON:
            raise Unreadable("other codec")
        return self._loads(data)


class PickleForm:
    """pickle. Only ever read after its signature was verified."""

    __slots__ = ()

    def write(self, value: Any) -> tuple[int, bytes]:
        """As `Form.write`."""
        try:
            return PICKLE, pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise InvalidInput(
                f"a {type(value).__qualname__} cannot be cached: pickle does not take it ({type(error).__name__})"
            ) from error

    @property
    def usual(self) -> tuple[int, Callable[[Any], Any]]:
        """As `Form.usual`; what is signed is read by `read`."""
        return PICKLE, _never

    def read(self, number: int, data: bytes) -> Any:
        """As `Form.read`."""
        if number != PICKLE:
            raise Unreadable("other codec")
        return pickle.loads(data)  # noqa: S301 - chosen by name, and signed with the user's secret


def _never(_: Any) -> Any:
    raise Unreadable("not signed")


class OwnForm:
    """A codec of the user's."""

    __slots__ = ("_codec",)

    def __init__(self, codec: ValueCodec) -> None:
        self._codec = codec

    def write(self, value: Any) -> tuple[int, bytes]:
        """As `Form.write`."""
        try:
            data = self._codec.encode(value)
        except Exception as error:
            raise InvalidInput(
                f"a {type(value).__qualname__} cannot be cached: "
                f"the codec {self._codec.name!r} raised {type(error).__name__}"
            ) from error
        if not isinstance(data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # users' code
            raise InvalidInput(f"the codec {self._codec.name!r} gave a {type(data).__qualname__}, not bytes")
        return OWN, data

    @property
    def usual(self) -> tuple[int, Callable[[Any], Any]]:
        """As `Form.usual`."""
        return OWN, self._codec.decode

    def read(self, number: int, data: bytes) -> Any:
        """As `Form.read`."""
        if number != OWN:
            raise Unreadable("other codec")
        return self._codec.decode(data)
