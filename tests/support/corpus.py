"""Every kind of image file that a dataset has been seen to hold, each with what ``ingest`` must make of it.

Built in memory: no file of it is stored. The picture is the same in all good ones: red, green, blue and black
quadrants, so that a wrong turn, a swapped channel or a lost palette shows.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

SIDE = 64
RED, GREEN, BLUE, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)
Corners = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
"""Colours at top left, top right, bottom left, bottom right."""
COLOURS: Corners = (RED, GREEN, BLUE, BLACK)
GREYS: Corners = ((80, 80, 80), (160, 160, 160), (240, 240, 240), (0, 0, 0))


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        name: file name, with the extension it is found under.
        data: its bytes.
        reason: why it must be quarantined, or None if it must come through.
        corners: colours it must show.
        meta: values its ``meta.json`` must hold.
        tolerance: levels by which colours may be off (lossy formats).
    """

    name: str
    data: bytes
    reason: str | None = None
    corners: Corners | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    tolerance: int = 1


def quadrants(corners: Corners = COLOURS, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """The test picture, (height, width, 3) uint8."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for i, colour in enumerate(corners):
        rows = slice(None, height // 2) if i < 2 else slice(height // 2, None)
        columns = slice(None, width // 2) if i % 2 == 0 else slice(width // 2, None)
        pixels[rows, columns] = colour
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """``image`` as a file of Pillow's format ``kind``."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(side: int = SIDE, seed: int = 0) -> Image.Image:
    """A picture that does not compress, so that half of its file is half of its pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def bomb_png(width: int = 20_000, height: int = 20_000) -> bytes:
    """A few hundred bytes whose header promises ``width`` x ``height`` pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def text_bomb(size: int = 8 << 20) -> bytes:
    """A good PNG with some kilobytes of ``iTXt`` that unpack to ``size`` bytes of text; Pillow takes one MiB."""
    body = zlib.compress(bytes(size), 9)
    plain = encoded(quadrants(), "PNG")
    return plain[:33] + _chunk(b"iTXt", b"Comment\0\1\0\0\0" + body) + plain[33:]


def heic() -> bytes:
    """How an iPhone's photographs begin; nothing here decodes them."""
    return struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic") + bytes(2000)


def many_frames(count: int) -> bytes:
    """A GIF of ``count`` frames."""
    data = encoded(quadrants(), "GIF", save_all=True, append_images=[quadrants(GREYS)], duration=10)
    first = data.index(b"!\xf9")
    second = data.index(b"!\xf9", first + 1)
    return data[:second] + data[second:-1] * (count - 1) + b";"


def oriented_jpeg(orientation: int) -> bytes:
    """The picture stored turned, with the EXIF tag that turns it back."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    image = quadrants(width=SIDE + 16)
    stored = image if undo is None else image.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, "JPEG", quality=95, subsampling=0, exif=exif)


def corpus() -> list[Case]:
    """All cases, good and bad."""
    return [*_broken(), *_refused(), *_modes(), *_animated(), *_turned(), *_formats()]


def _broken() -> list[Case]:
    cases = [
        Case("zero.jpg", b"", "empty"),
        Case("text.jpg", b"<html><body>404 Not Found</body></html>", "not_an_image"),
        Case("cut_header.jpg", encoded(noise(), "JPEG")[:40], "truncated"),
        Case("damaged_header.jpg", b"\xff\xd8\xff" + bytes(500), "corrupt"),
        Case("bad_checksum.png", _flip(encoded(noise(), "PNG"), 60), "corrupt"),
        Case("iphone.heic", heic(), "not_an_image"),
        Case("text_bomb.png", text_bomb(), "corrupt"),
    ]
    for kind, name in (("JPEG", "cut.jpg"), ("PNG", "cut.png"), ("WEBP", "cut.webp"), ("GIF", "cut.gif")):
        data = encoded(noise(), kind)
        cases.append(Case(name, data[: len(data) // 2], "truncated"))
    return cases


def _refused() -> list[Case]:
    floats = Image.fromarray(np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32))
    deep = Image.fromarray(np.full((SIDE, SIDE), 1 << 20, dtype=np.int32))
    return [
        Case("bomb.png", bomb_png(), "bomb"),
        Case("over_the_limit.png", bomb_png(9_000, 9_000), "bomb"),
        Case("one_pixel.png", encoded(Image.new("RGB", (1, 1), RED), "PNG"), "too_small"),
        Case("thin.png", encoded(Image.new("RGB", (500, 3), RED), "PNG"), "too_small"),
        Case("floats.tif", encoded(floats, "TIFF"), "unsupported_mode"),
        Case("32_bit.tif", encoded(deep, "TIFF"), "unsupported_mode"),
    ]


def _modes() -> list[Case]:
    colour = quadrants()
    grey = quadrants(GREYS).convert("L")
    black_white = quadrants((WHITE, BLACK, BLACK, WHITE)).convert("1")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    return [
        Case("grey.png", encoded(grey, "PNG"), corners=GREYS, meta={"mode": "L"}),
        Case("grey.jpg", encoded(grey, "JPEG"), corners=GREYS, meta={"mode": "L"}, tolerance=4),
        Case("16_bit.png", encoded(deep, "PNG"), corners=GREYS, meta={"mode": "I;16"}),
        Case("16_bit.tif", encoded(deep, "TIFF"), corners=GREYS),
        Case("16_bit.pgm", encoded(deep, "PPM"), corners=GREYS),
        Case("16_bit_colour.png", _png_16_bit_colour(colour), corners=COLOURS, meta={"mode": "RGB"}),
        Case("one_bit.png", encoded(black_white, "PNG"), corners=(WHITE, BLACK, BLACK, WHITE), meta={"mode": "1"}),
        Case("palette.png", encoded(colour.quantize(8), "PNG"), corners=COLOURS, meta={"mode": "P"}),
        Case("palette_hole.png", _palette_with_hole(), corners=(RED, GREEN, BLUE, WHITE), meta={"mode": "P"}),
        Case("rgba.png", encoded(_with_hole(colour), "PNG"), corners=(RED, GREEN, BLUE, WHITE), meta={"mode": "RGBA"}),
        Case("rgba.webp", encoded(_with_hole(colour), "WEBP", lossless=True), corners=(RED, GREEN, BLUE, WHITE)),
        Case("la.png", encoded(_with_hole(grey), "PNG"), corners=(*GREYS[:3], WHITE), meta={"mode": "LA"}),
        Case("key_colour.png", encoded(colour, "PNG", transparency=BLACK), corners=(RED, GREEN, BLUE, WHITE)),
        Case("cmyk.jpg", encoded(colour.convert("CMYK"), "JPEG"), corners=COLOURS, meta={"mode": "CMYK"}, tolerance=6),
        Case("cmyk.tif", encoded(colour.convert("CMYK"), "TIFF"), corners=COLOURS, meta={"mode": "CMYK"}),
    ]


def _animated() -> list[Case]:
    frames = [quadrants(), quadrants((BLACK, BLACK, BLACK, RED))]
    cases = []
    for kind, name, tolerance in (("GIF", "moving.gif", 1), ("WEBP", "moving.webp", 1), ("PNG", "moving.png", 1)):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
        cases.append(Case(name, data, corners=COLOURS, meta={"animated": True, "format": kind}, tolerance=tolerance))
    cases.append(Case("10_000_frames.gif", many_frames(10_000), corners=COLOURS, meta={"animated": True}))
    return cases


def _turned() -> list[Case]:
    size = {"width": SIDE + 16, "height": SIDE, "crop": [8, 0, SIDE + 8, SIDE]}
    return [
        Case(f"turned_{o}.jpg", oriented_jpeg(o), corners=COLOURS, meta={"orientation": o, **size}, tolerance=8)
        for o in range(1, 9)
    ]


def _formats() -> list[Case]:
    picture = quadrants()
    jpeg = encoded(picture, "JPEG", quality=95, subsampling=0)
    preview = [picture.resize((16, 16))]
    phone = encoded(picture, "MPO", save_all=True, append_images=preview, quality=95, subsampling=0)
    honest = {"mislabelled": False, "animated": False, "orientation": 1, "width": SIDE, "height": SIDE}
    cases = [
        Case("plain.png", encoded(picture, "PNG"), corners=COLOURS, meta={"format": "PNG", **honest}),
        Case("plain.jpg", jpeg, corners=COLOURS, meta=honest, tolerance=8),
        Case("PLAIN.JPEG", jpeg, corners=COLOURS, meta=honest, tolerance=8),
        Case("progressive.jpg", encoded(picture, "JPEG", quality=95, progressive=True), corners=COLOURS, tolerance=12),
        Case("plain.webp", encoded(picture, "WEBP", lossless=True), corners=COLOURS, meta=honest),
        Case("png_named.jpg", encoded(picture, "PNG"), corners=COLOURS, meta={"format": "PNG", "mislabelled": True}),
        Case("phone.jpg", phone, corners=COLOURS, meta={**honest, "format": "MPO"}, tolerance=8),
        Case("no_extension", encoded(picture, "PNG"), corners=COLOURS, meta={"mislabelled": False}),
    ]
    lossless = (("BMP", "plain.bmp"), ("TIFF", "plain.tif"), ("PPM", "plain.ppm"), ("JPEG2000", "plain.jp2"))
    return cases + [Case(name, encoded(picture, kind), corners=COLOURS, meta=honest) for kind, name in lossless]


def _with_hole(image: Image.Image) -> Image.Image:
    """The bottom right quadrant made transparent."""
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (SIDE // 2, SIDE // 2, SIDE, SIDE))
    image = image.copy()
    image.putalpha(alpha)
    return image


def _palette_with_hole() -> bytes:
    image = Image.new("P", (SIDE, SIDE))
    image.putpalette([channel for colour in COLOURS for channel in colour])
    indices = np.zeros((SIDE, SIDE), dtype=np.uint8)
    indices[:, SIDE // 2 :] += 1
    indices[SIDE // 2 :] += 2
    image.putdata(indices.ravel().tolist())
    return encoded(image, "PNG", transparency=3)


def _png_16_bit_colour(image: Image.Image) -> bytes:
    """Pillow writes no 16-bit colour, so the chunks are put together here."""
    rows = np.asarray(image).astype(">u2") * 257
    body = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", image.width, image.height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(body)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


Damage = Callable[[bytes, np.random.Generator], bytes]


def damages() -> dict[str, Damage]:
    """Ways in which any file can be spoiled."""
    return {
        "cut": lambda data, rng: data[: rng.integers(0, len(data))] if data else data,
        "flipped": _flipped,
        "header": lambda data, rng: rng.bytes(min(8, len(data))) + data[8:],
        "hole": lambda data, rng: data[: len(data) // 3] + bytes(64) + data[len(data) // 3 + 64 :],
    }


def _flipped(data: bytes, rng: np.random.Generator) -> bytes:
    spoiled = np.frombuffer(data, dtype=np.uint8).copy()
    if len(spoiled):
        at = rng.integers(0, len(spoiled), size=max(1, len(spoiled) // 100))
        spoiled[at] ^= rng.integers(1, 256, size=len(at)).astype(np.uint8)
    return spoiled.tobytes()
