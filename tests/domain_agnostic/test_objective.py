"""The pre-training loss: its terms and switches, two learning rates, and weights that outlive the forward pass."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.adapters.dual_path import DualPathConfig
from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.errors import CheckpointMismatch, DataError
from e4t_core.losses import contrastive_loss, diffusion_loss, draw_noise, marks_of, nearest_tokens, offset_l2
from e4t_core.methods import Losses, ParameterGroup
from e4t_core.methods.domain_agnostic import DomainAgnostic, DomainAgnosticModule
from e4t_core.methods.domain_agnostic.objective import NoisyBatch, objective
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training import TrainConfig, load_module, save_module, train
from tests.domain_agnostic.conftest import Make, built, in_step, stirred
from tests.e4t.conftest import RESOLUTION, Fixed, batch_of, rng


def losses(method: DomainAgnostic, module: DomainAgnosticModule, backbone: Backbone, batch: dict[str, Any]) -> Losses:
    with in_step(method, module, backbone):
        return method.pretrain_loss(module, backbone, batch, rng(4))


def noisy_of(backbone: Backbone, batch: dict[str, Any]) -> NoisyBatch:
    x0, eps, t = draw_noise(backbone, batch["latent_moments"], rng(4))
    ids = backbone.tokenize([text.replace("{}", backbone.placeholder) for text in batch["templates"]])
    return NoisyBatch(x0, eps, t, ids, batch["clip_tokens"], marks_of(batch["keys"], backbone.device))


def test_the_total_is_its_terms_and_each_sample_has_its_own_weights(backbone: Backbone, make_method: Make) -> None:
    method = make_method(nearest_weight=0.5, l2_weight=0.25, offset_weight=0.125)
    module, batch = stirred(built(method, backbone)), batch_of(backbone, 3)
    with torch.no_grad():
        found = losses(method, module, backbone, batch)
        noisy = noisy_of(backbone, batch)
        x_t = backbone.schedule.add_noise(noisy.x0, noisy.eps, noisy.t)
        v, lora = module.predict(backbone, noisy.tokens, x_t, noisy.t)
        near = nearest_tokens(v, backbone.token_table, 5, backbone.special_ids)
        diffusion = 0.0
        for i in range(3):
            one, hard = slice(i, i + 1), {"hard": backbone.token_table[near[i : i + 1, 0]]}
            text = torch.cat([backbone.encode_text(noisy.ids[one], word) for word in (v[one], hard["hard"])])
            with module.weights.on(module.weights.join(lora[one], v[one]), hard):
                said = backbone.denoise(x_t[one], noisy.t[one], text)
            target = backbone.schedule.target(noisy.x0, noisy.eps, noisy.t)[one]
            diffusion += float(diffusion_loss(said, target)) / 3
    terms = {
        "diffusion": diffusion,
        "embedding_l2": float(v.square().sum(1).mean()),
        "contrastive": float(contrastive_loss(v, backbone.token_table[near], noisy.marks, 0.07).mean()),
        "offset_l2": float(offset_l2(module.weights.lora.low_rank(lora, {})).mean()),
    }
    assert {name: float(t) for name, t in found.terms.items()} == pytest.approx(terms, rel=1e-4)
    weights = {"diffusion": 1, "embedding_l2": 0.25, "contrastive": 0.5, "offset_l2": 0.125}
    assert float(found.total) == pytest.approx(sum(weights[n] * value for n, value in terms.items()), rel=1e-4)


@pytest.mark.parametrize(
    ("regularization", "extra"),
    [
        ("none", set()),
        ("l2", {"embedding_l2"}),
        ("nearest_cosine", {"embedding_l2", "nearest_cosine"}),
        ("contrastive", {"embedding_l2", "contrastive"}),
    ],
)
def test_regularization_is_one_switch(
    backbone: Backbone, make_method: Make, regularization: str, extra: set[str]
) -> None:
    method = make_method(regularization=regularization)
    module = stirred(built(method, backbone))
    assert set(losses(method, module, backbone, batch_of(backbone, 2)).terms) == {"diffusion", "offset_l2", *extra}


def test_special_tokens_are_never_near(backbone: Backbone, make_method: Make) -> None:
    """Begin, end, padding and placeholder: an embedding that is exactly one of them has other neighbours."""
    assert len(backbone.special_ids) >= 2
    table = backbone.token_table
    near = nearest_tokens(table[list(backbone.special_ids)], table, 5, backbone.special_ids)
    assert not {*backbone.special_ids, backbone.placeholder_id} & set(near.flatten().tolist())
    begin, end = (int(backbone.tokenize([""])[0, i]) for i in (0, 1))
    assert {begin, end} <= set(backbone.special_ids)


def test_one_image_twice_is_told_by_its_key(backbone: Backbone, make_method: Make) -> None:
    method = make_method()
    module, batch = stirred(built(method, backbone)), batch_of(backbone, 2)
    assert losses(method, module, backbone, batch).terms["contrastive"] > 0
    same = {**batch, "keys": [batch["keys"][0]] * 2}
    assert losses(method, module, backbone, same).terms["contrastive"] == 0


def test_a_fresh_encoder_is_the_backbone_on_its_word(backbone: Backbone, make_method: Make) -> None:
    method, batch = make_method(), batch_of(backbone, 2)
    noisy = noisy_of(backbone, batch)
    x_t = backbone.schedule.add_noise(noisy.x0, noisy.eps, noisy.t)
    words = backbone.encode_text(backbone.tokenize([t.replace("{}", "face") for t in batch["templates"]]))
    expected = diffusion_loss(
        backbone.denoise(x_t, noisy.t, words), backbone.schedule.target(noisy.x0, noisy.eps, noisy.t)
    ).mean()
    found = losses(method, built(method, backbone), backbone, batch).terms
    torch.testing.assert_close(found["diffusion"].detach(), expected, rtol=1e-6, atol=1e-7)
    assert found["offset_l2"] == 0


@pytest.mark.parametrize("fields", [{"hypernetwork": False}, {"dual_path": DualPathConfig(per="none")}])
def test_switches_of_fig_5b_change_what_is_learned(
    backbone: Backbone, make_method: Make, fields: dict[str, Any]
) -> None:
    batch = batch_of(backbone, 2)
    whole, switched = make_method(), make_method(**fields)
    found = []
    for method in (whole, switched):
        module = stirred(built(method, backbone))
        with in_step(method, module, backbone):
            loss = method.pretrain_loss(module, backbone, batch, rng(4))
            loss.total.backward()
        assert all(p.grad is not None and p.grad.any() for p in module.parameters())
        found.append(float(loss.terms["diffusion"].detach()))
    assert found[0] != pytest.approx(found[1], rel=1e-4)


def gradients(method: DomainAgnostic, backbone: Backbone, micro_batches: int = 2) -> list[Tensor]:
    module = stirred(built(method, backbone))
    with in_step(method, module, backbone):
        for seed in range(micro_batches):
            method.pretrain_loss(module, backbone, batch_of(backbone, 2, seed), rng(seed)).total.backward()
    return [p.grad for p in module.parameters() if p.grad is not None]


def test_checkpointed_layers_are_computed_again_with_the_weights(make_method: Make) -> None:
    """The backward pass, in which they are, comes after the loss was returned; and a second micro-batch has its own."""
    backbone = load_backbone(BackboneConfig(path="bundled:tiny", random_seed=0, resolution=RESOLUTION))
    method = make_method()
    plain = gradients(method, backbone)
    backbone.enable_gradient_checkpointing()
    for one, other in zip(plain, gradients(method, backbone), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-7)


def test_weights_are_off_when_the_step_ends_whatever_happened(backbone: Backbone, make_method: Make) -> None:
    method = make_method()
    module, batch = stirred(built(method, backbone)), batch_of(backbone, 1)
    x, t, text = batch["latent_moments"][:, :8], torch.tensor([10]), backbone.encode_text(backbone.tokenize(["a cat"]))
    before = backbone.denoise(x, t, text)
    with contextlib.suppress(KeyError), in_step(method, module, backbone):
        method.pretrain_loss(module, backbone, batch, rng())
        raise KeyError
    assert torch.equal(backbone.denoise(x, t, text), before)
    with pytest.raises(RuntimeError, match=r"only inside Method\.step\(\)"):
        method.pretrain_loss(module, backbone, batch, rng())


def test_the_objective_has_no_randomness_of_its_own(backbone: Backbone, make_method: Make) -> None:
    method = make_method()
    module, noisy = stirred(built(method, backbone)), noisy_of(backbone, batch_of(backbone, 2))
    totals = []
    for _ in range(2):
        with contextlib.ExitStack() as scope:
            totals.append(objective(method.config, module, backbone, noisy, scope).total)
    assert torch.equal(*totals)


# --- two learning rates


def test_the_hypernetwork_learns_at_a_tenth_of_the_rate(backbone: Backbone, make_method: Make) -> None:
    """Section 5.1: 1e-4 and 1e-5. Adam's first step is the rate itself, whatever the gradient."""
    method = make_method()
    module = stirred(built(method, backbone))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    cfg = TrainConfig(steps=1, batch_size=2, base_lr=1e-4, scale_lr=False, weight_decay=0.0)
    train(method, module, backbone, Fixed([batch_of(backbone, 2)]), cfg, seed=0)
    moved = {name: float((p - before[name]).detach().abs().max()) for name, p in module.named_parameters()}
    for name, most in moved.items():
        rate = 1e-5 if "hypernetwork" in name else 1e-4
        assert most == pytest.approx(rate, rel=0.02), name


def test_a_run_with_groups_goes_on_exactly_where_it_was(backbone: Backbone, make_method: Make) -> None:
    method, batches = make_method(), [batch_of(backbone, 2, seed) for seed in range(3)]
    cfg = TrainConfig(steps=4, batch_size=2, base_lr=1e-3, warmup_steps=2, checkpoint_every=2)
    states: dict[int, Any] = {}
    whole = built(method, backbone)
    train(
        method, whole, backbone, Fixed(batches), cfg, seed=0, on_checkpoint=lambda s: states.setdefault(s.step, s)
    )  # fmt: skip
    resumed = built(method, backbone)
    train(method, resumed, backbone, Fixed(batches), cfg, seed=0, start=states[2])
    for (name, one), other in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_groups_that_leave_a_parameter_out_are_refused(backbone: Backbone, make_method: Make) -> None:
    method = make_method()
    module = built(method, backbone)
    method.parameter_groups = lambda m: [ParameterGroup(list(m.encoder.token.parameters()))]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"every trained parameter once.*encoder\.trunk"):
        train(method, module, backbone, Fixed([]), TrainConfig(steps=1), seed=0)


# --- what is refused


def test_columns_without_patches_and_checkpoints_of_other_switches(
    backbone: Backbone, make_method: Make, tmp_path: Any
) -> None:
    method = make_method()
    module, batch = built(method, backbone), batch_of(backbone, 2)
    del batch["clip_tokens"]
    with pytest.raises(DataError, match=r"no patch tokens.*stages\.clip\.tokens=true"):
        losses(method, module, backbone, batch)
    save_module(Store(tmp_path), "module.safetensors", module, Record.of("module", {}))
    other = built(make_method(hypernetwork=False), backbone)
    with pytest.raises(CheckpointMismatch, match=r"method\.hypernetwork is True there and False here"):
        load_module(Store(tmp_path), "module.safetensors", other)
