"""CLIP-T and CLIP-I: cosines in the configured model's own space."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from e4t_core.backbones.config import BackboneConfig, ClipConfig, Models
from e4t_core.metrics._clip import ClipMetric, ClipMetricConfig
from e4t_core.metrics.clip_i import ClipI
from e4t_core.metrics.clip_t import ClipT

MODELS = Models(
    backbone=BackboneConfig(path="bundled:tiny", random_seed=0, resolution=64),
    clip=ClipConfig(path="bundled:clip_tiny", random_seed=0),
)


def images(count: int, seed: int) -> Tensor:
    coarse = torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, (64, 64), mode="bicubic").clamp(-1, 1)


def ready(cls: type[ClipMetric], **config: object) -> ClipMetric:
    metric = cls(ClipMetricConfig(**config), MODELS)
    metric.setup()
    return metric


@torch.inference_mode()
def test_clip_i_is_the_mean_cosine_to_every_reference() -> None:
    metric = ready(ClipI)
    generated, references = images(4, 1), images(3, 2)
    scores = metric(generated, references, ["x"] * 4)
    g, r = metric.model.embed_images(generated), metric.model.embed_images(references)
    want = torch.stack([F.cosine_similarity(gi[None], r).mean() for gi in g])
    torch.testing.assert_close(scores, want, atol=1e-5, rtol=0)


def test_an_image_is_most_like_itself() -> None:
    metric = ready(ClipI)
    pool = images(4, 1)
    scores = metric(pool, pool[2:3], [""] * 4)
    assert scores.argmax() == 2
    assert scores[2] == pytest.approx(1, abs=1e-5)


@torch.inference_mode()
def test_clip_t_pairs_each_image_with_its_own_prompt() -> None:
    metric = ready(ClipT)
    generated = images(4, 1)
    prompts = ["a pencil sketch", "a photo of the beach", "a pencil sketch", "a photo"]
    scores = metric(generated, images(1, 2), prompts)
    g, t = metric.model.embed_images(generated), metric.model.embed_texts(prompts)
    torch.testing.assert_close(scores, F.cosine_similarity(g, t), atol=1e-5, rtol=0)
    swapped = metric(generated, images(1, 2), prompts[::-1])
    assert (swapped - scores).abs().max() > 1e-4, "the prompt matters"


def test_clip_t_does_not_look_at_the_references() -> None:
    metric = ready(ClipT)
    scores = [metric(images(2, 1), images(2, seed), ["a", "b"]) for seed in (2, 3)]
    assert torch.equal(*scores)


@pytest.mark.parametrize("cls", [ClipI, ClipT])
def test_batches_do_not_change_scores(cls: type[ClipMetric]) -> None:
    prompts = ["a photo", "a sketch", "a cat", "snow", "a photo"]
    one, all_ = (ready(cls, batch_size=b)(images(5, 1), images(3, 2), prompts) for b in (1, 32))
    torch.testing.assert_close(one, all_, atol=1e-5, rtol=0)


def test_a_metric_may_judge_with_a_model_of_its_own() -> None:
    other = ClipConfig(path="bundled:clip_tiny", random_seed=1)
    scores = [ready(ClipI, clip=clip)(images(2, 1), images(2, 2), ["", ""]) for clip in (None, other)]
    assert (scores[0] - scores[1]).abs().max() > 1e-4
    assert ClipI(ClipMetricConfig(), MODELS).weights() != ClipI(ClipMetricConfig(clip=other), MODELS).weights()


def test_random_weights_are_told_apart_from_trained_ones() -> None:
    trained = ClipConfig(path="ViT-B-32", pretrained="laion2b_s34b_b79k")
    assert ClipT(ClipMetricConfig(), MODELS).untrained()
    assert not ClipT(ClipMetricConfig(clip=trained), MODELS).untrained()


def test_one_model_serves_both_metrics_of_a_worker() -> None:
    assert ready(ClipT).model is ready(ClipI).model
