"""Image bytes from anywhere -> upright pixels, or a named fault. Nothing here trusts its input."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from pipelines.stages.base import Bad

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "QOI", "SGI", "PCX")
"""What is opened. Formats that Pillow renders by running another program (EPS, WMF) are left out on purpose."""

PILLOW_MAX_PIXELS = 178_956_970
"""Over this Pillow refuses to open an image itself, so no configured limit may be higher."""

_REDUCING_GAP = 2.0
"""Decode and box-reduce to no less than twice the target, then Lanczos: not told apart from Lanczos alone."""

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DECODER_FAULTS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on hostile bytes."""


class Fault(Exception):
    """Why a sample is quarantined, on its way up to the stage."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.bad = Bad(reason, message)


@dataclass(frozen=True)
class Limits:
    """What is refused from the header alone.

    Attributes:
        max_pixels: width x height of the largest image that is decoded.
        min_size: smallest side in pixels that is worth scaling.
        max_aspect: most that the longer side may be of the shorter; None for any.
    """

    max_pixels: int
    min_size: int
    max_aspect: float | None = None


@dataclass(frozen=True)
class Upright:
    """A decoded image after EXIF orientation, in 8-bit ``L``, ``RGB`` or ``RGBA``.

    Attributes:
        image: the pixels, maybe decoded at a fraction of the full size.
        scale: that fraction.
        width, height: of the full-size upright image.
        mode, format: Pillow's names for what the file holds.
        orientation: EXIF orientation that was applied (1 is none).
        animated: whether the file has further frames (the first is taken).
    """

    image: Image.Image
    scale: float
    width: int
    height: int
    mode: str
    format: str
    orientation: int
    animated: bool

    def square(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the largest centred square, in full-size pixels."""
        side = min(self.width, self.height)
        left, top = (self.width - side) // 2, (self.height - side) // 2
        return left, top, left + side, top + side

    def resized(self, box: tuple[int, int, int, int], size: int, resample: Image.Resampling) -> Image.Image:
        """``box`` (in full-size pixels) at ``size`` x ``size``."""
        left, top, right, bottom = (edge * self.scale for edge in box)
        return self.image.resize((size, size), resample, (left, top, right, bottom), _REDUCING_GAP)


def open_upright(data: bytes, what: str, limits: Limits, target: int | None) -> Upright:
    """Decode ``data`` and turn it upright.

    Args:
        data: the file's bytes.
        what: names it in messages (``the image``, ``the mask``).
        limits: checked before any pixel is decoded.
        target: pixel side it will be scaled to, and JPEGs are decoded at the smallest size that allows it; None for
            the full size.

    Raises:
        Fault: ``empty``, ``not_an_image``, ``bomb``, ``too_small``, ``too_narrow``, ``truncated``, ``corrupt``,
            ``unsupported_mode``.
    """
    if not data:
        raise Fault("empty", f"{what} has zero bytes; it should be an image file")
    with _decoding(data, what), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check(image, what, limits)
        return _upright(image, target)


def _upright(image: ImageFile.ImageFile, target: int | None) -> Upright:
    width, height = image.size
    mode, kind = image.mode, str(image.format)
    animated = kind != "MPO" and bool(getattr(image, "is_animated", False))  # MPO: a photo and its own preview
    orientation = int(image.getexif().get(_ORIENTATION_TAG, 1))
    scale = 1.0 if target is None else _drafted(image, target)
    image.load()
    pixels = plain(image)
    if orientation in _UPRIGHT:
        pixels = pixels.transpose(_UPRIGHT[orientation])
        width, height = (height, width) if orientation >= 5 else (width, height)
    return Upright(pixels, scale, width, height, mode, kind, orientation, animated)


def _drafted(image: ImageFile.ImageFile, target: int) -> float:
    """Have a JPEG decoded smaller, and say at which fraction of its size."""
    width, height = image.size
    enough = _REDUCING_GAP * target / min(width, height)
    drafted = image.draft(None, (round(width * enough), round(height * enough)))
    return drafted[1][2] / width if drafted else 1.0


def plain(image: Image.Image) -> Image.Image:
    """The same picture as 8-bit ``L``, ``RGB`` or ``RGBA``: palettes expanded, CMYK converted, 16 bits scaled to 8.

    Raises:
        Fault: ``unsupported_mode``.
    """
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        return image.convert("RGB")
    raise _unsupported(image.mode)


def on_white(image: Image.Image) -> Image.Image:
    """``RGB`` of what :func:`plain` returns; transparent parts show white."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """The high byte, as Pillow itself does for 16-bit colour PNGs."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise _unsupported(f"{image.mode} (32-bit values from {values.min()} to {values.max()})")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _unsupported(mode: str) -> Fault:
    return Fault(
        "unsupported_mode",
        f"its pixel mode is {mode}; grey and colour of 8 or 16 bits, palettes and CMYK are read, with or without alpha",
    )


def _check(image: Image.Image, what: str, limits: Limits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise Fault("bomb", f"{what} is {width} x {height} = {width * height:,} pixels; at most {limits.max_pixels:,}")
    if min(width, height) < limits.min_size:
        raise Fault("too_small", f"{what} is {width} x {height}; its smaller side must be at least {limits.min_size}")
    aspect = max(width, height) / min(width, height)
    if limits.max_aspect is not None and aspect > limits.max_aspect:
        raise Fault(
            "too_narrow",
            f"{what} is {width} x {height}: its longer side is {aspect:.4g} times the shorter; at most "
            f"{limits.max_aspect:g} (stages.ingest.max_aspect) is kept",
        )


@contextlib.contextmanager
def _decoding(data: bytes, what: str) -> Iterator[None]:
    """Name what a decoder complains about."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise Fault("bomb", f"{what}: {error}") from error
    except UnidentifiedImageError as error:
        raise _unknown(data, what) from error
    except _DECODER_FAULTS as error:
        reason = "truncated" if _cut_short(data, str(error)) else "corrupt"
        raise Fault(
            reason, f"{what} ({len(data):,} bytes) cannot be decoded whole: {error}; get the file anew"
        ) from error


def _unknown(data: bytes, what: str) -> Fault:
    if data.startswith(_SIGNATURES):
        return Fault("corrupt", f"{what} ({len(data):,} bytes) starts like an image, but its header is damaged or cut")
    return Fault("not_an_image", f"{what} starts with {data[:16]!r}; it should be one of {', '.join(FORMATS)}")


def _cut_short(data: bytes, complaint: str) -> bool:
    if data[:4] == b"RIFF":  # WebP's decoder does not say why; the container knows its length
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    return any(sign in complaint.lower() for sign in ("truncated", "eof", "expected to read"))
