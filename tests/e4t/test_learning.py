"""What the shipped stack must be able to do: learn people nobody trained on, from one photo."""

from __future__ import annotations

import functools
import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from e4t_core.backbones import load_backbone, load_clip
from e4t_core.methods import Identity
from e4t_core.metrics import METRICS
from e4t_core.metrics._statistics import bootstrap_difference
from e4t_core.sampling import sample
from e4t_core.storage import Store
from e4t_core.training import load_module
from jobs._recipe import load
from jobs._run_folder import MODULE
from pipelines.sources.tiny_world import render

PROMPTS = ("photo", "sketch", "snow")
_log = logging.getLogger(__name__)
"""`pytest --log-cli-level=INFO tests/e4t/test_learning.py` prints the figures."""
PHOTOS = 3
"""Of each person; the first is learned from, likeness is to all."""


def unseen(domain: str, count: int, clip: Any) -> Iterator[tuple[Identity, Tensor]]:
    """People, cats or painters of the test split: the photo with its mask, and all photos."""
    for person in range(count):
        drawn = [render(domain, person, "photo", "plain", n, split="test", seed=0, size=64) for n in range(PHOTOS)]
        photos = torch.stack([torch.from_numpy(d.rgb).permute(2, 0, 1).float() / 127.5 - 1 for d in drawn])
        with Image.open(io.BytesIO(drawn[0].mask_png())) as found:
            mask = torch.from_numpy(np.array(found.convert("L"))).float()[None, None] / 255
        cls_NLD, _ = clip.image_features(photos[:1])
        yield Identity(str(person), photos[:1], cls_NLD, mask, seed=person), photos


@functools.cache
def scores(people: int, tune: str, shipped: bool = True) -> dict[str, dict[str, float]]:
    """``identity`` and ``clip_t`` of every person's pictures, with the face encoder that ships or one that has learned
    nothing."""
    recipe = load("nightly_tiny", [f"method.personalize.tune={tune}"])
    backbone, clip, method = load_backbone(recipe.backbone), load_clip(recipe.clip), recipe.build_method()
    module = method.build(backbone, clip.dims)
    if shipped:
        load_module(Store("bundled:e4t_face"), MODULE, module)
    metrics = {n: METRICS.get(n)(recipe.metrics[n], recipe.models) for n in ("identity", "clip_t")}
    for metric in metrics.values():
        metric.setup()
    prompts = [p for p in recipe.generate.prompts if p.name in PROMPTS]
    texts = [p.template.replace("{}", backbone.placeholder) for p in prompts]
    found: dict[str, dict[str, float]] = {name: {} for name in metrics}
    for identity, photos in unseen("face", people, clip):
        (adapter,) = method.personalize(module, backbone, [identity])
        conditioning = method.conditioning(module, backbone, adapter, identity, texts)
        with torch.no_grad():
            images = sample(backbone, conditioning, recipe.generate.sampler, list(range(len(texts))))
        for name, metric in metrics.items():
            values = metric(images, photos, [p.concept_less for p in prompts])
            found[name][identity.id] = float(values.mean())
    return found


def gained(after: dict[str, dict[str, float]], before: dict[str, dict[str, float]], people: int) -> None:
    """Likeness rose, over these people and with 95 % confidence, and prompts work nearly as well."""
    gain = bootstrap_difference(after["identity"], before["identity"], samples=2000, confidence=0.95)
    was, now = (np.mean(list(found["clip_t"].values())) for found in (before, after))
    told = f"{people} people: ID {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], CLIP-T {was:.3f} -> {now:.3f}"
    _log.info(told)
    assert gain.identities == people
    assert gain.low > 0, told
    assert now >= 0.9 * was, told


@pytest.mark.parametrize("people", [5, pytest.param(24, marks=pytest.mark.full)])
def test_tuning_on_one_photo_brings_out_the_person(people: int) -> None:
    """E4T's claim: 15 steps raise likeness on people never seen, and prompts still work."""
    gained(scores(people, "all"), scores(people, "none"), people)


@pytest.mark.full
def test_the_encoder_alone_already_draws_somebody_like_them() -> None:
    """What pre-training is for: likeness before any tuning. It is smaller than tuning's, so it takes more people."""
    gained(scores(24, "none"), scores(24, "none", shipped=False), 24)


@pytest.mark.parametrize("domain", ["face", "cat", "art"])
def test_the_encoder_tells_them_apart(domain: str) -> None:
    """Another photo of an unseen person, cat or painter's hand is denoised better with what the encoder says of them
    than with what it says of somebody else."""
    recipe, people, draws = load(f"e4t_{domain}_tiny"), 24, 16
    backbone, clip, method = load_backbone(recipe.backbone), load_clip(recipe.clip), recipe.build_method()
    module = method.build(backbone, clip.dims)
    load_module(Store(f"bundled:e4t_{domain}"), MODULE, module)
    known = list(unseen(domain, people, clip))
    own, other = {}, {}
    with torch.no_grad(), method.pretraining(module, backbone):
        for number, (identity, photos) in enumerate(known):
            moments = backbone.to_moments(photos[1:2]).repeat(draws, 1, 1, 1)
            for found, whose in ((own, identity), (other, known[number - 1][0])):
                cls_BLD = whose.clip_cls_NLD.repeat(draws, 1, 1)
                batch = {"latent_moments": moments, "clip_cls": cls_BLD, "templates": ["a photo of {}"] * draws}
                rng = torch.Generator().manual_seed(number)
                losses = method.pretrain_loss(module, backbone, batch, rng)
                found[identity.id] = float(losses.terms["diffusion"])
    saved = bootstrap_difference(other, own, samples=2000, confidence=0.95)
    told = f"{people} of {domain}: loss {np.mean(list(own.values())):.4f}, {saved.mean:+.4f} "
    told += f"[{saved.low:+.4f}, {saved.high:+.4f}] with another's features"
    _log.info(told)
    assert saved.low > 0, told
