"""Which part of a picture is kept: the square in its middle, or the face as FFHQ aligns it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from e4t_core.backbones._align import cut, ffhq_quad, quad_placement, refuse_astray
from e4t_core.backbones.face_detector import Face, Faces
from pipelines.stages._decode import Fault, Upright

_DECIMALS = 3


class Crop(Protocol):
    """One place in an upright picture; the picture's mask is cut at the same one."""

    def of(self, image: Upright, size: int, resample: Image.Resampling) -> Image.Image:
        """That part of the picture at ``size`` x ``size``."""

    def facts(self) -> dict[str, Any]:
        """What ``meta.json`` says of it, in full-size pixels."""


@dataclass(frozen=True)
class CentreCrop:
    """``box``: left, top, right, bottom."""

    box: tuple[int, int, int, int]

    def of(self, image: Upright, size: int, resample: Image.Resampling) -> Image.Image:
        return image.resized(self.box, size, resample)

    def facts(self) -> dict[str, Any]:
        return {"crop": list(self.box)}


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """FFHQ's square around ``face``, with a filter of its own; where it leaves the picture, the picture is mirrored."""

    face: Face
    quad_42: NDArray[np.float64]

    def of(self, image: Upright, size: int, resample: Image.Resampling) -> Image.Image:
        return cut(image.image, quad_placement(self.quad_42, size), (size, size))

    def facts(self) -> dict[str, Any]:
        face = self.face
        places = {"box": np.array(face.box), "points": face.points_52, "quad": self.quad_42}
        rounded = {name: values.round(_DECIMALS).tolist() for name, values in places.items()}
        return {"face": {**rounded, "score": round(face.score, _DECIMALS)}}


def face_crop(image: Upright, detector: Callable[[Image.Image], Faces], score: float, min_size: int) -> FaceCrop:
    """The largest face of an RGB picture of full size.

    Args:
        score: from which the detector calls something a face, for the message.
        min_size: side in pixels of the smallest square that is worth scaling.

    Raises:
        Fault: ``no_face``, ``too_small``.
    """
    faces = detector(image.image)
    if not faces.found:
        raise Fault(
            "no_face",
            f"the detector finds no face: its best score in the image is {faces.highest:.3g}, and a face has {score:g} "
            "(stages.ingest.detector.score) or more",
        )
    try:
        crop = FaceCrop(faces.found[0], ffhq_quad(faces.found[0].points_52))
        side = float(np.hypot(*(crop.quad_42[3] - crop.quad_42[0])))
        refuse_astray(quad_placement(crop.quad_42, 1), (1, 1), (image.width, image.height))
    except ValueError as error:
        raise Fault("no_face", f"the five points of the largest face make no face: {error}") from error
    if side < min_size:
        raise Fault(
            "too_small", f"the face's square has sides of {side:.1f} pixels; they must have at least {min_size}"
        )
    return crop
