"""Where the faces are in a picture, and where each has its eyes, nose and mouth.

The library that runs the model is imported when one is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from e4t_core.backbones.onnx_files import model_file, model_file_hash
from e4t_core.config import Config

if TYPE_CHECKING:
    from e4t_core.backbones._scrfd import Scrfd


class FaceDetectorConfig(Config):
    """A face detector with five points in SCRFD's ONNX format: insightface's ``det_10g``, ``scrfd_*_kps``.

    Attributes:
        path: the ONNX file, its URI, or ``bundled:NAME``.
        size: side in pixels of the square that a picture is fitted into; small faces need more, a face that fills the
            picture needs less.
        score: a face is what the detector is at least so sure of.
        iou: of faces that overlap by more (intersection over union), the surest one stays.
        device: ``cpu`` or ``cuda[:N]``.
    """

    path: str
    size: Annotated[int, Field(ge=32, multiple_of=32)] = 640
    score: Annotated[float, Field(gt=0, le=1)] = 0.5
    iou: Annotated[float, Field(gt=0, le=1)] = 0.4
    device: str = "cpu"

    def settings(self) -> dict[str, Any]:
        """What decides its answers, beside the weights: not where the file lies, nor where it runs."""
        return {k: v for k, v in self.dump().items() if k not in ("path", "device")}


@dataclass(frozen=True, eq=False)
class Face:
    """One face, in pixels of the picture; whole numbers are the centres of pixels.

    Attributes:
        box: left, top, right, bottom.
        score: how sure the detector is, up to 1.
        points_52: left eye, right eye, nose, left and right corner of the mouth, as the onlooker sees them.
    """

    box: tuple[float, float, float, float]
    score: float
    points_52: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Of the box, in pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


@dataclass(frozen=True)
class Faces:
    """What a detector sees in one picture.

    Attributes:
        found: the faces, largest first.
        highest: the best score of any place in the picture, also where it is too low for a face.
    """

    found: tuple[Face, ...]
    highest: float


def load_face_detector(config: FaceDetectorConfig, threads: int | None = None) -> Scrfd:
    """The detector that ``config`` names: RGB picture -> :class:`Faces`.

    Args:
        threads: of a session on the CPU; torch's number if None.

    Raises:
        UsageError: no file, no ONNX, no such device, or not a detector in this format.
    """
    from e4t_core.backbones._scrfd import Scrfd
    from e4t_core.backbones.onnx_images import ImageModel

    with model_file(config.path) as file:
        return Scrfd(config, ImageModel(config.path, file, config.device, threads=threads))


def face_detector_fingerprint(config: FaceDetectorConfig) -> str:
    """SHA-256 of the ONNX file; loads no model.

    Raises:
        UsageError: there is none.
    """
    return model_file_hash(config.path)
