"""``ingest`` judges pictures: too narrow, blurred, and a hash that near-duplicates share."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import scipy.fft
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from e4t_core.config import validate
from e4t_core.errors import UsageError
from e4t_core.schema import decode_json
from pipelines.sources import RawSample
from pipelines.sources.tiny_world import render
from pipelines.stages import Bad
from pipelines.stages._quality import perceptual_hash, sharpness
from pipelines.stages.ingest import IngestConfig
from tests.stages.helpers import ingested
from tests.support.corpus import encoded, noise, quadrants


def photo(number: int) -> Image.Image:
    scene = ("plain", "beach", "snow", "night")[number % 4]
    return Image.open(io.BytesIO(render("face", number, "photo", scene, number, split="test").png())).convert("RGB")


def distance(a: Image.Image, b: Image.Image) -> int:
    return (int(perceptual_hash(a), 16) ^ int(perceptual_hash(b), 16)).bit_count()


# --- hash


def test_the_hash_is_the_signs_of_the_low_frequencies_about_their_median() -> None:
    picture = photo(3).resize((32, 32))
    low = scipy.fft.dctn(np.asarray(picture.convert("L"), float), norm="ortho")[:8, :8].ravel()
    bits = low > np.median(low[1:])
    assert perceptual_hash(picture) == f"{int(''.join('01'[int(b)] for b in bits), 2):016x}"
    assert bits[1:].sum() == 31, "half of them, the median itself left out"


def test_pictures_that_look_alike_have_near_hashes_and_others_do_not() -> None:
    pictures = [photo(i) for i in range(12)]
    for picture in pictures:
        large = picture.resize((300, 300), Image.Resampling.LANCZOS)
        copies = [
            large,
            Image.open(io.BytesIO(encoded(picture, "JPEG", quality=70))),
            picture.point(lambda level: min(255, level + 12)),
            picture.filter(ImageFilter.GaussianBlur(0.7)),
        ]
        assert max(distance(picture, copy) for copy in copies) <= 6
    others = [distance(a, b) for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(others) > 8
    assert distance(noise(64, seed=1), noise(64, seed=2)) > 16


@pytest.mark.parametrize("level", [0, 1, 77, 255])
def test_what_should_be_zero_is_no_coin_toss(level: int) -> None:
    flat = Image.new("RGB", (64, 64), (level, level, level))
    assert perceptual_hash(flat) == ("8" if level else "0") + "0" * 15
    ramp = Image.fromarray(np.tile(np.linspace(level, 255 - level, 64).astype(np.uint8), (64, 1)))
    rows = np.array([int(c, 16) for c in perceptual_hash(ramp)]).reshape(8, 2)
    assert (rows[1:] == 0).all(), "a picture that is the same in every row has no vertical frequencies"


def test_the_hash_is_in_meta_unless_the_recipe_says_no() -> None:
    raw = RawSample(encoded(photo(1), "PNG"))
    with_hash, without = ingested(raw), ingested(raw, phash=False)
    image = Image.open(io.BytesIO(with_hash["image.png"]))
    meta = decode_json(with_hash["meta.json"], "meta.json")
    assert meta.pop("phash") == perceptual_hash(image)
    assert decode_json(without["meta.json"], "meta.json") == meta


# --- sharpness


def laplacian(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    """By hand, pixel for pixel."""
    out = np.zeros((grey.shape[0] - 2, grey.shape[1] - 2))
    for y, x in np.ndindex(*out.shape):
        cross = grey[y, x + 1] + grey[y + 2, x + 1] + grey[y + 1, x] + grey[y + 1, x + 2]
        out[y, x] = cross - 4 * grey[y + 1, x + 1]
    return out


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    picture = noise(16)
    assert sharpness(picture) == pytest.approx(laplacian(np.asarray(picture.convert("L"), float)).var())
    assert sharpness(Image.new("RGB", (64, 64), "red")) == 0


def test_blurred_pictures_are_quarantined_with_value_and_bound() -> None:
    sharp = photo(2).resize((256, 256), Image.Resampling.LANCZOS)
    blurred = sharp.filter(ImageFilter.GaussianBlur(8))
    high, low = (sharpness(p.resize((64, 64), Image.Resampling.LANCZOS)) for p in (sharp, blurred))
    assert low < high / 4
    bound = round((high + low) / 2, 1)
    assert not isinstance(ingested(RawSample(encoded(sharp, "PNG")), min_sharpness=bound), Bad)
    result = ingested(RawSample(encoded(blurred, "PNG")), min_sharpness=bound)
    assert isinstance(result, Bad)
    assert result.reason == "blurred"
    assert f"at 64 x 64) is {low:.3g}"[:18] in result.message
    assert f"at least {bound:g} (stages.ingest.min_sharpness)" in result.message
    assert not isinstance(ingested(RawSample(encoded(blurred, "PNG"))), Bad), "there is no bound unless one is given"


# --- aspect


@pytest.mark.parametrize(("width", "height"), [(320, 100), (100, 320)])
def test_narrow_pictures_are_quarantined_before_they_are_decoded(width: int, height: int) -> None:
    data = encoded(quadrants(width=width, height=height), "PNG")
    result = ingested(RawSample(data[:200]), max_aspect=3.0)  # the header is whole, the pixels are not
    assert isinstance(result, Bad)
    assert result.reason == "too_narrow"
    assert f"{width} x {height}: its longer side is 3.2 times the shorter; at most 3 (" in result.message
    assert not isinstance(ingested(RawSample(data), max_aspect=3.2), Bad)
    assert not isinstance(ingested(RawSample(data)), Bad), "there is no bound unless one is given"


@pytest.mark.parametrize("field", [{"max_aspect": 0.5}, {"min_sharpness": 0}, {"min_sharpness": -1.0}])
def test_bounds_that_mean_nothing_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"ingest\.{next(iter(field))}"):
        validate(IngestConfig, {"size": 64, **field}, "stages.ingest")
