"""``mask``: the source's mask, or an explicit rule for images without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.sources import RawSample
from pipelines.stages import Bad
from pipelines.stages.mask import Mask, MaskConfig
from tests.stages.helpers import MODELS, ingested, pixels
from tests.support.corpus import encoded, quadrants


def masked(mask: Image.Image | None, size: int = 64, **config: Any) -> Any:
    raw = RawSample(encoded(quadrants(), "PNG"), mask=None if mask is None else encoded(mask, "PNG"))
    members = ingested(raw, size=size)
    assert not isinstance(members, Bad)
    return Mask(MaskConfig(**config), MODELS)([{"__key__": "0", **members}])[0]


def disc(level: int) -> Image.Image:
    y, x = np.mgrid[:64, :64]
    return Image.fromarray(np.where((x - 32) ** 2 + (y - 32) ** 2 < 400, level, 0).astype(np.uint8))


def test_the_sources_mask_is_taken_as_it_is() -> None:
    result = masked(disc(255))
    assert set(result) == {"mask.png"}
    assert np.array_equal(pixels(result["mask.png"]), np.asarray(disc(255)))


def test_it_has_the_images_size() -> None:
    assert pixels(masked(disc(255), size=32)["mask.png"]).shape == (32, 32)
    assert pixels(masked(None, size=32, missing="full")["mask.png"]).shape == (32, 32)


@pytest.mark.parametrize("level", [0, 1, 127])
def test_a_mask_without_foreground_is_quarantined(level: int) -> None:
    result = masked(disc(level))
    assert isinstance(result, Bad)
    assert result.reason == "empty_mask"
    assert f"highest level is {level} of 255" in result.message


def test_no_mask_is_quarantined_unless_the_recipe_says_full() -> None:
    refused = masked(None)
    assert isinstance(refused, Bad)
    assert refused.reason == "no_mask"
    assert "stages.mask.missing=full" in refused.message
    assert (pixels(masked(None, missing="full")["mask.png"]) == 255).all()


def test_full_does_not_replace_a_mask_that_is_there() -> None:
    assert pixels(masked(disc(255), missing="full")["mask.png"]).min() == 0
    assert masked(disc(0), missing="full").reason == "empty_mask"
