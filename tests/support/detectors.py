"""Face detectors small enough to reason about, as ONNX files with the outputs of insightface's SCRFD exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

STRIDES, WIDTHS, ANCHORS = (8, 16, 32), (1, 4, 10), 2
ELSEWHERE = 0.125
"""Score of all places without a face."""
COLOURS = ((255, 0, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255))
"""Of the five points of a drawn face, on grey."""
UPRIGHT = np.array([[-30.0, -30], [30, -30], [0, 5], [-22, 35], [22, 35]])
"""Points of a face around its middle."""


@dataclass(frozen=True, eq=False)
class Planted:
    """A face that a detector says it sees, in pixels of the picture."""

    points: NDArray[np.float64]
    score: float = 0.9
    box: tuple[float, float, float, float] | None = None
    stride: int = 16

    @property
    def edges(self) -> NDArray[np.float64]:
        """(2, 2) left top, right bottom."""
        if self.box is not None:
            return np.array(self.box).reshape(2, 2)
        return np.stack([self.points.min(0) - 10, self.points.max(0) + 10])


def turned(angle: float = 0.0, scale: float = 1.0, at: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float64]:
    """(5, 2) points of a face that is turned by ``angle`` degrees, ``scale`` times as large, with its middle ``at``."""
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return scale * UPRIGHT @ np.array([[c, s], [-s, c]]) + np.array(at)


def drawn(size: tuple[int, int], points: NDArray[np.float64], radius: float = 5.0) -> Image.Image:
    """A grey picture with a coloured dot at each point."""
    picture = Image.new("RGB", size, (128, 128, 128))
    pen = ImageDraw.Draw(picture)
    for (x, y), colour in zip(points.tolist(), COLOURS, strict=True):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return picture


def dots(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(5, 2) where the dots of :func:`drawn` are: the middle of the pixels of each colour."""
    found = []
    for colour in COLOURS:
        near = np.abs(pixels.astype(int) - colour).max(-1) < 60
        rows, columns = np.nonzero(near)
        assert len(rows), f"no {colour} in the picture"
        found.append((columns.mean(), rows.mean()))
    return np.array(found)


def planted(
    path: Path,
    faces: Sequence[Planted],
    picture: tuple[int, int],
    side: int = 160,
    batched: bool = False,
    declared: bool = True,
) -> str:
    """A detector that sees ``faces`` in every picture, which must be as large (width, height) as ``picture``.

    Args:
        batched: outputs have a leading axis of 1.
        declared: the input's size is in the file.
    """
    scale = side / max(picture)
    kinds = [[np.zeros((s_cells(side, s) ** 2 * ANCHORS, width), np.float32) for s in STRIDES] for width in WIDTHS]
    for scores in kinds[0]:
        scores += ELSEWHERE
    for number, face in enumerate(faces):
        at, stride = STRIDES.index(face.stride), face.stride
        cells = s_cells(side, stride)
        column, row = np.clip(face.edges.mean(0) * scale / stride, 0, cells - 1).astype(int)
        place = (row * cells + column) * ANCHORS + number % ANCHORS
        corner = np.array([column, row]) * stride
        kinds[0][at][place] = face.score
        kinds[1][at][place] = ((face.edges * scale - corner) * [[-1], [1]]).ravel() / stride
        kinds[2][at][place] = (face.points * scale - corner).ravel() / stride
    outputs = [out[None] if batched else out for kind in kinds for out in kind]
    return saved(path, outputs, side if declared else None)


def s_cells(side: int, stride: int) -> int:
    return side // stride


def saved(path: Path, outputs: Sequence[NDArray[np.float32]], side: int | None) -> str:
    """A model with these outputs, whatever it is shown."""
    nodes = [
        helper.make_node("Constant", [], [f"out{i}"], value=numpy_helper.from_array(out))
        for i, out in enumerate(outputs)
    ]
    return write(path, nodes, [(f"out{i}", out.shape) for i, out in enumerate(outputs)], side)


def red_spots(path: Path, side: int = 160) -> str:
    """A detector that looks: every 8 x 8 cell is a face if it is red, black and white are 0 sure of it.

    The score is (red - blue) / 2 of the normalised pixels; the box is the cell, and the points lie 1, 2, 3, 4 and 5
    pixels right of its corner and as far down.
    """
    cells = s_cells(side, STRIDES[0])
    red_minus_blue = np.zeros((ANCHORS, 3, 8, 8), np.float32)
    red_minus_blue[0, 0], red_minus_blue[0, 2] = 0.5 / 64, -0.5 / 64
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (cells * cells * ANCHORS, 1))
    points = np.tile(np.arange(1, 6, dtype=np.float32).repeat(2) / 8, (cells * cells * ANCHORS, 1))
    fixed: dict[str, NDArray[Any]] = {
        "kernel": red_minus_blue,
        "shape": np.array([-1, 1]),
        "box8": boxes,
        "kps8": points,
    }
    for stride in STRIDES[1:]:
        count = s_cells(side, stride) ** 2 * ANCHORS
        fixed |= {f"{n}{stride}": np.zeros((count, w), np.float32) for n, w in zip(_NAMES, WIDTHS, strict=True)}
    nodes = [
        *(helper.make_node("Constant", [], [n], value=numpy_helper.from_array(v)) for n, v in fixed.items()),
        helper.make_node("Conv", ["image", "kernel"], ["grid"], strides=[8, 8]),
        helper.make_node("Transpose", ["grid"], ["rows"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["rows", "shape"], ["score8"]),
    ]
    return write(
        path, nodes, [(f"{n}{s}", (None, w)) for n, w in zip(_NAMES, WIDTHS, strict=True) for s in STRIDES], side
    )


_NAMES = ("score", "box", "kps")


def write(path: Path, nodes: Sequence[Any], outputs: Sequence[tuple[str, Any]], side: int | None) -> str:
    shape = [1, 3, "h" if side is None else side, "w" if side is None else side]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs]
    graph = helper.make_graph(list(nodes), "detector", [image], ends)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)
