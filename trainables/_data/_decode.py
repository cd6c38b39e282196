"""Any readable image file -> uint8 [C, H, W], square; everything else -> a named problem.

The order is fixed, because a bundle promises it to a device: EXIF rotation, transparency
composited on white, grey or RGB, the largest centred square, antialiased bicubic to the size.
Bytes are not trusted: Pillow may only use the formats listed here, and sizes are looked at
before pixels are.
"""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from trainables._data.dataset import Bytes, DataError

# the file endings taken for images, and the readers Pillow may use on them
_LOSSLESS = (".png", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif")
SUFFIXES = frozenset((*_LOSSLESS, *_LOSSY))
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "MPO")
MAX_PIXELS = 89_478_485  # Pillow's own line between large and suspicious
ORIENTATION = 0x0112  # EXIF tag
GREY_MODES = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"))
COLOUR_MODES = frozenset(("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"))

CORRUPT = "corrupt image"
OVERSIZE = f"image of more than {MAX_PIXELS // 1_000_000} million pixels"
UNSUPPORTED = "unsupported pixel format"

# what Pillow's readers raise on broken bytes; UnidentifiedImageError is an OSError
BROKEN: tuple[type[Exception], ...] = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError),
    *(KeyError, TypeError, OverflowError, ZeroDivisionError, RuntimeError, MemoryError),
)


class ImageProblemError(Exception):
    """One file is no usable image; the reason is one a report can count."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Decoded:
    """One image and what it was before.

    Attributes:
        pixels: uint8 [C, H, W].
        native_channels: 1 or 3, as the file had it.
        original_size: width, height.
    """

    pixels: Bytes
    native_channels: int
    original_size: tuple[int, int]


def decode_image(source: Path | bytes, size: int, channels: int) -> Bytes:
    """One image as every source here would store it.

    Args:
        source: a path, or the file's bytes.
        size: side of the square result, pixels.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        uint8 [C, H, W] with H = W = size.

    Raises:
        DataError: the file is missing, or no image that can be read.
    """
    where = "The image" if isinstance(source, bytes) else f"The image {source}"
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}.") from error
    try:
        with quiet_pillow():
            return decode(data, size, channels).pixels
    except ImageProblemError as problem:
        raise DataError(
            f"{where} cannot be used ({problem.reason}): a readable PNG, JPEG, WebP, GIF, BMP or "
            "TIFF file is needed."
        ) from problem


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow's warnings become silence, except the one on decompression bombs: an error.

    The filters are the process's: enter this once around a pool of threads, not inside it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(data: bytes, size: int, channels: int) -> Decoded:
    """Decode bytes; inside ``quiet_pillow``.

    Raises:
        ImageProblemError: the bytes are no usable image.
    """
    try:
        with _open(data) as image:
            original = image.size
            native = native_channels(image)
            if image.format in ("JPEG", "MPO"):
                # decode at 1/2, 1/4 or 1/8 where that is still twice what is needed
                image.draft(None, (2 * size, 2 * size))
            square = _square(_convert(_upright(image), channels), size)
            pixels = np.asarray(square, dtype=np.uint8)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageProblemError(OVERSIZE) from error
    except BROKEN as error:
        raise ImageProblemError(CORRUPT) from error
    chw = pixels[None] if channels == 1 else np.moveaxis(pixels, -1, 0)
    return Decoded(np.ascontiguousarray(chw), native, original)


def probe_channels(data: bytes) -> int | None:
    """1 or 3 from a file's header, None where it is no usable image; inside ``quiet_pillow``."""
    try:
        with _open(data) as image:
            return native_channels(image)
    except (ImageProblemError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    except BROKEN:
        return None


def native_channels(image: Image.Image) -> int:
    """1 for a grey mode, 3 for a colour one."""
    if image.mode in GREY_MODES:
        return 1
    if image.mode in COLOUR_MODES:
        return 3
    raise ImageProblemError(UNSUPPORTED)


def _open(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ImageProblemError(OVERSIZE)
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says; broken EXIF says nothing."""
    try:
        turned = image.getexif().get(ORIENTATION, 1) != 1
    except BROKEN:
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _convert(image: Image.Image, channels: int) -> Image.Image:
    """To L or RGB, transparency on white."""
    target = "L" if channels == 1 else "RGB"
    if image.mode.startswith("I"):
        return _eight_bits(image).convert(target)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, seen).convert(target)
    if image.mode in ("L", "RGB", "1"):
        return image.convert(target)
    return image.convert("RGB").convert(target)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey (also where Pillow keeps it in 32 bits) to 8 bits, by its upper byte."""
    levels = np.clip(np.asarray(image, dtype=np.int64), 0, 65535) >> 8
    return Image.fromarray(levels.astype(np.uint8))


def _square(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square, resized; cut first, so that a 1 x 60000 strip stays cheap."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    if image.size == (size, size):
        return image
    return image.resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
