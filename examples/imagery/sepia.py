"""The pictures: making them brown, and making some to begin with."""

from __future__ import annotations

import io
import math
import random

from PIL import Image as Picture
from PIL import ImageDraw, ImageOps, UnidentifiedImageError

from resilient.errors import InvalidInput

__all__ = ["MAX_PIXELS", "sample", "sepia"]

MAX_PIXELS = 40_000_000
"""A small file may unpack to a huge picture; larger ones are refused before they are unpacked."""


def sepia(jpeg: bytes) -> bytes:
    """The same picture in sepia, as JPEG. The same bytes in give the same bytes out.

    Raises:
        InvalidInput: These bytes are no JPEG, or too large a one.
    """
    try:
        with Picture.open(io.BytesIO(jpeg), formats=["JPEG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InvalidInput(f"the picture has more than {MAX_PIXELS:,} pixels")
            upright = ImageOps.exif_transpose(picture).convert("L")
    except (UnidentifiedImageError, OSError, SyntaxError, Picture.DecompressionBombError) as error:
        raise InvalidInput("this is no JPEG that can be read") from error
    brown = ImageOps.colorize(upright, black="#20130a", mid="#8f6b45", white="#fff3dc")
    out = io.BytesIO()
    brown.save(out, "JPEG", quality=85)
    return out.getvalue()


def sample(seed: int, width: int = 320, height: int = 200) -> bytes:
    """A JPEG that looks like something: hills before an evening sky. Each seed gives another one."""
    dice = random.Random(seed)
    picture = Picture.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    top, low = [dice.randrange(30, 120) for _ in range(3)], [dice.randrange(170, 255) for _ in range(3)]
    for y in range(height):
        share = y / height
        draw.line([(0, y), (width, y)], fill=tuple(round(a + (b - a) * share) for a, b in zip(top, low, strict=True)))
    x, y, r = dice.randrange(width), dice.randrange(height // 2), height // 9
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 236, 190))
    for hill in range(3):
        base, wave, phase = height * (0.55 + 0.13 * hill), dice.uniform(0.01, 0.03), dice.uniform(0, 6)
        ridge = [(i, base + height * 0.09 * math.sin(i * wave + phase)) for i in range(0, width + 4, 4)]
        shade = tuple(channel // (hill + 2) for channel in low)
        draw.polygon([*ridge, (width, height), (0, height)], fill=shade)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()
