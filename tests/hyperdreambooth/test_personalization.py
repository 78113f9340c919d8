"""Prediction and fast finetuning: what an adapter holds, whose it is, and that one bad identity harms no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.adapters.lidb import LiDBConfig, lidb_projections
from e4t_core.adapters.lidb_file import load_lidb
from e4t_core.adapters.low_rank import merged
from e4t_core.backbones import backbone_shape
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.errors import CheckpointMismatch, DataError, UsageError
from e4t_core.methods import Identity
from e4t_core.methods.hyperdreambooth import HyperDreamBooth, HyperDreamBoothModule
from e4t_core.record import Record
from e4t_core.sampling import SamplerConfig, TextConditioning, sample
from e4t_core.storage import Store
from tests.e4t.conftest import RESOLUTION, identity_of
from tests.hyperdreambooth.conftest import Make, short
from tests.hyperdreambooth.test_hypernetwork import stirred
from tests.hyperdreambooth.test_objective import built

SAMPLER = SamplerConfig(steps=2, guidance=2.0)


def ready(make_method: Make, backbone: Backbone, **fields: Any) -> tuple[HyperDreamBooth, HyperDreamBoothModule]:
    method = make_method(personalize=short(**fields))
    return method, stirred(built(method, backbone))


def predicted(module: HyperDreamBoothModule, identity: Identity) -> Tensor:
    assert identity.clip_tokens_NTD is not None
    with torch.no_grad():
        return module.initial_P + module(identity.clip_cls_NLD[:1], identity.clip_tokens_NTD[:1])[0]


def test_the_adapter_is_the_prediction_and_what_was_finetuned_on_it(backbone: Backbone, make_method: Make) -> None:
    """Rank-relaxed (section 4.3): the exact sum of rank 1 and rank r in each of the layers."""
    method, module = ready(make_method, backbone, rank=3, alpha=1.5)
    ann = identity_of("ann", 1)
    adapter = method.personalize(module, backbone, [ann])[0]
    assert torch.equal(adapter.tensors["lidb"], predicted(module, ann))
    first = module.space.expand(module.space.unflat(adapter.tensors["lidb"][None]))
    found = method.low_rank_layers(adapter, backbone)
    assert found.keys() == module.space.shapes.keys() == lidb_projections(backbone).keys()
    for name, one in found.items():
        up, down = adapter.tensors[f"lora.{name}.up"], adapter.tensors[f"lora.{name}.down"]
        assert (one.up.shape[2], up.shape[1], up.abs().max() > 0) == (1 + 3, 3, True)
        torch.testing.assert_close(one.matrix()[0], first[name].matrix()[0] + up @ down, rtol=1e-5, atol=1e-7)
    shape = backbone_shape(BackboneConfig(path="bundled:tiny", random_seed=0, resolution=RESOLUTION))
    for name, one in method.low_rank_layers(adapter, shape).items():  # an export needs the layers' names and sizes
        assert torch.equal(one.up, found[name].up)
        assert torch.equal(one.down, found[name].down)
    about = adapter.meta
    assert (about["steps"], about["rank"], len(about["losses"]), about["prompt"]) == (2, 3, 2, "a sks face")
    assert about["seconds"] > 0


def test_ablations_leave_a_part_out(backbone: Backbone, make_method: Make) -> None:
    """Table 3: only the hypernetwork, and no hypernetwork; and neither."""
    ann = identity_of("ann", 1)
    only, module = ready(make_method, backbone, steps=0)
    adapter = only.personalize(module, backbone, [ann])[0]
    assert set(adapter.tensors) == {"lidb"}
    assert {one.up.shape[2] for one in only.low_rank_layers(adapter, backbone).values()} == {1}
    none, _ = ready(make_method, backbone, start="backbone")
    blind = replace(ann, clip_tokens_NTD=None)  # nothing of the hypernetwork's is read
    adapter = none.personalize(module, backbone, [blind])[0]
    assert "lidb" not in adapter.tensors
    assert {one.up.shape[2] for one in none.low_rank_layers(adapter, backbone).values()} == {2}
    zero, _ = ready(make_method, backbone, start="backbone", steps=0)
    adapter, other = zero.personalize(module, backbone, [blind, replace(blind, id="bob")])
    assert adapter.tensors["lidb"].data_ptr() != other.tensors["lidb"].data_ptr()  # safetensors writes no shared memory
    assert not any(one.matrix().any() for one in zero.low_rank_layers(adapter, backbone).values())
    both, _ = ready(make_method, backbone)
    with pytest.raises(DataError, match=r"'ann' has no patch tokens.*stages\.clip\.tokens=true"):
        both.personalize(module, backbone, [blind])


def test_finetuning_learns_the_image(backbone: Backbone, make_method: Make) -> None:
    method, module = ready(make_method, backbone, steps=12, samples=4, lr=5e-3, probe=8)
    for adapter in method.personalize(module, backbone, [identity_of("ann", 1), identity_of("bob", 2)]):
        assert adapter.meta["loss_after"] < adapter.meta["loss_before"]


def test_masks_are_used_where_there_are_any(backbone: Backbone, make_method: Make) -> None:
    ann = identity_of("ann", 1)
    plain, module = ready(make_method, backbone)
    masked, _ = ready(make_method, backbone, mask=True)
    bare = replace(ann, masks_N1HW=None)
    facts = [m.personalize(module, backbone, [i])[0].meta for m, i in ((plain, ann), (masked, ann), (masked, bare))]
    assert [f["masked"] for f in facts] == [False, True, False]
    assert facts[0]["losses"] == facts[2]["losses"] != facts[1]["losses"]


def test_an_identity_that_diverges_is_told_and_harms_nobody(backbone: Backbone, make_method: Make) -> None:
    method, module = ready(make_method, backbone)
    ann, bob = identity_of("ann", 1), identity_of("bob", 2)
    spoilt = replace(bob, images_N3HW=torch.full_like(bob.images_N3HW, float("nan")))
    good, bad = method.personalize(module, backbone, [ann, spoilt])
    assert "not finite at step 0 of 2; lower method.personalize.lr (0.001)" in bad.meta["failed"]
    assert "failed" not in good.meta
    alone = method.personalize(module, backbone, [ann])[0]
    for name, tensor in alone.tensors.items():
        assert float((good.tensors[name] - tensor).norm()) <= 1e-3 * float(tensor.norm()), name


def test_pictures_are_those_of_the_merged_weights(backbone: Backbone, make_method: Make) -> None:
    """The text encoder's layers included, and the negative prompt's pass through them."""
    method, module = ready(make_method, backbone)
    ann = identity_of("ann", 1)
    adapter = method.personalize(module, backbone, [ann])[0]
    prompts = [f"a photo of {backbone.placeholder}", f"{backbone.placeholder} at night"]
    ours = sample(backbone, method.conditioning(module, backbone, adapter, ann, prompts), SAMPLER, seeds=[1, 2])
    with merged(lidb_projections(backbone), method.low_rank_layers(adapter, backbone)):
        plain = TextConditioning(backbone, ["a photo of a sks face", "a sks face at night"])
        theirs = sample(backbone, plain, SAMPLER, seeds=[1, 2])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    bare = sample(backbone, TextConditioning(backbone, plain.prompts), SAMPLER, seeds=[1, 2])
    assert (ours - bare).abs().max() > 0.05


def test_a_prediction_alone_is_one_small_file(backbone: Backbone, make_method: Make, tmp_path: Path) -> None:
    method, module = ready(make_method, backbone, steps=0)
    ann = identity_of("ann", 1)
    adapter = method.personalize(module, backbone, [ann])[0]
    record = Record.of("lora", {"seed": 0})
    method.export(adapter, str(tmp_path), "lidb", record, backbone)
    weights_P, stored = load_lidb(Store(tmp_path), "lidb.safetensors", module.space)
    assert torch.equal(weights_P, predicted(module, ann))
    assert stored == record
    finetuned, module = ready(make_method, backbone)
    adapter = finetuned.personalize(module, backbone, [ann])[0]
    with pytest.raises(UsageError, match=r"adapter of 'ann' has finetuned weights .* method\.personalize\.steps=0"):
        finetuned.export(adapter, str(tmp_path), "lidb", record, backbone)


def test_foreign_adapters_are_refused(backbone: Backbone, make_method: Make) -> None:
    method, module = ready(make_method, backbone)
    ann = identity_of("ann", 1)
    adapter = method.personalize(module, backbone, [ann])[0]
    lacking = {k: v for k, v in adapter.tensors.items() if not k.endswith("attn1.to_q.up")}
    other = {"lidb": LiDBConfig(a=5, b=3).dump()}
    for changed, message in (
        (replace(adapter, method="e4t"), "belongs to method 'e4t', not 'hyperdreambooth'"),
        (replace(adapter, meta=adapter.meta | {"text_encoder": "x"}), "tuned on text_encoder x, but here is"),
        (replace(adapter, meta=adapter.meta | other), r"LiDB weights with \{'a': 5.*method\.lidb is \{'a': 4"),
        (replace(adapter, meta=adapter.meta | {"bases": 1.0}), "the adapter of 'ann' was made in other LiDB bases"),
        (replace(adapter, tensors=lacking), r"adapter of 'ann': lora\.unet.*attn1\.to_q is missing"),
    ):
        with pytest.raises(CheckpointMismatch, match=message):
            method.conditioning(module, backbone, changed, ann, [])
