"""``ingest`` with ``crop: ffhq``: the largest face comes out upright, its mask with it, and no face is a reason."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from e4t_core.config import validate
from e4t_core.errors import UsageError
from e4t_core.schema import decode_json
from e4t_core.storage import Store
from pipelines.shards.commit import stage_identity
from pipelines.shards.manifest import load_manifest
from pipelines.sources import RawSample
from pipelines.stages import Bad
from pipelines.stages.ingest import Ingest, IngestConfig
from tests.shards.support import build as committed
from tests.shards.support import statuses
from tests.stages.helpers import MODELS, MemorySource, batch_of, pixels
from tests.support.corpus import encoded
from tests.support.detectors import Planted, dots, drawn, planted, red_spots, turned

SIZE = (480, 360)
Points = NDArray[np.float64]


def build(path: str, **config: Any) -> Ingest:
    given = {"size": 128, "crop": "ffhq", **config}
    detector = {"path": path, "size": 160, **given.pop("detector", {})}
    return Ingest(validate(IngestConfig, {**given, "detector": detector}, "stages.ingest"), MODELS)


def ingest(path: str, raw: RawSample, **config: Any) -> Any:
    stage = build(path, **config)
    stage.setup()
    return stage(batch_of(MemorySource({"a_1.png": raw})))[0]


def face(points: Points, tmp_path: Path, size: tuple[int, int] = SIZE, **facts: Any) -> str:
    return planted(tmp_path / "d.onnx", [Planted(points, **facts)], size)


def meta_of(members: Any) -> dict[str, Any]:
    return decode_json(members["meta.json"], "meta.json")


def expected(points: Points, size: int = 128) -> Points:
    """Where the points of an upright face lie in FFHQ's crop: see test_align for its square."""
    upright = turned(0, 1.0, (200, 200))
    shape = (upright - [80, 56.5]) * size / 240
    assert points.shape == shape.shape
    return shape - 0.5


@pytest.mark.parametrize("angle", [-40, 0, 25])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_turned_face_comes_out_upright(angle: float, kind: str, tmp_path: Path) -> None:
    points = turned(angle, 1.0, (230, 190))
    raw = RawSample(encoded(drawn(SIZE, points), kind, **({"subsampling": 0} if kind == "JPEG" else {})))
    members = ingest(face(points, tmp_path), raw)
    assert np.abs(dots(pixels(members["image.png"])) - expected(points)).max() < 0.8


def test_meta_says_which_points_and_which_square(tmp_path: Path) -> None:
    points = turned(0, 1.0, (200, 200))
    meta = meta_of(ingest(face(points, tmp_path, score=0.75), RawSample(encoded(drawn(SIZE, points), "PNG"))))
    assert meta["face"]["quad"] == [[80, 56.5], [80, 296.5], [320, 296.5], [320, 56.5]]
    assert meta["face"]["score"] == 0.75
    np.testing.assert_allclose(meta["face"]["points"], points, atol=1e-2)
    np.testing.assert_allclose(meta["face"]["box"], [160, 160, 240, 245], atol=1e-2)
    assert "crop" not in meta
    assert (meta["width"], meta["height"]) == SIZE


def test_a_small_face_in_a_large_photograph_is_not_taken_from_a_thumbnail(tmp_path: Path) -> None:
    size, points = (3200, 2400), turned(10, 1.5, (2500, 600))
    raw = RawSample(encoded(drawn(size, points), "JPEG", quality=95))
    members = ingest(face(points, tmp_path, size, stride=8), raw)
    assert np.abs(dots(pixels(members["image.png"])) - expected(points)).max() < 0.8


def test_the_detector_sees_the_picture_upright(tmp_path: Path) -> None:
    points = turned(0, 1.0, (200, 220))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = drawn((360, 480), points).transpose(Image.Transpose.ROTATE_90)
    members = ingest(face(points, tmp_path, (360, 480)), RawSample(encoded(lying, "PNG", exif=exif)))
    assert np.abs(dots(pixels(members["image.png"])) - expected(points)).max() < 0.8
    assert meta_of(members)["orientation"] == 6


def test_the_largest_face_is_kept(tmp_path: Path) -> None:
    large, small = turned(15, 1.0, (150, 180)), turned(0, 0.5, (400, 100))
    path = planted(tmp_path / "d.onnx", [Planted(small, 0.99), Planted(large, 0.6)], SIZE)
    members = ingest(path, RawSample(encoded(drawn(SIZE, large), "PNG")))
    assert np.abs(dots(pixels(members["image.png"])) - expected(large)).max() < 0.8


def test_where_the_square_leaves_the_picture_it_is_mirrored(tmp_path: Path) -> None:
    points = turned(0, 1.0, (60, 120))  # its square starts 60 pixels left of the picture, and 23.5 above
    picture = drawn((360, 360), points)
    picture.paste((0, 200, 0), (0, 170, 20, 200))
    image = pixels(
        ingest(face(points, tmp_path, (360, 360)), RawSample(encoded(picture, "PNG")), size=240)["image.png"]
    )
    assert np.abs(np.add(dots(image[:, 61:]), [61, 0]) - expected(points, 240)).max() < 0.8
    green = (image[:, :, 1] > 180) & (image[:, :, 0] < 40) & (image[:, :, 2] < 40)
    rows, columns = np.nonzero(green)
    assert (columns.min(), columns.max() + 1) == pytest.approx((41, 80), abs=1), "20 to the right of the edge, 20 left"
    assert rows.min() == pytest.approx(193, abs=1)


def test_a_mask_goes_where_its_face_goes(tmp_path: Path) -> None:
    points = turned(30, 1.0, (230, 190))
    picture, mask = drawn(SIZE, points), Image.new("L", SIZE, 0)
    left_eye = points[0]
    mask.paste(255, tuple(np.round([*(left_eye - 5), *(left_eye + 6)]).astype(int).tolist()))
    members = ingest(face(points, tmp_path), RawSample(encoded(picture, "PNG"), mask=encoded(mask, "PNG")))
    cut = pixels(members["source_mask.png"])
    assert cut.shape == (128, 128)
    assert cut.dtype == np.uint8
    rows, columns = np.nonzero(cut > 127)
    assert np.abs([columns.mean(), rows.mean()] - expected(points)[0]).max() < 0.6


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_pictures_of_any_mode_are_aligned(mode: str, tmp_path: Path) -> None:
    points = turned(0, 1.0, (200, 200))
    picture = drawn(SIZE, points).convert(mode)
    if mode == "RGBA":
        picture.paste((0, 0, 0, 0), (300, 0, 480, 360))
    image = pixels(ingest(face(points, tmp_path), RawSample(encoded(picture, "PNG")))["image.png"])
    assert image.shape == (128, 128, 3)
    if mode == "RGBA":
        assert (image[:, -8:] == 255).all(), "what is transparent is white"


# --- quarantined


def test_no_face_is_a_reason_with_the_best_score(tmp_path: Path) -> None:
    points = turned(0, 1.0, (200, 200))
    result = ingest(face(points, tmp_path, score=0.375), RawSample(encoded(drawn(SIZE, points), "PNG")))
    assert isinstance(result, Bad)
    assert result.reason == "no_face"
    assert "best score in the image is 0.375, and a face has 0.5" in result.message
    kept = ingest(
        face(points, tmp_path, score=0.375),
        RawSample(encoded(drawn(SIZE, points), "PNG")),
        detector={"score": 0.3},
    )
    assert not isinstance(kept, Bad)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.full((5, 2), 100.0), "lie within a pixel"),
        (turned(0, 1.0, (200, 200)) - 2000, "beside the picture"),
        (turned(0, 1e4, (200, 200)), "pixels long, the picture 480"),
        (np.full((5, 2), np.nan), "no numbers"),
    ],
)
def test_points_that_make_no_face_are_quarantined(points: Points, message: str, tmp_path: Path) -> None:
    path = face(points, tmp_path, box=(100, 100, 200, 200))
    result = ingest(path, RawSample(encoded(Image.new("RGB", SIZE), "PNG")))
    assert isinstance(result, Bad)
    assert result.reason == "no_face"
    assert message in result.message


def test_a_face_smaller_than_the_smallest_image_is_too_small(tmp_path: Path) -> None:
    points = turned(0, 0.1, (200, 200))
    raw = RawSample(encoded(drawn(SIZE, points), "PNG"))
    result = ingest(face(points, tmp_path), raw)
    assert isinstance(result, Bad)
    assert (result.reason, "sides of 24.0 pixels" in result.message) == ("too_small", True)
    assert not isinstance(ingest(face(points, tmp_path), raw, min_size=24), Bad)


# --- the stage's contract


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"crop": "ffhq"}, "crop 'ffhq' needs a section 'detector'"),
        ({"detector": {"path": "x"}}, "crop 'center' looks for no face"),
    ],
)
def test_a_detector_and_the_crop_that_needs_it_go_together(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validate(IngestConfig, {"size": 64, **config}, "stages.ingest")


def test_the_detector_is_in_the_fingerprint_and_its_place_is_not(tmp_path: Path) -> None:
    points = turned(0, 1.0, (200, 200))
    path = face(points, tmp_path)
    base = stage_identity(build(path))
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(Path(path).read_bytes())
    assert stage_identity(build(str(copy), detector={"device": "cuda:1"}, resources={"threads": 2})) == base
    other = planted(tmp_path / "other.onnx", [Planted(points, 0.8)], SIZE)
    changed = [build(other), build(path, detector={"score": 0.4}), build(path, detector={"iou": 0.5})]
    assert all(stage_identity(stage) != base for stage in changed)
    assert base["weights"], "the executor shares workers among stages without weights only"
    assert Ingest(IngestConfig(size=64), MODELS).weights() == ""


def test_the_driver_loads_no_detector_and_a_missing_one_is_named(tmp_path: Path) -> None:
    stage = build(str(tmp_path / "gone.onnx"))
    with pytest.raises(UsageError, match=r"no ONNX file at '.*gone\.onnx'"):
        stage.weights()
    with pytest.raises(UsageError, match=r"no ONNX file at '.*gone\.onnx'"):
        stage.setup()


def test_a_stage_that_is_set_up_can_move_to_another_process(tmp_path: Path) -> None:
    points = turned(20, 1.0, (200, 200))
    stage, batch = build(face(points, tmp_path)), batch_of(
        MemorySource({"a_1.png": RawSample(encoded(drawn(SIZE, points), "PNG"))})
    )  # fmt: skip
    stage.setup()
    moved = pickle.loads(pickle.dumps(stage))
    moved.setup()
    assert moved(batch) == stage(batch)


def test_without_a_detector_its_libraries_stay_out() -> None:
    code = (
        "import sys\n"
        "from tests.stages.helpers import ingested\n"
        "from pipelines.sources import RawSample\n"
        "from tests.support.corpus import encoded, quadrants\n"
        "assert 'image.png' in ingested(RawSample(encoded(quadrants(), 'PNG')))\n"
        "print([name for name in ('torch', 'onnxruntime', 'torchvision', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_a_store_counts_the_pictures_without_a_face(tmp_path: Path) -> None:
    grey, red = Image.new("RGB", (160, 160), "grey"), Image.new("RGB", (160, 160), "grey")
    red.paste((255, 0, 0), (80, 80, 88, 88))
    source = MemorySource({f"{name}_1.png": RawSample(encoded(p, "PNG")) for name, p in (("red", red), ("grey", grey))})
    store, stage = Store(tmp_path / "store"), build(red_spots(tmp_path / "d.onnx"), min_size=1)
    committed(store, source, [stage])
    assert statuses(store) == {"red_1.png": "ok", "grey_1.png": "no_face"}
    manifest = load_manifest(store)
    assert manifest.head["stages"]["ingest"]["weights"] == stage.weights()
