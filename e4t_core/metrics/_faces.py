"""Where the face is: what stands between an image and a face embedder."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from e4t_core.backbones._align import arcface_placement, cut
from e4t_core.backbones.face_detector import FaceDetectorConfig, load_face_detector
from e4t_core.errors import UsageError


class Detector(Protocol):
    """Finds the face of each image and cuts it out as the embedder was trained to see it."""

    def __call__(self, images_B3HW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Images in [-1, 1] -> (B, 3, h, w) crops of ``size`` in [-1, 1], and (B,) bool: was a face found?"""


def whole_image(images_B3HW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The detector for images that are faces already: every image is its own crop."""
    crops_B3hw = images_B3HW
    if images_B3HW.shape[-2:] != size:
        crops_B3hw = F.interpolate(images_B3HW, size, mode="bilinear", antialias=True, align_corners=False)
    return crops_B3hw.clamp(-1, 1), torch.ones(len(images_B3HW), dtype=torch.bool)


class AlignedFaces:
    """The detector for pictures with faces in them: cuts out the largest one as ArcFace was trained to see it.

    Where the crop leaves the picture it is black, and an image without a face gives a black crop.

    Args:
        config: the model that finds faces and their five points.

    Raises:
        UsageError: it cannot be opened, or is no such model.
    """

    def __init__(self, config: FaceDetectorConfig) -> None:
        self._faces = load_face_detector(config)

    def __call__(self, images_B3HW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See :class:`Detector`.

        Raises:
            UsageError: the crops are not square, and ArcFace's are.
        """
        if size[0] != size[1]:
            raise UsageError(
                f"the embedder takes {size[0]} x {size[1]} (height x width), but faces are aligned for square crops; "
                "leave the detector out, or bring an embedder for squares (ArcFace's is 112 x 112)"
            )
        crops = [self._crop(image_3HW, size[0]) for image_3HW in images_B3HW]
        blank_3hw = torch.full((3, *size), -1.0)
        found_B = torch.tensor([crop is not None for crop in crops], dtype=torch.bool)
        return torch.stack([blank_3hw if crop is None else crop for crop in crops]), found_B

    def _crop(self, image_3HW: Tensor, side: int) -> Tensor | None:
        """The aligned face, or None; pictures have 8 bits here, as they had when both models were trained."""
        levels_HW3 = image_3HW.detach().cpu().add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0)
        picture = Image.fromarray(levels_HW3.contiguous().numpy())
        faces = self._faces(picture).found
        if not faces:
            return None
        try:
            crop = cut(picture, arcface_placement(faces[0].points_52, side), (side, side), "black")
        except ValueError:  # points that span nothing: what was found is no face
            return None
        return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float().div(127.5).sub(1)
