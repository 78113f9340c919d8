"""SCRFD (Guo et al. 2021, "Sample and Computation Redistribution for Efficient Face Detection") from ONNX files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import nms

from e4t_core.backbones.face_detector import Face, FaceDetectorConfig, Faces
from e4t_core.backbones.onnx_images import ImageModel
from e4t_core.errors import UsageError

_STRIDES = (8, 16, 32)
_ANCHORS = 2
"""Per cell of each stride's grid."""
_WIDTHS = (1, 4, 10)
"""Of the outputs: a score; distances to left, top, right, bottom; offsets of five points. Distances and offsets are
from the cell's corner, in strides."""
_MEAN, _STD = 127.5, 128.0


class Scrfd:
    """Finds the faces of one picture at a time.

    Args:
        config: its thresholds, and the side of its input.
        model: the opened model.

    Raises:
        UsageError: the model takes another size, or its outputs are not those of the format.
    """

    def __init__(self, config: FaceDetectorConfig, model: ImageModel) -> None:
        self.config, self._model = config, model
        side = config.size
        if model.size not in (None, (side, side)):
            raise UsageError(f"the detector's size is {side}, but {model.name} takes {model.size} (height, width)")
        self._cells_N2, self._strides_N1 = _grid(side)
        self._refuse_other_outputs()

    def __call__(self, image: Image.Image) -> Faces:
        """The faces of an RGB picture of any size."""
        pixels_13ss, scale_2 = _fitted(image, self.config.size)
        scores_N, boxes_N4, points_Nx = self._heads(pixels_13ss)
        seen = np.flatnonzero(scores_N >= self.config.score)
        cells_n12, strides_n11 = self._cells_N2[seen, None], self._strides_N1[seen, None]
        boxes_n22 = cells_n12 + boxes_N4[seen].reshape(-1, 2, 2) * strides_n11 * [[[-1.0], [1.0]]]
        points_n52 = cells_n12 + points_Nx[seen].reshape(-1, 5, 2) * strides_n11
        faces = self._surest(boxes_n22 / scale_2, scores_N[seen], points_n52 / scale_2)
        return Faces(tuple(sorted(faces, key=lambda f: (-f.area, -f.score))), float(scores_N.max()))

    def _surest(
        self, boxes_n22: NDArray[np.float64], scores_n: NDArray[np.float32], points_n52: NDArray[np.float64]
    ) -> list[Face]:
        """One face for each place."""
        boxes_n4 = boxes_n22.reshape(-1, 4)
        kept = nms(torch.from_numpy(boxes_n4), torch.from_numpy(scores_n.astype(np.float64)), self.config.iou).tolist()
        return [Face(tuple(boxes_n4[i].tolist()), float(scores_n[i]), points_n52[i]) for i in kept]

    def _heads(self, pixels_13ss: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Scores (N,), distances (N, 4) and offsets (N, 10) of all places of all strides."""
        outputs, n = self._model.run_all(pixels_13ss), len(_STRIDES)
        kinds = [np.concatenate([out.reshape(-1, width) for out in outputs[i * n : (i + 1) * n]])
                 for i, width in enumerate(_WIDTHS)]  # fmt: skip
        return [kinds[0][:, 0], *kinds[1:]]

    def _refuse_other_outputs(self) -> None:
        """Run once, since many exports do not declare the shapes of their outputs."""
        side, name = self.config.size, self._model.name
        needed = [(cells * cells * _ANCHORS, width) for width in _WIDTHS for cells in (side // s for s in _STRIDES)]
        right = (
            f"a detector in SCRFD's format with five points (det_10g, scrfd_*_kps) has {len(needed)} for strides "
            f"{', '.join(map(str, _STRIDES))}: {_listed(needed)}"
        )
        if len(self._model.outputs) != len(needed):
            found = ", ".join(self._model.outputs)
            raise UsageError(f"{name} has {len(self._model.outputs)} outputs ({found}); {right}")
        shapes = [out.shape for out in self._model.run_all(np.zeros((1, 3, side, side), np.float32))]
        if [shape[1:] if len(shape) == 3 and shape[0] == 1 else shape for shape in shapes] != needed:
            raise UsageError(f"{name} has outputs of {_listed(shapes)} for {side} x {side} pixels; {right}")


def _grid(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, 2) corner of each anchor's cell in input pixels, (N, 1) its stride; row by row, a cell's anchors together."""
    cells, strides = [], []
    for stride in _STRIDES:
        rows, columns = np.mgrid[: side // stride, : side // stride] * float(stride)
        cells.append(np.stack([columns, rows], -1).reshape(-1, 2).repeat(_ANCHORS, 0))
        strides.append(np.full((len(cells[-1]), 1), float(stride)))
    return np.concatenate(cells), np.concatenate(strides)


def _fitted(image: Image.Image, side: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(1, 3, side, side) input with the picture in its top left corner and black beside it, and (x, y) its scale."""
    longer = max(image.size)
    width, height = (max(1, int(length * side / longer)) for length in image.size)
    square = Image.new("RGB", (side, side))
    square.paste(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))
    pixels_ss3 = (np.asarray(square, np.float32) - _MEAN) / _STD
    return np.ascontiguousarray(pixels_ss3.transpose(2, 0, 1)[None]), np.array([width, height]) / image.size


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(" x ".join(map(str, shape)) for shape in shapes)
