"""Tuned together is tuned alone: for every kind of weights, any number, any order, and beside one that diverges.

The backbone is the bundled one with its trained weights: its gradients are those of use. Weights are compared by how
far they moved, which is the strictest measure: ``|together - alone| <= 1e-5 |alone - start|``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.adapters import streams
from e4t_core.adapters._samples import Pool
from e4t_core.adapters._slots import Slots, learning_rates
from e4t_core.adapters.concurrent import StopConfig, Subject, TuneConfig, Tuned, tune, tuning_fit
from e4t_core.adapters.lidb import LiDBConfig, Space, lidb_projections
from e4t_core.adapters.low_rank import low_rank_per_sample
from e4t_core.adapters.tunable import LiDBWeights, LoRAWeights, TokenWeights, Tunable
from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.errors import CheckpointMismatch, DataError
from e4t_core.losses import diffusion_loss
from tests.e4t.conftest import rng

NAMES = ["lidb", "lora 1", "lora 4", "token"]
LR = 1e-3


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(BackboneConfig(path="bundled:tiny", resolution=32))


def tunable_of(backbone: Backbone, name: str) -> Tunable:
    if name == "lidb":
        return LiDBWeights(backbone, Space.of(backbone, LiDBConfig()))
    if name == "token":
        return TokenWeights(backbone, "face")
    return LoRAWeights(lidb_projections(backbone), int(name.split()[1]))


def subject(backbone: Backbone, number: int, prompts: Iterable[str] = ("a {} face",), images: int = 1) -> Subject:
    channels, h, w = backbone.latent_shape
    moments = torch.randn(images, 2 * channels, h, w, generator=rng(100 + number))
    moments[:, channels:] -= 3.0
    return Subject(str(number), 10 + number, moments, backbone.tokenize([p.replace("{}", "small") for p in prompts]))


def people(backbone: Backbone, name: str, count: int = 7) -> list[Subject]:
    prompt = f"a photo of {backbone.placeholder}" if name == "token" else "a small face"
    return [subject(backbone, number, [prompt]) for number in range(count)]


def spoiled(backbone: Backbone, name: str, at: int) -> Subject:
    """One whose loss is not a number from step ``at`` on, and at no sample before it: of its images one is spoiled,
    and the seed is such that it is drawn then."""
    one = people(backbone, name, 8)[7]
    images = torch.cat([one.moments_N2Chw + n for n in range(6)])
    images[5] = math.nan

    def drawn(seed: int, step: int, purpose: int = 0) -> int:
        key, now = streams.as_seeds([seed]), torch.tensor([step])
        return int(streams.integers(key, now, streams.IMAGE + purpose, (1,), 6))

    seed = next(
        s for s in range(10_000)
        if drawn(s, at) == 5 != drawn(s, 0, streams.PROBE) and all(drawn(s, step) != 5 for step in range(at))
    )  # fmt: skip
    return replace(one, id="spoiled", seed=seed, moments_N2Chw=images)


def tuned(backbone: Backbone, tunable: Tunable, who: Iterable[Subject], **fields: Any) -> dict[str, Tuned]:
    config = TuneConfig(**({"steps": 3, "lr": LR, "probe": 1, "eps": 1e-5} | fields))
    return {one.id: one for one in tune(backbone, tunable, who, config)}


def moved(tunable: Tunable, one: Tuned, seed: int) -> Tensor:
    start = tunable.flat(tunable.initial([seed]))
    return tunable.flat({name: t[None] for name, t in one.tensors.items()}) - start


def assert_same(tunable: Tunable, who: Subject, one: Tuned, other: Tuned, share: float = 1e-5) -> None:
    a, b = moved(tunable, one, who.seed), moved(tunable, other, who.seed)
    assert b.norm() > 0
    assert (a - b).norm() <= share * b.norm(), float((a - b).norm() / b.norm())
    assert one.losses == pytest.approx(other.losses, rel=1e-5)
    assert one.loss_before == pytest.approx(other.loss_before, rel=1e-5)
    assert one.loss_after == pytest.approx(other.loss_after, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_together_is_alone(backbone: Backbone, name: str) -> None:
    """K of 1, 2 and 7, in another order each time, and one of the seven diverges in its third step."""
    tunable, who = tunable_of(backbone, name), people(backbone, name)
    some = who[:3]
    alone = tuned(backbone, tunable, some, identities=1)
    two = tuned(backbone, tunable, [some[1], some[2], some[0]], identities=2)
    seven = tuned(backbone, tunable, [who[5], spoiled(backbone, name, 2), *who[4::-1]], identities=7)
    assert len(seven) == 7
    for one in some:
        assert_same(tunable, one, two[one.id], alone[one.id])
        assert_same(tunable, one, seven[one.id], alone[one.id])
        assert alone[one.id].diverged_at is None
    lost = seven["spoiled"]
    assert (lost.diverged_at, lost.steps, len(lost.losses)) == (2, 1, 2)
    assert all(math.isfinite(loss) for loss in [*lost.losses, lost.loss_before, lost.loss_after])


def test_with_adams_own_epsilon_weights_are_still_the_same_to_their_own_size(backbone: Backbone) -> None:
    """With 1e-8 a gradient that is nothing but rounding becomes a whole step, so small ones may differ; see
    :class:`TuneConfig`. Of all weights that is less than 1e-5."""
    tunable, who = tunable_of(backbone, "lora 4"), people(backbone, "lora 4", 3)
    alone = tuned(backbone, tunable, who, identities=1, eps=1e-8)
    three = tuned(backbone, tunable, who, identities=3, eps=1e-8)
    for one in who:
        a, b = (tunable.flat({n: t[None] for n, t in found[one.id].tensors.items()}) for found in (three, alone))
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_who_diverges_keeps_the_last_weights_that_were_good(backbone: Backbone) -> None:
    tunable = tunable_of(backbone, "lidb")
    one = spoiled(backbone, "lidb", 3)
    lost = tuned(backbone, tunable, [one, people(backbone, "lidb")[0]], steps=6)["spoiled"]
    fewer = tuned(backbone, tunable, [one], steps=2)["spoiled"]
    assert (lost.diverged_at, lost.steps, fewer.diverged_at, fewer.steps) == (3, 2, None, 2)
    assert (moved(tunable, lost, one.seed) - moved(tunable, fewer, one.seed)).norm() < 1e-5 * moved(
        tunable, fewer, one.seed
    ).norm()
    assert lost.loss_after == pytest.approx(fewer.loss_after, rel=1e-5)


def test_one_whose_last_weights_are_no_good_is_told_apart_too(backbone: Backbone) -> None:
    """Nothing but the measurement after the last step can see it: the step is too long by far."""
    tunable = tunable_of(backbone, "lora 1")
    lost = tuned(backbone, tunable, people(backbone, "lora 1", 1), steps=1, lr=1e30)["0"]
    assert (lost.diverged_at, lost.steps, len(lost.losses)) == (1, 0, 1)
    assert lost.loss_after == pytest.approx(lost.loss_before)
    assert not moved(tunable, lost, 10).any()


def test_alone_is_a_plain_loop_with_torchs_own_optimizer(backbone: Backbone) -> None:
    """Noise from the streams, clipped, with decay, warm-up and a schedule; masks, images and prompts of its own."""
    layers = lidb_projections(backbone)
    tunable = LoRAWeights(layers, 2, alpha=3.0)
    config = TuneConfig(
        steps=4, samples=2, lr=2e-3, eps=1e-5, weight_decay=0.1, grad_clip=0.01, schedule="cosine", warmup_steps=2
    )
    one = subject(backbone, 0, ["a {} face", "a {} cat"], images=2)
    one = replace(one, masks_N1hw=torch.rand(2, 1, *backbone.latent_shape[1:], generator=rng(1)))
    other = subject(backbone, 1)  # with one image, one prompt and no mask
    (engine,) = (t for t in tune(backbone, tunable, [other, one], config) if t.id == "0")

    leaf = tunable.flat(tunable.initial([one.seed])).requires_grad_()
    optimizer = torch.optim.AdamW([leaf], lr=1.0, eps=1e-5, weight_decay=0.1)
    pool, rows = Pool.of(backbone, [one], [one.ids_PT]), slice(0, 1)
    state = Slots.new(streams.as_seeds([one.seed]), torch.zeros(1, 1), 4)
    losses = []
    for rate in learning_rates(config):
        samples = pool.draw(state, rows, 2, probe=False)
        state.steps_K += 1
        with low_rank_per_sample(layers, tunable.low_rank(leaf, {}), torch.zeros(2, dtype=torch.int64)):
            text = backbone.encode_text(one.ids_PT[samples.prompt])
            x_t = backbone.schedule.add_noise(samples.x0, samples.eps, samples.t)
            said = backbone.denoise(x_t, samples.t, text)
        loss = diffusion_loss(said, backbone.schedule.target(samples.x0, samples.eps, samples.t), samples.mask).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([leaf], 0.01)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        losses.append(float(loss.detach()))
    start = tunable.flat(tunable.initial([one.seed]))
    assert engine.losses == pytest.approx(losses, rel=1e-5)
    assert (moved(tunable, engine, one.seed) - (leaf.detach() - start)).norm() < 2e-5 * (leaf.detach() - start).norm()


def test_rates_warm_up_and_fall() -> None:
    assert learning_rates(TuneConfig(steps=4, lr=2.0, warmup_steps=2)) == [1.0, 2.0, 2.0, 2.0]
    assert learning_rates(TuneConfig(steps=4, lr=1.0, schedule="linear")) == [1.0, 0.75, 0.5, 0.25]
    cosine = learning_rates(TuneConfig(steps=4, lr=1.0, schedule="cosine"))
    assert cosine == pytest.approx([1.0, 0.853553, 0.5, 0.146447], rel=1e-5)


class Counted:
    """Subjects, and how many were read."""

    def __init__(self, subjects: list[Subject]) -> None:
        self.subjects, self.read = subjects, 0

    def __iter__(self) -> Iterator[Subject]:
        for one in self.subjects:
            self.read += 1
            yield one


def test_who_is_ready_leaves_and_the_next_one_takes_the_place_at_once(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five on two places, of whom the second diverges early: nobody waits for it, and the places are never empty."""
    tunable, who = tunable_of(backbone, "token"), people(backbone, "token", 4)
    who.insert(1, spoiled(backbone, "token", 1))
    counted, sizes = Counted(who), []
    denoise = backbone.denoise

    def watched(x: Tensor, *rest: Any) -> Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(x))
        return denoise(x, *rest)

    monkeypatch.setattr(backbone, "denoise", watched)
    found = {}
    for one in tune(backbone, tunable, counted, TuneConfig(steps=9, lr=LR, identities=2, probe=1)):
        found[one.id] = one
        assert counted.read <= len(found) + 1
    assert sorted(found) == ["0", "1", "2", "3", "spoiled"]
    assert (found["spoiled"].diverged_at, found["3"].steps) == (1, 9)
    assert sizes == [2] * 18 + [1] * 8  # the divergence is seen after 8 steps
    alone = tuned(backbone, tunable, [who[4]], steps=9, eps=1e-6)["3"]
    assert_same(tunable, who[4], found["3"], alone)


def test_what_memory_does_not_hold_is_computed_in_parts_and_remembered(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tunable, who = tunable_of(backbone, "lidb"), people(backbone, "lidb", 3)
    whole, sizes, denoise = tuned(backbone, tunable, who, steps=2), [], backbone.denoise

    def small(x: Tensor, *rest: Any) -> Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(x)} samples")
        return denoise(x, *rest)

    monkeypatch.setattr(backbone, "denoise", small)
    config, fitting = TuneConfig(steps=2, lr=LR, eps=1e-5, probe=1), tuning_fit()
    with caplog.at_level(logging.WARNING):
        parts = {one.id: one for one in tune(backbone, tunable, who, config, fitting)}
    assert fitting.most == 2
    assert "tuning: memory ran out at a batch of 3; trying 2" in caplog.text
    for one in who:
        assert_same(tunable, one, parts[one.id], whole[one.id])
    sizes.clear()
    list(tune(backbone, tunable, who, config, fitting))
    assert max(sizes) == 2
    with pytest.raises(MemoryError, match="one identity alone does not fit into memory; use fewer samples"):
        list(tune(backbone, tunable, who[:1], TuneConfig(steps=1, lr=LR, samples=3, probe=1)))


def test_an_identity_stops_when_its_own_loss_no_longer_falls(backbone: Backbone) -> None:
    tunable, who = tunable_of(backbone, "token"), people(backbone, "token", 2)
    never = tuned(backbone, tunable, who, steps=5, stop=StopConfig(every=1, patience=2, min_gain=0.9))
    assert [one.steps for one in never.values()] == [2, 2]
    plain = tuned(backbone, tunable, who, steps=2)
    for one in who:
        assert_same(tunable, one, never[one.id], plain[one.id])
    always = tuned(backbone, tunable, who, steps=3, stop=StopConfig(every=1, patience=3, min_gain=0.0))
    assert [one.steps for one in always.values()] == [3, 3]


def test_prompts_are_encoded_once_where_the_weights_leave_the_text_encoder_alone(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunable = LoRAWeights(backbone.projections(("q",)), 1)
    who, seen, encode = people(backbone, "lora 1", 2), [], backbone.encode_text
    monkeypatch.setattr(backbone, "encode_text", lambda ids, *rest: seen.append(len(ids)) or encode(ids, *rest))
    tuned(backbone, tunable, who)
    assert seen == [1, 1]


def test_a_start_and_constants_of_its_own(backbone: Backbone) -> None:
    """What is tuned from where another tuning ended, on a frozen base, begins with that one's loss."""
    layers = lidb_projections(backbone)
    who = people(backbone, "lora 1", 1)[0]
    first = tuned(backbone, LoRAWeights(layers, 1), [who], steps=2)["0"]
    again = tuned(backbone, LoRAWeights(layers, 1), [replace(who, start=first.tensors)], steps=1)["0"]
    based = tuned(backbone, LoRAWeights(layers, 2, base_rank=1), [replace(who, constants=first.tensors)], steps=1)["0"]
    assert first.loss_after < first.loss_before
    assert again.loss_before == pytest.approx(first.loss_after, rel=1e-5)
    assert based.loss_before == pytest.approx(first.loss_after, rel=1e-5)
    with pytest.raises(CheckpointMismatch, match=r"the constants of subject '0': .* is missing there"):
        tuned(backbone, LoRAWeights(layers, 2, base_rank=1), [who])


def test_in_half_precision_what_is_trained_stays_float32(backbone: Backbone) -> None:
    tunable, who = tunable_of(backbone, "lidb"), people(backbone, "lidb", 2)
    full, half = (tuned(backbone, tunable, who, steps=2, precision=p) for p in ("fp32", "bf16"))
    for one in who:
        assert all(t.dtype == torch.float32 for t in half[one.id].tensors.values())
        assert half[one.id].losses == pytest.approx(full[one.id].losses, rel=0.05)
        assert half[one.id].losses != full[one.id].losses


def test_subjects_that_do_not_fit_are_named(backbone: Backbone) -> None:
    tunable, one = tunable_of(backbone, "token"), people(backbone, "token", 1)[0]
    with pytest.raises(DataError, match=r"subject '0': moments_N2Chw is \(1, 3, 8, 8\); this backbone needs \(1, 16"):
        tuned(backbone, tunable, [replace(one, moments_N2Chw=torch.zeros(1, 3, 8, 8))])
    with pytest.raises(DataError, match=r"subject '0': masks_N1hw is \(2, 1, 8, 8\); this backbone needs \(1, 1, 8, 8"):
        tuned(backbone, tunable, [replace(one, masks_N1hw=torch.zeros(2, 1, 8, 8))])
    with pytest.raises(CheckpointMismatch, match="token is missing there"):
        tuned(backbone, tunable, [replace(one, start={})])
