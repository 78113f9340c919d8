"""Faces cut out by their five points: the crops that FFHQ and ArcFace's training data were made with.

Positions are complex numbers, x + iy: a similarity transform is then one multiplication and one addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ARCFACE_SIDE = 112
_ARCFACE_5 = np.array(
    [38.2946 + 51.6963j, 73.5318 + 51.5014j, 56.0252 + 71.7366j, 41.5493 + 92.3655j, 70.7299 + 92.2041j]
)
"""Where ArcFace (Deng et al. 2019) has the points in its 112 x 112 crops."""
_CORNERS = np.array([-1 - 1j, -1 + 1j, 1 + 1j, 1 - 1j])
_HALF = 0.5 + 0.5j
"""From the centre of a pixel to its corner: detectors count from the first pixel's centre, Pillow from its corner."""
_FINER = 2
"""Crops of a larger part of the picture are sampled at so many times their size, so that they do not alias."""
_MARGIN = 2
"""Samples that are kept around the crop for the filter."""
_LEAST = 1.0
"""Pixels: points nearer together are no face, and only rounding would say how it is turned."""
_LARGEST = 16
"""Times the picture's longer side: no face is larger, and mirroring would fill the memory."""


@dataclass(frozen=True)
class Placement:
    """Where a crop lies in a picture: its point (u, v) is the picture's ``origin + step * (u + iv)``, in pixels from
    the top left corner of both.

    Attributes:
        origin: of the crop's top left corner.
        step: one pixel of the crop to the right; its length is the scale, its direction the turn.
    """

    origin: complex
    step: complex

    def corners(self, width: int, height: int) -> NDArray[np.complex128]:
        """(4,) corners of a ``width`` x ``height`` crop."""
        return self.origin + self.step * np.array([0, 1j * height, width + 1j * height, width])


def ffhq_quad(points_52: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 2) top left, bottom left, bottom right, top right of FFHQ's crop: the formula of CelebA-HQ's (Karras et al.
    2018, "Progressive Growing of GANs", appendix C).

    A square that is turned as the face is, centred a tenth of the way from the eyes to the mouth.

    Raises:
        ValueError: the points lie on one another, or are no numbers.
    """
    left_eye, right_eye, _, left_mouth, right_mouth = _complex(points_52)
    eyes, across = (left_eye + right_eye) / 2, right_eye - left_eye
    down = (left_mouth + right_mouth) / 2 - eyes
    along = across - 1j * down
    if abs(along) < _LEAST:
        raise ValueError("eyes and mouth lie within a pixel")
    half = along / abs(along) * max(2.0 * abs(across), 1.8 * abs(down))
    quad = eyes + 0.1 * down + half * _CORNERS
    return np.stack([quad.real, quad.imag], -1)


def quad_placement(quad_42: NDArray[np.float64], side: int) -> Placement:
    """A ``side`` x ``side`` crop of the square with these corners, as :func:`ffhq_quad` orders them."""
    top_left, _, _, top_right = _complex(quad_42)
    return Placement(complex(top_left + _HALF), complex(top_right - top_left) / side)


def arcface_placement(points_52: NDArray[np.float64], side: int) -> Placement:
    """A ``side`` x ``side`` crop in which the points lie as near to ArcFace's as turning and scaling can bring them.

    The least-squares similarity (Umeyama 1991, eqs. 40 to 43), which for points of the plane is one complex factor.

    Raises:
        ValueError: the points lie on one another, or are no numbers.
    """
    seen, wanted = _complex(points_52) + _HALF, (_ARCFACE_5 + _HALF) * (side / _ARCFACE_SIDE)
    from_middle = seen - seen.mean()
    factor = np.vdot(from_middle, wanted - wanted.mean())
    if abs(from_middle).max() < _LEAST or factor == 0:
        raise ValueError("the five points lie within a pixel, or in no way like a face")
    step = complex(np.vdot(from_middle, from_middle) / factor)
    return Placement(complex(seen.mean() - step * wanted.mean()), step)


def cut(
    image: Image.Image, at: Placement, size: tuple[int, int], outside: Literal["mirror", "black"] = "mirror"
) -> Image.Image:
    """The crop of ``size`` (width, height) that lies ``at`` this place of an ``L`` or ``RGB`` picture.

    Args:
        outside: what is seen where the crop leaves the picture.

    Raises:
        ValueError: the crop lies beside the picture, or is far larger.
    """
    refuse_astray(at, size, image.size)
    corners_4, shrink = at.corners(*size), min(1.0, _FINER / abs(at.step))
    box = _needed(corners_4, image.size, _MARGIN / shrink)
    part, scale = _shrunk(image, box, shrink)
    local_4 = _scaled(corners_4 - complex(box[0], box[1]), scale)
    padded, shift = _padded(part, local_4, outside)
    origin, right, down = local_4[0] + shift, local_4[3] - local_4[0], local_4[1] - local_4[0]
    enlarged = abs(at.step) <= 1
    fine = size if enlarged else (size[0] * _FINER, size[1] * _FINER)
    right, down = right / fine[0], down / fine[1]
    matrix = (right.real, down.real, origin.real, right.imag, down.imag, origin.imag)
    between = Image.Resampling.BICUBIC if enlarged else Image.Resampling.BILINEAR
    return padded.transform(fine, Image.Transform.AFFINE, matrix, between).resize(size, Image.Resampling.LANCZOS)


def refuse_astray(at: Placement, size: tuple[int, int], picture: tuple[int, int]) -> None:
    """Look whether a crop of ``size`` can be cut from a ``picture`` of this (width, height).

    Raises:
        ValueError: the crop lies beside the picture, or is far larger.
    """
    corners_4 = at.corners(*size)
    longest = abs(corners_4 - np.roll(corners_4, 1)).max()
    if longest > _LARGEST * max(picture):
        raise ValueError(f"the crop is {longest:.0f} pixels long, the picture {max(picture)}")
    for positions_4, length in zip((corners_4.real, corners_4.imag), picture, strict=True):
        low, high = positions_4.min(), positions_4.max()
        if not (low < length and high > 0):
            raise ValueError(f"the crop lies beside the picture: from {low:.1f} to {high:.1f} of {length} pixels")


def _needed(corners_4: NDArray[np.complex128], size: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """The part of the picture that is seen in the crop, itself or in the mirror."""
    ends = []
    for low, high, length in (
        (corners_4.real.min(), corners_4.real.max(), size[0]),
        (corners_4.imag.min(), corners_4.imag.max(), size[1]),
    ):
        before, after = max(0.0, -low), max(0.0, high - length)
        first = max(0.0, min(low, length - after) - margin)
        last = min(float(length), max(high, before) + margin)
        ends.append((int(np.floor(first)), int(np.ceil(last))))
    (left, right), (top, bottom) = ends
    return left, top, right, bottom


def _shrunk(
    image: Image.Image, box: tuple[int, int, int, int], shrink: float
) -> tuple[Image.Image, tuple[float, float]]:
    """``box`` of the picture at about ``shrink`` times its size, and (x, y) by how much exactly."""
    width, height = box[2] - box[0], box[3] - box[1]
    if shrink == 1.0:
        return image.crop(box), (1.0, 1.0)
    small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    return image.resize(small, Image.Resampling.LANCZOS, box, reducing_gap=2.0), (small[0] / width, small[1] / height)


def _scaled(values: NDArray[np.complex128], scale: tuple[float, float]) -> NDArray[np.complex128]:
    return values.real * scale[0] + 1j * values.imag * scale[1]


def _padded(
    part: Image.Image, corners_4: NDArray[np.complex128], outside: Literal["mirror", "black"]
) -> tuple[Image.Image, complex]:
    """The picture with room on all sides for the crop, and how far that moves it."""
    lows = (corners_4.real.min(), corners_4.imag.min())
    highs = (corners_4.real.max(), corners_4.imag.max())
    before = [max(0, int(np.ceil(-low)) + _MARGIN) for low in lows]
    after = [max(0, int(np.ceil(high - length)) + _MARGIN) for high, length in zip(highs, part.size, strict=True)]
    if not any((*before, *after)):
        return part, 0j
    pixels = np.asarray(part)
    around = [(before[1], after[1]), (before[0], after[0]), (0, 0)][: pixels.ndim]
    filled = np.pad(pixels, around, "reflect" if outside == "mirror" else "constant")
    return Image.fromarray(filled), complex(*before)


def _complex(points_N2: NDArray[np.float64]) -> NDArray[np.complex128]:
    points = np.asarray(points_N2, np.float64)
    if not np.isfinite(points).all():
        raise ValueError("some of the points are no numbers")
    return points[:, 0] + 1j * points[:, 1]
