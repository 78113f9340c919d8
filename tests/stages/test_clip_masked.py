"""`stages.clip.masked`: features of the object without its background, from the column `mask`."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from e4t_core.errors import UsageError
from e4t_core.schema import Sample, decode_array
from jobs._recipe import load
from pipelines.stages.clip import Clip, ClipStageConfig, without_background
from tests.stages.helpers import MODELS

SIDE = 64


def png(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def sample_of(background: int, foreground: int = 200) -> Sample:
    """A grey square on another grey; the mask is the square."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    image = np.full((SIDE, SIDE, 3), background, np.uint8)
    image[16:48, 16:48] = foreground
    return {"__key__": f"k{background}-{foreground}", "image.png": png(image), "mask.png": png(mask)}


def features(samples: list[Sample], **fields: bool) -> list[np.ndarray]:
    stage = Clip(ClipStageConfig(**fields), MODELS)
    stage.setup()
    found = stage(samples)
    return [decode_array(one["clip_cls.npy"], "clip") for one in found]  # type: ignore[index]


def test_the_background_is_not_seen_and_the_object_is() -> None:
    one, other, brighter = sample_of(10), sample_of(120), sample_of(10, foreground=90)
    masked = features([one, other, brighter], masked=True)
    assert np.array_equal(masked[0], masked[1])
    assert not np.array_equal(masked[0], masked[2])
    whole = features([one, other])
    assert not np.array_equal(whole[0], whole[1])
    # black is what is left: an image that is black there has the same features without a mask
    assert np.allclose(features([sample_of(0)])[0], masked[0], atol=2e-3)


def test_black_is_minus_one() -> None:
    image, mask = torch.full((1, 3, 2, 2), 0.5), torch.tensor([[[[1.0, 0.0], [0.5, 1.0]]]])
    assert without_background(image, mask)[0, 0].tolist() == [[0.5, -1.0], [-0.25, 0.5]]


def test_only_then_the_mask_is_read() -> None:
    """Stores and recipes from before the field keep their fingerprints and hashes."""
    plain, masked = (Clip(ClipStageConfig(masked=value), MODELS) for value in (False, True))
    assert plain.reads == Clip.reads == ("ingest",)
    assert masked.reads == ("ingest", "mask")
    assert "masked" not in plain.settings()
    assert "masked" not in plain.config.dump()
    assert masked.settings() == {**plain.settings(), "masked": True}


def test_it_comes_after_the_mask_and_needs_one() -> None:
    order = [stage.name for stage in load("tiny", ["stages.clip.masked=true"]).build_stages()]
    assert order.index("mask") < order.index("clip")
    with pytest.raises(UsageError, match=r"stages\.clip reads the column 'mask': add stages.mask"):
        load("tiny", ["stages.clip.masked=true", "stages.mask=null"]).build_stages()
