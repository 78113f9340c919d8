"""SCRFD's outputs are read as its authors read them, and a model of another kind is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from e4t_core.backbones.face_detector import (
    FaceDetectorConfig,
    Faces,
    face_detector_fingerprint,
    load_face_detector,
)
from e4t_core.config import validate
from e4t_core.errors import UsageError
from tests.support.detectors import ANCHORS, ELSEWHERE, STRIDES, WIDTHS, Planted, planted, red_spots, saved, turned

SIDE = 160


def seen(path: str, picture: Image.Image, **config: Any) -> Faces:
    return load_face_detector(FaceDetectorConfig(path=path, size=SIDE, **config))(picture)


def grey(*size: int) -> Image.Image:
    return Image.new("RGB", size, (128, 128, 128))  # type: ignore[arg-type]


# --- what it finds


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (160, 160), (80, 50)])
def test_faces_are_in_pixels_of_the_picture(
    size: tuple[int, int], stride: int, declared: bool, batched: bool, tmp_path: Path
) -> None:
    face = Planted(turned(20, min(size) / 200, (size[0] * 0.55, size[1] * 0.6)), 0.75, stride=stride)
    path = planted(tmp_path / "d.onnx", [face], size, SIDE, batched, declared)
    (found,) = seen(path, grey(*size)).found
    np.testing.assert_allclose(found.points_52, face.points, atol=1e-2)
    np.testing.assert_allclose(found.box, face.edges.ravel(), atol=1e-2)
    assert found.score == pytest.approx(0.75)


def test_the_largest_face_is_first_and_the_surer_of_equals(tmp_path: Path) -> None:
    boxes = [(10, 10, 50, 50), (200, 10, 280, 90), (10, 200, 50, 240), (200, 200, 280, 280)]
    faces = [
        Planted(turned(0, 0.3, (box[0] + 20, box[1] + 20)), score, box)
        for box, score in zip(boxes, (0.99, 0.6, 0.7, 0.8), strict=True)
    ]
    found = seen(planted(tmp_path / "d.onnx", faces, (320, 320), SIDE), grey(320, 320)).found
    assert [round(face.score, 2) for face in found] == [0.8, 0.6, 0.99, 0.7]


def test_of_faces_that_overlap_the_surest_stays(tmp_path: Path) -> None:
    points = turned(0, 0.5, (100, 100))
    faces = [
        Planted(points, 0.6, (60, 60, 140, 140)),
        Planted(points + 1, 0.9, (62, 62, 142, 142), stride=8),
        Planted(points + 2, 0.7, (60, 64, 140, 144), stride=32),
    ]
    path = planted(tmp_path / "d.onnx", faces, (320, 320), SIDE)
    (found,) = seen(path, grey(320, 320)).found
    assert found.score == pytest.approx(0.9)
    np.testing.assert_allclose(found.points_52, points + 1, atol=1e-2)
    assert len(seen(path, grey(320, 320), iou=1.0).found) == 3


def test_without_a_face_the_best_score_is_told(tmp_path: Path) -> None:
    path = planted(tmp_path / "d.onnx", [Planted(turned(0, 0.5, (100, 100)), 0.375)], (320, 320), SIDE)
    assert seen(path, grey(320, 320)) == Faces((), 0.375)
    assert len(seen(path, grey(320, 320), score=0.3).found) == 1
    assert seen(planted(tmp_path / "e.onnx", [], (320, 320), SIDE), grey(320, 320)) == Faces((), ELSEWHERE)


# --- what it is shown


@pytest.mark.parametrize(("size", "scale"), [((160, 160), 1), ((320, 240), 2), ((80, 40), 0.5), ((96, 320), 2)])
def test_it_is_shown_the_whole_picture_in_colour_at_the_top_left(
    size: tuple[int, int], scale: float, tmp_path: Path
) -> None:
    picture = grey(*size)
    cell = round(8 * scale)
    column, row = size[0] // cell - 1, size[1] // cell - 1
    picture.paste((255, 0, 0), (column * cell, row * cell, (column + 1) * cell, (row + 1) * cell))
    picture.paste((0, 0, 255), (0, 0, cell, cell))
    faces = seen(red_spots(tmp_path / "d.onnx", SIDE), picture)
    (found,) = faces.found
    box = np.array([column, row, column + 1, row + 1]) * cell
    np.testing.assert_allclose(found.box, box, atol=0.1)
    np.testing.assert_allclose(found.points_52, box[:2] + np.arange(1, 6)[:, None] * scale, atol=0.1)
    assert 0.9 < faces.highest < 1.0, "(255 - 0) / 2 / 128, a little less where the picture was resized"


def test_the_same_picture_gives_the_same_faces_with_any_number_of_threads(tmp_path: Path) -> None:
    path = red_spots(tmp_path / "d.onnx", SIDE)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8))
    picture.paste((255, 0, 0), (0, 0, 50, 50))
    one, two = (load_face_detector(FaceDetectorConfig(path=path, size=SIDE), n)(picture) for n in (1, 2))
    assert [f.box for f in one.found] == [f.box for f in two.found] != []


# --- what is refused


def outputs(widths: tuple[int, ...] = WIDTHS, side: int = SIDE, anchors: int = ANCHORS) -> list[Any]:
    return [np.zeros(((side // s) ** 2 * anchors, width), np.float32) for width in widths for s in STRIDES]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            outputs((1, 4)),
            r"has 6 outputs \(out0, out1, .*has 9 for strides 8, 16, 32: 800 x 1, 200 x 1, 50 x 1, 800 x 4",
        ),
        (outputs()[:1], r"has 1 outputs \(out0\)"),
        (outputs((1, 10, 4)), r"outputs of 800 x 1, 200 x 1, 50 x 1, 800 x 10, .* for 160 x 160 pixels; .*800 x 10"),
        (outputs(anchors=1), r"outputs of 400 x 1"),
        (outputs(side=320), r"outputs of 3200 x 1"),
        ([out[None, None] for out in outputs()], r"outputs of 1 x 1 x 800 x 1"),
    ],
)
def test_a_model_with_other_outputs_is_refused_when_it_is_opened(
    found: list[Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        load_face_detector(FaceDetectorConfig(path=saved(tmp_path / "d.onnx", found, SIDE), size=SIDE))


def test_a_model_of_another_size_is_refused(tmp_path: Path) -> None:
    path = planted(tmp_path / "d.onnx", [], (320, 320), SIDE)
    with pytest.raises(UsageError, match=r"size is 640, but .*d\.onnx takes \(160, 160\)"):
        load_face_detector(FaceDetectorConfig(path=path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no ONNX file at '.*gone\.onnx'; give a path or a URI"):
        load_face_detector(FaceDetectorConfig(path=str(tmp_path / "gone.onnx")))
    with pytest.raises(UsageError, match="holds no ONNX model; give a file"):
        face_detector_fingerprint(FaceDetectorConfig(path="bundled:tiny"))


@pytest.mark.parametrize(("key", "value"), [("size", 100), ("size", 0), ("score", 0), ("score", 1.5), ("iou", 0)])
def test_values_that_no_detector_can_have_are_refused(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"detector\.{key}: {value}"):
        validate(FaceDetectorConfig, {"path": "x", key: value}, "detector")
