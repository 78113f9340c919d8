"""ID of pictures with faces in them: the face is found, aligned as ArcFace saw it, and counted where it is missing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from e4t_core.config import validate
from e4t_core.errors import UsageError
from e4t_core.metrics._faces import AlignedFaces
from e4t_core.metrics.identity import IdentityConfig, IdentitySimilarity
from e4t_core.schema import Sample, decode_array, encode_json
from pipelines.shards.commit import stage_identity
from pipelines.stages import Bad
from pipelines.stages.identity import Identity, IdentityStageConfig
from tests.metrics.test_identity import MODELS, mean_colour
from tests.support.corpus import encoded
from tests.support.detectors import Planted, dots, drawn, planted, red_spots, turned

SIZE = (240, 200)
POINTS = turned(25, 0.7, (110, 100))
FACE = ["N", 3, 112, 112]


def images(*pictures: Image.Image) -> Tensor:
    """(B, 3, H, W) in [-1, 1]."""
    return torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1).float() / 127.5 - 1 for p in pictures])


def levels(image_3hw: Tensor) -> NDArray[np.uint8]:
    return ((image_3hw + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def metric(path: str, detector: str | None, **config: Any) -> IdentitySimilarity:
    section = None if detector is None else {"path": detector, "size": 160}
    made = IdentitySimilarity(
        validate(IdentityConfig, {"path": path, "detector": section, **config}, "metrics.identity"), MODELS
    )
    made.setup()
    return made


def test_the_embedder_is_shown_the_aligned_face(tmp_path: Path) -> None:
    detector = planted(tmp_path / "d.onnx", [Planted(POINTS)], SIZE)
    made = metric(mean_colour(tmp_path / "m.onnx", FACE), detector)
    crops_B3hw, found_B = made.detector(images(drawn(SIZE, POINTS, 4)), made.size)
    assert (crops_B3hw.shape, found_B.tolist()) == ((1, 3, 112, 112), [True])
    assert -1 <= crops_B3hw.min() < crops_B3hw.max() <= 1
    seen = dots(levels(crops_B3hw[0]))
    template = np.array([[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]])
    assert np.abs(seen - template).max() < 6
    want = levels(crops_B3hw[0]).mean((0, 1)) / 127.5 - 1
    got = made.embed(images(drawn(SIZE, POINTS, 4)))[0].numpy()
    np.testing.assert_allclose(got, want / np.linalg.norm(want), atol=1e-4)


def test_where_the_crop_leaves_the_picture_it_is_black(tmp_path: Path) -> None:
    points = turned(0, 0.7, (10, 100))
    detector = planted(tmp_path / "d.onnx", [Planted(points)], SIZE)
    crop_3hw = metric(mean_colour(tmp_path / "m.onnx", FACE), detector).detector(
        images(Image.new("RGB", SIZE, "white")), (112, 112)
    )[0][0]
    assert (levels(crop_3hw)[:, :20] == 0).all()
    assert (levels(crop_3hw)[:, -40:] == 255).all()


def test_pictures_without_a_face_score_nan_and_are_left_out_of_references(tmp_path: Path) -> None:
    made = metric(mean_colour(tmp_path / "m.onnx", ["N", 3, 8, 8]), red_spots(tmp_path / "d.onnx"))
    grey, red = Image.new("RGB", (160, 160), "grey"), Image.new("RGB", (160, 160), "grey")
    red.paste((255, 0, 0), (80, 80, 88, 88))
    # the points of a red spot lie on a line, and still say where the face is
    scores = made(images(grey, red), images(grey, red), ["", ""])
    assert scores.isnan().tolist() == [True, False]
    assert scores[1] == pytest.approx(1.0, abs=1e-5)
    assert made(images(red), images(grey), [""]).isnan().all()


def test_points_that_lie_on_one_another_are_no_face(tmp_path: Path) -> None:
    faces = [Planted(np.full((5, 2), 90.0), box=(50, 50, 130, 130))]
    detector = AlignedFaces(
        IdentityConfig.model_validate(
            {"path": "x", "detector": {"path": planted(tmp_path / "d.onnx", faces, SIZE), "size": 160}}
        ).detector  # type: ignore[arg-type]
    )
    assert detector(images(Image.new("RGB", SIZE)), (112, 112))[1].tolist() == [False]


def test_both_files_are_in_the_fingerprint(tmp_path: Path) -> None:
    embedder = mean_colour(tmp_path / "m.onnx", FACE)
    one = planted(tmp_path / "d.onnx", [Planted(POINTS)], SIZE)
    other = planted(tmp_path / "e.onnx", [Planted(POINTS, 0.8)], SIZE)
    another = mean_colour(tmp_path / "n.onnx", ["N", 3, 8, 8])
    prints = [metric(m, d).weights() for m in (embedder, another) for d in (None, one, other)]
    assert len(set(prints)) == 6
    assert prints[0] == hashlib.sha256(Path(embedder).read_bytes()).hexdigest()


def test_crops_that_are_not_square_are_refused(tmp_path: Path) -> None:
    detector = planted(tmp_path / "d.onnx", [Planted(POINTS)], SIZE)
    made = metric(mean_colour(tmp_path / "m.onnx", ["N", 3, 112, 96]), detector)
    with pytest.raises(UsageError, match=r"takes 112 x 96 \(height x width\), but faces are aligned for square crops"):
        made.embed(images(Image.new("RGB", SIZE)))


# --- the stage


def stage(path: str, detector: str | None, **section: Any) -> Identity:
    given = None if detector is None else {"path": detector, "size": 160, **section}
    made = Identity(validate(IdentityStageConfig, {"path": path, "detector": given}, "stages.identity"), MODELS)
    made.setup()
    return made


def sample(picture: Image.Image) -> Sample:
    return {"__key__": "a", "image.png": encoded(picture, "PNG"), "meta.json": encode_json({})}


def test_the_stage_stores_the_faces_embedding_and_quarantines_what_has_none(tmp_path: Path) -> None:
    embedder, detector = mean_colour(tmp_path / "m.onnx", ["N", 3, 8, 8]), red_spots(tmp_path / "d.onnx")
    grey, red = Image.new("RGB", (160, 160), "grey"), Image.new("RGB", (160, 160), "grey")
    red.paste((255, 0, 0), (80, 80, 88, 88))
    results = stage(embedder, detector)([sample(red), sample(grey)])
    stored = decode_array(dict(results[0])["identity.npy"], "identity.npy")  # type: ignore[arg-type]
    want = metric(embedder, detector).embed(images(red))[0].numpy()
    np.testing.assert_allclose(stored.astype(np.float32), want, atol=1e-3)
    assert isinstance(results[1], Bad)
    assert (results[1].reason, "stages.identity.detector.score" in results[1].message) == ("no_face", True)


def test_columns_made_without_a_detector_keep_their_fingerprint(tmp_path: Path) -> None:
    embedder = mean_colour(tmp_path / "m.onnx", FACE)
    one = planted(tmp_path / "d.onnx", [Planted(POINTS)], SIZE)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(Path(one).read_bytes())
    plain, with_one = stage_identity(stage(embedder, None)), stage_identity(stage(embedder, one))
    assert set(plain["settings"]) == {"size", "mean", "std", "channels", "layout"}
    assert with_one != plain
    assert stage_identity(stage(embedder, str(copy))) == with_one
    assert stage_identity(stage(embedder, one, score=0.4)) != with_one
