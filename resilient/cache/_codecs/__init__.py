"""Values to bytes and back, safely: nothing that is read can execute anything.

The safe codec writes msgpack in two forms. The *typed* one is read by msgspec as the type that a function says it
returns. The *exact* one marks what msgpack alone would flatten (a tuple, a set, a Decimal), and holds objects of the
classes that the type names; it serves where no type is known, and where msgspec would bring back something else. A
value that neither brings back as it was is refused.

A body is sealed with a checksum, or with a signature where there is a secret; it may be compressed. What does not fit
is `Unreadable`, which is a miss.
"""

from resilient.cache._codecs._codec import Codec, CodecChoice, Codecs, Secret, Settings
from resilient.cache._codecs._forms import ValueCodec
from resilient.cache._codecs._numbers import (
    ABSENCE,
    EXACT,
    JSON,
    OWN,
    PICKLE,
    SIGNED,
    TAGGED,
    TYPED,
    ZLIB,
    ZSTD,
    describe,
)
from resilient.cache._codecs._types import ANYTHING

__all__ = [
    "ABSENCE",
    "ANYTHING",
    "EXACT",
    "JSON",
    "OWN",
    "PICKLE",
    "SIGNED",
    "TAGGED",
    "TYPED",
    "ZLIB",
    "ZSTD",
    "Codec",
    "CodecChoice",
    "Codecs",
    "Secret",
    "Settings",
    "ValueCodec",
    "describe",
]
