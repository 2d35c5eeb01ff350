"""Values to bytes and back: form, compression and seal of one type's values, as a cache was told."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

from resilient.cache._codecs._forms import Form, JsonForm, OwnForm, PickleForm, SafeForm, ValueCodec
from resilient.cache._codecs._numbers import ABSENCE, SIGNED, ZLIB, ZSTD
from resilient.cache._codecs._seal import ENTRY, Seal, keys_of
from resilient.cache._codecs._shrink import check_method, grow, shrink
from resilient.cache._codecs._types import ANYTHING, shape
from resilient.cache._entry import Unreadable, heading
from resilient.errors import ConfigurationError, InvalidInput

__all__ = ["Codec", "CodecChoice", "Codecs", "Secret", "Settings"]

CodecChoice: TypeAlias = Literal["safe", "json", "orjson", "pickle"] | ValueCodec
Secret: TypeAlias = str | bytes | Sequence[str | bytes] | None

_NAMES = ("safe", "json", "orjson", "pickle")
_BARE = 31  # the bits of a number that name the form


class Settings:
    """How a cache writes its values.

    Args:
        codec: ``safe`` (msgpack; nothing that is read can execute anything), ``json`` or ``orjson`` (plain JSON, for
            readers that are not this library), ``pickle`` (anything; needs ``secret``), or a `ValueCodec`.
        compress: ``zlib``, ``zstd`` or nothing. Entries are read whatever was chosen when they were written.
        compress_over: Bytes; a shorter body is left as it is.
        secret: Signs entries with HMAC-SHA256, so that whoever can write to the server cannot make entries. Of several
            the first signs and all verify, so that a secret can be changed while entries of the old one live.
        purpose: What is written: a signature is good for nothing that is written for another purpose.

    Raises:
        ConfigurationError: There is no such codec or method, or pickle has no secret.
        MissingExtra: The codec or the method needs a library that is not installed.
    """

    __slots__ = ("codec", "method", "over", "seal")

    def __init__(
        self,
        codec: CodecChoice = "safe",
        *,
        compress: Literal["zlib", "zstd"] | None = None,
        compress_over: int = 1024,
        secret: Secret = None,
        purpose: str = ENTRY,
    ) -> None:
        if isinstance(codec, str):
            if codec not in _NAMES:
                raise ConfigurationError(f"codec is one of {', '.join(_NAMES)} or a codec of yours, not {codec!r}")
        elif not (
            isinstance(getattr(codec, "name", None), str)
            and callable(getattr(codec, "encode", None))
            and callable(getattr(codec, "decode", None))
        ):
            raise ConfigurationError(
                f"a {type(codec).__name__} is no codec",
                advice=f"give one of {', '.join(_NAMES)}, or an object with a name, encode(value) and decode(raw)",
            )
        if codec == "pickle" and not secret:
            raise ConfigurationError(
                "pickle runs whatever it reads, so that its entries must be signed",
                advice="pass secret='...', the same in every process, or stay with codec='safe'",
            )
        if compress_over < 0:
            raise ConfigurationError(f"compress_over is a number of bytes, not {compress_over!r}")
        self.codec = codec
        self.method = check_method(compress)
        self.over = compress_over
        self.seal = Seal(keys_of(secret, purpose))
        self.form(ANYTHING)  # finds a missing library here, not at the first store

    def form(self, kind: Any) -> Form:
        """The form for values of a type."""
        if self.codec == "safe":
            return SafeForm(kind)
        if self.codec == "pickle":
            return PickleForm()
        if isinstance(self.codec, str):
            return JsonForm(fast=self.codec == "orjson")
        return OwnForm(self.codec)

    @property
    def name(self) -> str:
        """What tells entries of a codec of the user's from those of another; empty for the built-in ones."""
        return "" if isinstance(self.codec, str) else self.codec.name


_DEFAULT = Settings()


class Codec:
    """Writes and reads the values of one type.

    Args:
        kind: The type; `ANYTHING` where none is known.
        version: A number of the user's, changed when entries written so far must not be read any more.
        settings: How the cache writes its values.

    Raises:
        ConfigurationError: The fields of the type cannot be found out.

    Examples:
        >>> codec = Codec(ANYTHING)
        >>> number, body = codec.encode({1: ("a", {2})})
        >>> codec.decode(number, codec.schema, body)
        {1: ('a', {2})}
    """

    __slots__ = ("_keyed", "_method", "_over", "_read", "_seal", "_write", "head", "quick", "schema", "usual")

    def __init__(self, kind: Any = ANYTHING, version: int = 0, settings: Settings = _DEFAULT) -> None:
        text = "" if kind is ANYTHING else shape(kind)
        text = f"{text}:{settings.name}" if settings.name else text
        self.schema = zlib.crc32(f"{version}:{text}".encode()) if text or version else 0
        form = settings.form(kind)
        self._write = form.write
        self._read = form.read
        self._seal = settings.seal
        self._keyed = SIGNED if settings.seal.keys else 0
        # What nearly every hit is: neither signed nor compressed, and written by a codec like this one.
        self.usual, self.quick = form.usual
        if self._keyed:
            self.usual = -1
        self.head = heading(self.usual, self.schema) if self.usual >= 0 else b""
        """How an entry begins that was written by a codec like this one."""
        self._method = settings.method
        self._over = settings.over

    def encode(self, value: Any) -> tuple[int, bytes]:
        """The number of the codec and the body.

        Raises:
            InvalidInput: The value holds something that could not be brought back.
        """
        try:
            number, data = self._write(value)
        except InvalidInput:
            raise
        except Exception as error:
            # Whatever a part of a value raises when it is looked at, this is what it means to the caller.
            raise InvalidInput(
                f"a {type(value).__qualname__} cannot be cached: writing it raised {type(error).__name__}",
                advice="return a dataclass, a msgspec.Struct or plain values, and annotate the function with that type",
            ) from error
        if self._method and len(data) > self._over:
            bit, data = shrink(data, self._method)
            number |= bit
        number |= self._keyed
        return number, self._seal.close(number, data)

    def absence(self, message: str) -> tuple[int, bytes]:
        """The body of an entry that says "there is no such thing"."""
        return ABSENCE, self._seal.close(ABSENCE, message.encode(errors="replace"))

    def decode(self, number: int, schema: int, body: bytes) -> Any:
        """The value of an entry.

        Raises:
            Unreadable: The bytes are broken, or were written for another type.
        """
        if schema and self.schema and schema != self.schema:
            raise Unreadable("other schema")
        if number != self.usual:
            return self._unusual(number, body)
        data = body[4:]  # as Seal.open does: this is the way of every hit
        if zlib.crc32(data, number) != int.from_bytes(body[:4], "big"):
            raise Unreadable("bad checksum")
        try:
            return self.quick(data)
        except Exception as error:
            # Broken bytes may raise anything inside a constructor of the user's; whatever it is, they are unreadable.
            raise Unreadable("bad bytes") from error

    def again(self, number: int, raw: bytes, at: int) -> tuple[Callable[[bytes], Any], bytes, int]:
        """How the value of a body that was read before is read once more, without its seal: by what, where, from where.

        Args:
            number: Its codec.
            raw: Bytes that hold it.
            at: Where in them it begins.

        Raises:
            Unreadable: The bytes are broken.
        """
        if number == self.usual:
            return self.quick, raw, at + 4
        data = self._seal.open(number, raw[at:])
        method = number & (ZLIB | ZSTD)
        return partial(self._read, number & _BARE), grow(data, method) if method else data, 0

    def measure(self, number: int, body: bytes) -> int:
        """How many bytes a body has without its seal and decompressed; nothing of it is decoded.

        Raises:
            Unreadable: It is damaged, was signed with another secret or not at all, or cannot be decompressed.
        """
        data = self._seal.open(number, body)
        if number != ABSENCE and number & SIGNED != self._keyed:
            raise Unreadable("signed" if number & SIGNED else "not signed")
        method = number & (ZLIB | ZSTD)
        return len(grow(data, method) if method else data)

    def _unusual(self, number: int, body: bytes) -> Any:
        """A message, what is compressed or signed, and what was written otherwise than here."""
        data = self._seal.open(number, body)
        try:
            if number == ABSENCE:
                return data.decode()
            if number & SIGNED != self._keyed:
                raise Unreadable("signed" if number & SIGNED else "not signed")
            method = number & (ZLIB | ZSTD)
            return self._read(number & _BARE, grow(data, method) if method else data)
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable("bad bytes") from error  # as above


class Codecs:
    """The codecs of one cache, each made once.

    Args:
        settings: How the cache writes its values.

    Examples:
        >>> codecs = Codecs(Settings("json"))
        >>> codecs(int) is codecs(int)
        True
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[Any, Codec] = {}

    def __call__(self, kind: Any = ANYTHING, version: int = 0) -> Codec:
        """How values of a type become bytes here."""
        try:
            return self._made[kind, version]
        except KeyError:
            return self._made.setdefault((kind, version), Codec(kind, version, self._settings))
        except TypeError:  # a type that cannot be hashed, such as Annotated with a list
            return Codec(kind, version, self._settings)
