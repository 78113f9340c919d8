"""``ingest`` over everything a dataset may hold: nothing crashes, nothing is lost, nothing is turned or discoloured."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from e4t_core.errors import StorageError
from e4t_core.schema import decode_json
from pipelines.sources import RawSample
from pipelines.stages import Bad
from pipelines.stages.ingest import Ingest, IngestConfig
from tests.stages.helpers import MODELS, MemorySource, batch_of, ingested, pixels
from tests.support.corpus import Case, Corners, corpus, damages, encoded, noise, quadrants

REAL = Path(os.environ.get("E4T_REAL_DATA", Path(__file__).parents[2] / "../shared/data/real"))


def meta_of(members: Any) -> dict[str, Any]:
    return decode_json(members["meta.json"], "meta.json")


def corners_of(image: np.ndarray) -> np.ndarray:
    """Colours in the middle of the four quadrants."""
    q = image.shape[0] // 4
    return np.array([image[q, q], image[q, -q], image[-q, q], image[-q, -q]], dtype=int)


def assert_shows(data: bytes, corners: Corners, tolerance: int) -> None:
    image = pixels(data)
    assert image.shape == (64, 64, 3)
    assert np.abs(corners_of(image) - np.array(corners)).max() <= tolerance, corners_of(image).tolist()


@pytest.mark.parametrize("case", corpus(), ids=lambda case: case.name)
def test_corpus(case: Case) -> None:
    result = ingested(RawSample(case.data), case.name)
    if case.reason is not None:
        assert isinstance(result, Bad), "it should have been quarantined"
        assert (result.reason, bool(result.message)) == (case.reason, True), result.message
        return
    assert not isinstance(result, Bad), result
    assert case.corners is not None
    assert_shows(result["image.png"], case.corners, case.tolerance)
    meta = meta_of(result)
    assert {key: meta[key] for key in case.meta} == case.meta


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on the damaged tags
@pytest.mark.parametrize("damage", damages())
def test_no_damage_escapes_as_an_exception(damage: str) -> None:
    spoil = damages()[damage]
    rng = np.random.default_rng(0)
    spoiled = {f"{i:03d}_{c.name}": RawSample(spoil(c.data, rng)) for i, c in enumerate(corpus() * 4)}
    stage = Ingest(IngestConfig(size=64, max_pixels=1_000_000), MODELS)
    results = stage(batch_of(MemorySource(spoiled)))
    reasons = {r.reason for r in results if isinstance(r, Bad)}
    known = {"empty", "not_an_image", "bomb", "too_small", "truncated", "corrupt", "unsupported_mode"}
    assert reasons <= known
    assert len(reasons) >= 2, "the damage did nothing"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError("gone"), "vanished"),
        (PermissionError("mode 000"), "unreadable"),
        (IsADirectoryError("a folder"), "unreadable"),
        (OSError(5, "Input/output error"), "unreadable"),
    ],
)
def test_a_file_that_cannot_be_read_is_quarantined(error: OSError, reason: str) -> None:
    result = ingested(error, "b_7.jpg")
    assert isinstance(result, Bad)
    assert result.reason == reason
    assert "memory/b_7.jpg" in result.message


def refusal(cause: OSError) -> StorageError:
    error = StorageError(f"cannot read s3://bucket/x: {cause}")
    error.__cause__ = cause
    return error


def test_a_store_that_forbids_one_object_is_no_crash() -> None:
    result = ingested(refusal(PermissionError("AccessDenied")))
    assert isinstance(result, Bad)
    assert result.reason == "unreadable"


@pytest.mark.parametrize("error", [ConnectionError("reset"), TimeoutError("slow"), refusal(OSError("503"))], ids=repr)
def test_a_lost_service_fails_the_shard_not_the_samples(error: Exception) -> None:
    with pytest.raises(type(error)):
        ingested(error)


def test_bad_neighbours_change_nothing() -> None:
    cases = corpus()
    stage = Ingest(IngestConfig(size=64), MODELS)
    together = stage(batch_of(MemorySource({c.name: RawSample(c.data) for c in cases})))
    alone = [ingested(RawSample(c.data), c.name) for c in sorted(cases, key=lambda c: c.name)]
    assert together == alone


def test_many_readers_give_the_same_in_the_same_order() -> None:
    source = MemorySource({c.name: RawSample(c.data) for c in corpus()})
    one = Ingest(IngestConfig(size=64), MODELS)
    many = Ingest(IngestConfig(size=64, readers=8), MODELS)
    assert many(batch_of(source)) == one(batch_of(source))
    assert many.settings() == one.settings(), "readers change no byte, so they are not in the fingerprint"


def test_an_animation_can_be_refused() -> None:
    moving = next(c for c in corpus() if c.name == "moving.gif")
    result = ingested(RawSample(moving.data), moving.name, animated="quarantine")
    assert isinstance(result, Bad)
    assert result.reason == "animated"


def test_a_pixel_is_scaled_up_where_the_recipe_allows_it() -> None:
    dot = encoded(Image.new("RGB", (1, 1), (10, 20, 30)), "PNG")
    image = pixels(ingested(RawSample(dot), min_size=1)["image.png"])
    assert (image == (10, 20, 30)).all()
    assert image.shape == (64, 64, 3)


def test_limits_say_what_was_found_and_what_is_right() -> None:
    big = ingested(RawSample(encoded(noise(101), "PNG")), max_pixels=10_000)
    assert "101 x 101 = 10,201 pixels; at most 10,000" in big.message
    small = ingested(RawSample(encoded(noise(31), "PNG")), min_size=32)
    assert "31 x 31; its smaller side must be at least 32" in small.message
    text = ingested(RawSample(b"just some text here"))
    assert "b'just some text h'" in text.message
    assert "JPEG, PNG, WEBP" in text.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("width", "height"), [(640, 480), (301, 777), (1_030, 517)])
def test_it_is_the_centre_crop_then_lanczos(kind: str, width: int, height: int) -> None:
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 / width, y * 255 / height, 127 + 127 * np.sin(x / 40) * np.cos(y / 40)], -1)
    data = encoded(Image.fromarray(smooth.astype(np.uint8)), kind, **({"lossless": True} if kind == "WEBP" else {}))
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    plain = Image.open(io.BytesIO(data)).convert("RGB").crop((left, top, left + side, top + side))
    want = np.asarray(plain.resize((64, 64), Image.Resampling.LANCZOS), dtype=int)
    result = ingested(RawSample(data))
    off = np.abs(pixels(result["image.png"]).astype(int) - want)
    assert off.mean() < 0.6
    assert off.max() <= 6
    assert meta_of(result)["crop"] == [left, top, left + side, top + side]


def test_nothing_is_resampled_where_the_size_is_right_already() -> None:
    picture = noise(64)
    assert np.array_equal(pixels(ingested(RawSample(encoded(picture, "PNG")))["image.png"]), np.asarray(picture))


@pytest.mark.parametrize(("kind", "member"), [("png", "image.png"), ("jpeg", "image.jpg"), ("webp", "image.webp")])
def test_result_formats(kind: str, member: str) -> None:
    members = ingested(RawSample(encoded(quadrants(), "PNG")), format=kind)
    assert set(members) == {member, "meta.json"}
    stored = Image.open(io.BytesIO(members[member]))
    assert (stored.format, stored.mode, stored.size) == (kind.upper(), "RGB", (64, 64))


def test_lower_quality_is_smaller() -> None:
    raw = RawSample(encoded(noise(), "PNG"))
    sizes = [len(ingested(raw, format="jpeg", quality=q)["image.jpg"]) for q in (50, 95)]
    assert sizes[0] < sizes[1] / 2


def test_metadata_of_the_original_does_not_travel() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a private note"
    data = encoded(quadrants(), "JPEG", exif=exif, icc_profile=b"profile" * 100, comment=b"a private note")
    members = ingested(RawSample(data))
    assert Image.open(io.BytesIO(members["image.png"])).info == {}


def test_meta_says_what_it_is_and_where_it_came_from() -> None:
    data = encoded(quadrants(width=100), "PNG")
    raw = RawSample(data, caption="a face", template="{}", labels={"style": "photo"})
    meta = meta_of(ingested(raw, "ann_3.png", phash=False))
    assert meta == {
        "id": "ann_3.png",
        "labels": {"identity": "ann", "style": "photo"},
        "caption": "a face",
        "template": "{}",
        "sha256": hashlib.sha256(data).hexdigest(),
        "format": "PNG",
        "mislabelled": False,
        "mode": "RGB",
        "width": 100,
        "height": 64,
        "orientation": 1,
        "animated": False,
        "crop": [18, 0, 82, 64],
    }


def test_a_mask_gets_the_geometry_of_its_image() -> None:
    picture = quadrants(width=200, height=100)
    mask = Image.new("L", (200, 100), 0)
    mask.paste(255, (100, 0, 200, 50))  # where the image is green
    members = ingested(RawSample(encoded(picture, "PNG"), mask=encoded(mask, "PNG")))
    image, cut = pixels(members["image.png"]), pixels(members["source_mask.png"])
    assert cut.shape == (64, 64)
    assert cut.dtype == np.uint8
    green = (image == (0, 255, 0)).all(-1)
    assert (cut[green] == 255).mean() > 0.95
    assert cut[~green].mean() < 10


def test_a_mask_belongs_to_the_upright_image() -> None:
    turned = next(c for c in corpus() if c.name == "turned_6.jpg")
    mask = Image.new("1", (80, 64), 0)
    mask.paste(1, (0, 0, 40, 32))
    members = ingested(RawSample(turned.data, mask=encoded(mask, "PNG")))
    cut = corners_of(pixels(members["source_mask.png"]))
    assert cut.tolist() == [255, 0, 0, 0]


def test_a_mask_of_another_size_is_quarantined_with_both_sizes() -> None:
    mask = encoded(Image.new("L", (64, 65), 255), "PNG")
    result = ingested(RawSample(encoded(quadrants(), "PNG"), mask=mask))
    assert result.reason == "mask_mismatch"
    assert "64 x 65" in result.message
    assert "64 x 64" in result.message


def test_a_broken_mask_is_quarantined() -> None:
    result = ingested(RawSample(encoded(quadrants(), "PNG"), mask=b""))
    assert (result.reason, result.message) == ("mask_unreadable", "the mask has zero bytes; it should be an image file")


@pytest.mark.skipif(not REAL.is_dir(), reason="E4T_REAL_DATA names no folder")
@pytest.mark.parametrize("folder", ["lfw_like", "subjects/cat"])
def test_real_photographs_come_through(folder: str) -> None:
    files = sorted((REAL / folder).rglob("*.jpg"))
    assert len(files) >= 5
    source = MemorySource({p.name: RawSample(p.read_bytes()) for p in files})
    results = Ingest(IngestConfig(size=64), MODELS)(batch_of(source))
    assert not [r for r in results if isinstance(r, Bad)]
    for path, members in zip(sorted(files, key=lambda p: p.name), results, strict=True):
        assert not isinstance(members, Bad)
        image = pixels(members["image.png"])
        assert image.shape == (64, 64, 3)
        assert image.std() > 10, "a real photograph is not flat"
        with Image.open(path) as original:
            want = np.asarray(original.convert("RGB"), dtype=float).mean((0, 1))
        assert np.abs(image.mean((0, 1)) - want).max() < 40


def test_what_was_read_ahead_is_not_read_again() -> None:
    stage = Ingest(IngestConfig(size=32), MODELS)
    (sample,) = batch_of(MemorySource({"a.png": RawSample(encoded(quadrants(), "PNG"))}))
    plain = stage([dict(sample)])
    stage.prepare([sample])
    sample["__source__"] = None  # whoever reads now fails
    assert stage([sample]) == plain
