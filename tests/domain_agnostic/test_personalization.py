"""One prediction and a dozen steps: what tuning needs, what holds it back, what an adapter holds and can become."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.adapters.borrowed import away
from e4t_core.adapters.dual_path import ConceptWeights, DualPathConfig
from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.errors import CheckpointMismatch, DataError
from e4t_core.methods import Adapter
from e4t_core.methods.domain_agnostic import DomainAgnosticModule
from e4t_core.methods.domain_agnostic import personalization as steps
from e4t_core.methods.domain_agnostic.prediction import predict
from e4t_core.record import Record
from e4t_core.training import TrainConfig, train
from tests.domain_agnostic.conftest import Make, draw, ready, short
from tests.e4t.conftest import RESOLUTION, Fixed, assert_same, batch_of, identity_of, snapshot

ONE_PATH: dict[str, Any] = {"dual_path": DualPathConfig(per="none")}
RECORD = Record.of("adapter", {})


def numbers(adapter: Adapter) -> Tensor:
    return torch.cat([t.flatten() for t in adapter.tensors.values()])


# --- the prediction


def test_one_forward_pass_and_no_more(backbone: Backbone, make_method: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    method, module = ready(make_method, backbone, steps=3, noise_level=0.25)
    seen: list[tuple[int, int]] = []
    features = backbone.mid_features
    monkeypatch.setattr(backbone, "mid_features", lambda x, t: seen.append((len(x), int(t[0]))) or features(x, t))
    method.personalize(module, backbone, [identity_of("ann", 1), identity_of("bob", 2)])
    assert seen == [(1, 250), (1, 250)]  # the last of 1,000 levels is 999


def test_without_tuning_the_adapter_is_the_prediction(backbone: Backbone, make_method: Make) -> None:
    method, module = ready(make_method, backbone, steps=0, alpha=6.0)
    ann = identity_of("ann", 1)
    adapter, said = method.personalize(module, backbone, [ann])[0], predict(method.config, module, backbone, ann)
    assert torch.equal(adapter.tensors["token"], said.tensors["token"])
    for name, tensor in said.tensors.items():
        if name != "token":
            torch.testing.assert_close(adapter.tensors[f"lora.{name}"], tensor * (3.0 if name.endswith(".up") else 1.0))
    assert (adapter.meta["steps"], adapter.meta["losses"]) == (0, [])
    noisier, _ = ready(make_method, backbone, steps=0, alpha=6.0, noise_level=0.9)
    other = noisier.personalize(module, backbone, [ann])[0]
    assert not torch.equal(other.tensors["token"], adapter.tensors["token"])


def test_the_nearest_tokens_are_named_and_the_nearest_stands_in_the_hard_prompt(
    backbone: Backbone, make_method: Make
) -> None:
    method, module = ready(make_method, backbone, near=4)
    chair = backbone.token_embedding("chair")
    with torch.no_grad():
        module.start_D.copy_(chair)
        module.encoder.token.weight.zero_()
        module.encoder.token.bias.zero_()
    adapter = method.personalize(module, backbone, [identity_of("ann", 1)])[0]
    table = backbone.token_table
    cosines = torch.nn.functional.cosine_similarity(chair[None], table)
    cosines[list(backbone.special_ids)] = -1
    expected = cosines.topk(4).indices.tolist()
    assert adapter.meta["hard"] == expected[0] == int(backbone.tokenize(["chair"])[0, 1])
    assert adapter.meta["near"] == backbone.token_words(expected)
    assert adapter.meta["near"][0] == "chair"
    conditioning = method.conditioning(module, backbone, adapter, identity_of("ann", 1), ["a photo of S*"])
    assert torch.equal(conditioning.constants["hard"][0], table[expected[0]])  # type: ignore[attr-defined]


# --- the tuning


def test_tuning_lowers_the_loss_it_starts_from(backbone: Backbone, make_method: Make) -> None:
    method, module = ready(make_method, backbone, steps=12, samples=4, probe=8)
    for adapter in method.personalize(module, backbone, [identity_of("ann", 1), identity_of("bob", 2)]):
        assert adapter.meta["loss_after"] < adapter.meta["loss_before"]
        assert (adapter.meta["steps"], len(adapter.meta["losses"])) == (12, 12)


def test_the_encoder_is_gone_while_tuning(backbone: Backbone, make_method: Make) -> None:
    """Nothing that tuning gets holds the encoder: it needs the backbone and the prediction alone."""
    method, module = ready(make_method, backbone)
    people = [identity_of("ann", 1), identity_of("bob", 2)]
    expected = method.personalize(module, backbone, people)
    predictions = [predict(method.config, module, backbone, one) for one in people]
    encoder = weakref.ref(module.encoder)
    del module
    gc.collect()
    assert encoder() is None
    for one, other in zip(steps.tune_all(method.config, backbone, people, predictions), expected, strict=True):
        assert_same(one.tensors, other.tensors)


def test_the_encoder_is_put_away_for_the_time_of_tuning(
    backbone: Backbone, make_method: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, module = ready(make_method, backbone)
    order: list[str] = []
    tune, to = steps.tune, DomainAgnosticModule.to
    monkeypatch.setattr(steps, "tune", lambda *args: order.append("tune") or tune(*args))
    monkeypatch.setattr(DomainAgnosticModule, "to", lambda m, where: order.append(f"to {where}") or to(m, where))
    method.personalize(module, backbone, [identity_of("ann", 1)])
    assert order == ["to cpu", "tune", "to cpu"]  # its home, here, is the host itself
    before, parameters = snapshot(module), list(module.parameters())
    with pytest.raises(KeyError), away(module):
        raise KeyError
    assert_same(snapshot(module), before)
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True))


def test_the_pull_holds_weights_and_embedding_near_the_prediction_each_with_its_own_weight(
    backbone: Backbone, make_method: Make
) -> None:
    ann = identity_of("ann", 1)
    distance = {}
    for name, pulls in {
        "free": (0.0, 0.0), "weights": (1e4, 0.0), "embedding": (0.0, 1e4), "both": (1e4, 1e4),
    }.items():  # fmt: skip
        method, module = ready(
            make_method, backbone, steps=8, grad_clip=None, weight_pull=pulls[0], embedding_pull=pulls[1]
        )
        said = predict(method.config, module, backbone, ann).tensors
        tensors = method.personalize(module, backbone, [ann])[0].tensors
        lora = sum(float((tensors[f"lora.{n}"] - t).square().sum()) for n, t in said.items() if n != "token")
        distance[name] = (lora, float((tensors["token"] - said["token"]).square().sum()))
    assert distance["weights"][0] < 0.5 * distance["free"][0]
    assert distance["embedding"][1] < 0.5 * distance["free"][1]
    assert distance["both"][0] == pytest.approx(distance["weights"][0], rel=0.2)
    assert distance["weights"][1] == pytest.approx(distance["free"][1], rel=0.2)


def test_the_pull_is_the_gradient_of_the_squared_distance(backbone: Backbone, make_method: Make) -> None:
    """Two plain steps of the engine, against the same with the penalty written into the loss."""
    method, module = ready(make_method, backbone, eps=1e-3, grad_clip=None, weight_pull=0.5, embedding_pull=2.0)
    ann = identity_of("ann", 1)
    said = predict(method.config, module, backbone, ann)
    weights = ConceptWeights(backbone, 2, None, method.config.tuned_paths, "face")
    pull = steps._pull(method.config, weights)
    assert pull[: weights.lora.numbers].unique().tolist() == [0.5]
    assert pull[weights.lora.numbers :].unique().tolist() == [2.0]
    subject = steps._subject(method.config, weights, backbone, ann, said)
    config = method.config.personalize
    (one,) = steps.tune(backbone, weights, [subject], config.model_copy(update={"steps": 1}))
    (two,) = steps.tune(backbone, weights, [subject], config, None, pull)
    (free,) = steps.tune(backbone, weights, [subject], config, None, None)
    start, after_1, after_2, free_2 = (
        weights.flat({n: t[None] for n, t in tensors.items()})[0]
        for tensors in (subject.start, one.tensors, two.tensors, free.tensors)  # type: ignore[union-attr]
    )
    # the first step starts at the prediction, where nothing pulls; the second is pulled back to it
    assert torch.dot(after_2 - free_2, (after_1 - start)) < 0
    assert one.losses[0] == two.losses[0] == free.losses[0]
    assert two.losses[1] == pytest.approx(free.losses[1], rel=1e-6)  # what is told is without the pull


def test_checkpointing_and_company_change_nothing(make_method: Make) -> None:
    backbone = load_backbone(BackboneConfig(path="bundled:tiny", random_seed=0, resolution=RESOLUTION))
    people = [identity_of(name, seed) for seed, name in enumerate(("ann", "bob", "cleo"))]
    method, module = ready(make_method, backbone, eps=1e-4)
    plain = method.personalize(module, backbone, people)
    saving, _ = ready(make_method, backbone, eps=1e-4, gradient_checkpointing=True, identities=2)
    for one, other in zip(saving.personalize(module, backbone, people), plain, strict=True):
        assert (numbers(one) - numbers(other)).norm() < 1e-5 * numbers(other).norm()


def test_a_half_precision_backbone_is_trained_tuned_and_drawn_on(make_method: Make) -> None:
    half = load_backbone(BackboneConfig(path="bundled:tiny", random_seed=0, resolution=RESOLUTION, dtype="bfloat16"))
    method, module = ready(make_method, half, precision="bf16")
    cfg = TrainConfig(steps=1, batch_size=2, base_lr=1e-4, precision="bf16")
    logged: list[dict[str, float]] = []
    train(method, module, half, Fixed([batch_of(half, 2)]), cfg, seed=0, on_log=lambda _, facts: logged.append(facts))
    assert logged[0]["grad_norm"] > 0
    adapter = method.personalize(module, half, [identity_of("ann", 1)])[0]
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in adapter.tensors.values())
    assert adapter.meta["loss_after"] > 0
    assert draw(method, module, half, adapter).isfinite().all()


def test_one_bad_identity_harms_no_other(backbone: Backbone, make_method: Make) -> None:
    method, module = ready(make_method, backbone)
    ann, bad = identity_of("ann", 1), identity_of("bad", 2)
    broken = replace(bad, images_N3HW=bad.images_N3HW * float("nan"))
    good, failed = method.personalize(module, backbone, [ann, broken])
    assert "failed" not in good.meta
    assert "not finite at step 0 of 2; lower method.personalize.lr (0.002)" in failed.meta["failed"]


def test_without_a_hypernetwork_tuning_begins_with_a_lora_that_changes_nothing(
    backbone: Backbone, make_method: Make
) -> None:
    method, module = ready(make_method, backbone, hypernetwork=False, steps=1)
    ann = identity_of("ann", 1)
    assert set(predict(method.config, module, backbone, ann).tensors) == {"token"}
    tuned = method.personalize(module, backbone, [ann])[0]
    assert max(float(t.abs().max()) for n, t in tuned.tensors.items() if n.endswith(".up")) == pytest.approx(
        2e-3, rel=0.05
    )
    untuned, _ = ready(make_method, backbone, hypernetwork=False, steps=0)
    assert set(untuned.personalize(module, backbone, [ann])[0].tensors) == {"token"}


def test_dual_path_in_tuning_is_a_switch_of_its_own(backbone: Backbone, make_method: Make) -> None:
    ann = identity_of("ann", 1)
    method, module = ready(make_method, backbone)
    assert method.config.tuned_paths.per == "attention"
    off = make_method(personalize=short(dual_path=False))
    assert (off.config.dual_path.per, off.config.tuned_paths.per) == ("attention", "none")
    one, two = (m.personalize(module, backbone, [ann])[0] for m in (method, off))
    assert one.meta["dual_path"]["per"] == "attention"
    assert two.meta["dual_path"]["per"] == "none"
    assert not torch.equal(numbers(one), numbers(two))


# --- what is refused


def test_foreign_adapters_and_images_without_patches_are_refused(backbone: Backbone, make_method: Make) -> None:
    method, module = ready(make_method, backbone)
    ann = identity_of("ann", 1)
    adapter = method.personalize(module, backbone, [ann])[0]
    lacking = {k: v for k, v in adapter.tensors.items() if not k.endswith("attn1.to_q.up")}
    odd = {**adapter.tensors, "more": torch.zeros(3)}
    for changed, message in (
        (replace(adapter, method="e4t"), "belongs to method 'e4t', not 'domain_agnostic'"),
        (replace(adapter, meta=adapter.meta | {"text_encoder": "x"}), "tuned on text_encoder x, but here is"),
        (replace(adapter, tensors=lacking), r"adapter of 'ann': unet.*attn1\.to_q\.up is missing there"),
        (replace(adapter, tensors=odd), r"adapter of 'ann': more is \(3,\) there and unknown here"),
    ):
        with pytest.raises(CheckpointMismatch, match=message):
            method.conditioning(module, backbone, changed, ann, [])
    with pytest.raises(DataError, match=r"'ann' has no patch tokens .* stages\.clip\.tokens=true"):
        method.personalize(module, backbone, [replace(ann, clip_tokens_NTD=None)])
