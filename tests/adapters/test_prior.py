"""Prior preservation and time budgets while many identities are tuned at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.adapters import concurrent, streams
from e4t_core.adapters._samples import Pool
from e4t_core.adapters._slots import Slots
from e4t_core.adapters.concurrent import Prior, Subject, TuneConfig, Tuned, tune
from e4t_core.adapters.low_rank import low_rank_in_runs
from e4t_core.adapters.tunable import LoRAWeights, TokenWeights, Tunable
from e4t_core.backbones.base import Backbone
from e4t_core.losses import diffusion_loss
from tests.adapters.test_concurrent import assert_same, backbone, moved, people, subject
from tests.e4t.conftest import rng

__all__ = ["backbone"]


def prior_of(backbone: Backbone, weight: float = 0.5) -> Prior:
    channels, h, w = backbone.latent_shape
    moments = torch.randn(5, 2 * channels, h, w, generator=rng(3))
    return Prior(moments, backbone.tokenize(["a face"]), weight)


def tuned(backbone: Backbone, tunable: Tunable, who: list[Subject], prior: Prior | None, **fields: Any) -> list[Tuned]:
    config = TuneConfig(**{"steps": 2, "lr": 1e-3, "probe": 1, "eps": 1e-5, "samples": 2, **fields})
    found = {one.id: one for one in tune(backbone, tunable, who, config, prior=prior)}
    return [found[one.id] for one in who]


@pytest.mark.parametrize("networks", [("unet",), ("unet", "text_encoder")])
def test_the_gradient_is_that_of_equation_2(backbone: Backbone, networks: tuple[str, ...]) -> None:
    """By hand: each identity's own samples, plus lambda times as many of the class. From the first step of AdamW
    without momentum's help: what is compared is the gradient itself."""
    tunable = LoRAWeights(backbone.projections(("q", "v"), networks), 2)
    one, prior = subject(backbone, 0), prior_of(backbone)
    (engine,) = tuned(backbone, tunable, [one], prior, steps=1, eps=1e6, lr=1e6, grad_clip=None)

    leaf = tunable.flat(tunable.initial([one.seed])).requires_grad_()
    state, schedule = Slots.new(streams.as_seeds([one.seed]), torch.zeros(1, 1), 1), backbone.schedule

    def loss(pool: Pool) -> Tensor:
        samples = pool.draw(state, slice(0, 1), 2)
        text = backbone.encode_text(pool.prompts.items[samples.prompt])
        said = backbone.denoise(schedule.add_noise(samples.x0, samples.eps, samples.t), samples.t, text)
        return diffusion_loss(said, schedule.target(samples.x0, samples.eps, samples.t)).mean()

    own, others = Pool.of(backbone, [one], [one.ids_PT]), Pool.of_class(backbone, prior, prior.ids_1T, 1)
    with low_rank_in_runs(tunable.projections, tunable.low_rank(leaf, {})):
        mine, theirs = loss(own), loss(others)
    (gradient,) = torch.autograd.grad(mine + 0.5 * theirs, leaf)
    step = moved(tunable, engine, one.seed)  # lr / eps = 1: minus the gradient
    torch.testing.assert_close(step, -gradient, rtol=1e-3, atol=1e-6)
    assert engine.losses == pytest.approx([float(mine.detach())], rel=1e-5), "what is told is the identity's own"
    (alone,) = torch.autograd.grad(loss_with(backbone, tunable, leaf, loss, own), leaf)
    assert (step + alone).norm() > 0.05 * alone.norm(), "the term is no small part"


def loss_with(backbone: Backbone, tunable: LoRAWeights, leaf: Tensor, loss: Any, pool: Pool) -> Tensor:
    with low_rank_in_runs(tunable.projections, tunable.low_rank(leaf, {})):
        found: Tensor = loss(pool)
    return found


def test_the_class_draws_noise_of_its_own(backbone: Backbone) -> None:
    one, prior = subject(backbone, 0), prior_of(backbone)
    state = Slots.new(streams.as_seeds([one.seed]), torch.zeros(1, 1), 1)
    own = Pool.of(backbone, [one], [one.ids_PT]).draw(state, slice(0, 1), 3)
    others = Pool.of_class(backbone, prior, prior.ids_1T, 1).draw(state, slice(0, 1), 3)
    assert not torch.equal(own.eps, others.eps)
    assert own.t.tolist() != others.t.tolist()


def test_together_is_alone_with_a_prior(backbone: Backbone) -> None:
    tunable, who = LoRAWeights(backbone.projections(("q", "v")), 2), people(backbone, "lora 2", 3)
    together = tuned(backbone, tunable, who, prior_of(backbone))
    for one, found in zip(who, together, strict=True):
        (alone,) = tuned(backbone, tunable, [one], prior_of(backbone))
        assert_same(tunable, one, found, alone)
    (free,) = tuned(backbone, tunable, who[:1], None)
    assert (moved(tunable, free, who[0].seed) - moved(tunable, together[0], who[0].seed)).norm() > 0


class Clock:
    """A clock that goes on by a second whenever it is read."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, device: torch.device) -> float:
        self.seconds += 1.0
        return self.seconds


def test_an_identity_stops_when_its_share_of_the_time_is_spent(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four together have four times as long as one alone."""
    tunable, who = TokenWeights(backbone, "face"), people(backbone, "token", 4)
    steps = {}
    for count in (1, 4):
        monkeypatch.setattr(concurrent, "now", Clock())
        found = tuned(backbone, tunable, who[:count], None, steps=9, samples=1, seconds=2.0)
        steps[count] = [one.steps for one in found]
        assert [len(one.losses) for one in found] == steps[count]
    assert steps == {1: [1], 4: [7, 7, 7, 7]}  # a second to enter and one for each step; of four, each has a quarter
    (whole,) = tuned(backbone, tunable, who[:1], None, steps=1, samples=1)
    monkeypatch.setattr(concurrent, "now", Clock())
    (budgeted,) = tuned(backbone, tunable, who[:1], None, steps=9, samples=1, seconds=2.0)
    assert_same(tunable, who[0], budgeted, whole)


def test_several_vectors_stand_for_placeholders_in_turn(backbone: Backbone) -> None:
    tunable, word = TokenWeights(backbone, "face", vectors=2), backbone.placeholder
    assert tunable.shapes == {"token": (2, backbone.text_width)}
    ids = backbone.tokenize([f"a photo of {word} {word}", f"{word} {word}"])
    start = backbone.encode_text(ids, tunable.spliced(tunable.flat(tunable.initial([0, 0]))))
    plain = backbone.encode_text(backbone.tokenize(["a photo of face face", "face face"]))
    assert torch.equal(start, plain)
    first, second = backbone.token_embedding("cat"), backbone.token_embedding("snow")
    both = torch.stack([first, second]).expand(2, -1, -1)
    expected = backbone.encode_text(backbone.tokenize(["a photo of cat snow", "cat snow"]))
    assert torch.equal(backbone.encode_text(ids, both), expected)
    one = subject(backbone, 0)
    prompts = replace(one, ids_PT=ids[:1])
    (found,) = tuned(backbone, tunable, [prompts], None)
    change = found.tensors["token"] - tunable.start_D
    assert (change.norm(dim=1) > 0).all()
    assert not torch.equal(change[0], change[1])
