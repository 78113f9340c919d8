"""LoRA-DreamBooth: exact low-rank layers, many at once with a prior, and the files of other programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from e4t_core.adapters.export import FORMATS, export_low_rank
from e4t_core.adapters.low_rank import merged
from e4t_core.backbones.base import Backbone
from e4t_core.errors import CheckpointMismatch
from e4t_core.methods import Adapter
from e4t_core.record import Record
from e4t_core.sampling import TextConditioning, sample
from e4t_core.storage import Store
from tests.baselines.conftest import NOTHING, SAMPLER, Make, draw, learned
from tests.e4t.conftest import identity_of, rng

RECORD = Record.of("adapter", {"seed": 0})
ROLES = ("q", "k", "v", "out")


def loud(adapter: Adapter) -> Adapter:
    """A change large enough to see in a picture."""
    g = rng(9)
    tensors = {n: t + 0.1 * torch.randn(t.shape, generator=g) for n, t in adapter.tensors.items()}
    return replace(adapter, tensors=tensors)


@pytest.mark.parametrize("text_encoder", [False, True])
def test_its_layers_are_every_attention_and_all_of_it(
    backbone: Backbone, make_method: Make, text_encoder: bool
) -> None:
    """Pictures are those of the merged weights under the words that tuning said."""
    method, ann = make_method("lora", {"rank": 3, "alpha": 6.0, "text_encoder": text_encoder}), identity_of("ann", 1)
    adapter = loud(learned(method, backbone, ann)[0])
    where = ("unet", "text_encoder") if text_encoder else ("unet",)
    projections = backbone.projections(ROLES, where)
    found = method.low_rank_layers(adapter, backbone)
    assert found.keys() == projections.keys()
    assert {one.up.shape[2] for one in found.values()} == {3}
    ours = draw(method, backbone, adapter, ann)
    with merged(projections, found):
        theirs = sample(backbone, TextConditioning(backbone, ["a photo of a sks face"]), SAMPLER, seeds=[4])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    plain = sample(backbone, TextConditioning(backbone, ["a photo of a sks face"]), SAMPLER, seeds=[4])
    assert (ours - plain).abs().max() > 0.02


def test_together_is_alone(backbone: Backbone, make_method: Make) -> None:
    """With a prior, and with whole sets of several sizes."""
    method = make_method("lora", {"eps": 1e-4})
    people = [identity_of("ann", 1, images=3), identity_of("bob", 2)]
    for one, together in zip(people, learned(method, backbone, *people), strict=True):
        alone = learned(method, backbone, one)[0]
        moved = [(t - alone.tensors[n]).norm() for n, t in together.tensors.items() if n.endswith(".up")]
        whole = [t.norm() for n, t in alone.tensors.items() if n.endswith(".up")]
        assert torch.stack(moved).norm() <= 1e-5 * torch.stack(whole).norm()
        assert together.meta["images"] == len(one.images_N3HW)


def test_the_prior_is_a_switch(backbone: Backbone, make_method: Make) -> None:
    ann = identity_of("ann", 1)
    kept, free = (learned(make_method("lora", **f), backbone, ann)[0] for f in ({}, {"prior": None}))
    assert any(not torch.equal(t, free.tensors[n]) for n, t in kept.tensors.items())
    assert (kept.meta["prior"]["prompt"], "prior" in free.meta) == ("a face", False)


def test_tuning_learns_the_image(backbone: Backbone, make_method: Make) -> None:
    method = make_method("lora", {"steps": 6, "lr": 5e-3, "probe": 4})
    (adapter,) = learned(method, backbone, identity_of("ann", 1))
    assert adapter.meta["loss_after"] < adapter.meta["loss_before"]


@pytest.mark.parametrize("fmt", sorted(FORMATS))
def test_every_lora_file_can_hold_it(fmt: str, backbone: Backbone, make_method: Make, tmp_path: Path) -> None:
    method = make_method("lora")
    adapter = learned(method, backbone, identity_of("ann", 1))[0]
    written = export_low_rank(method.low_rank_layers(adapter, backbone), fmt, Store(tmp_path), "ann", RECORD)
    assert sum(written.values()) > adapter.meta["bytes"]


def test_layers_of_another_model_are_refused(backbone: Backbone, make_method: Make) -> None:
    method, ann = make_method("lora"), identity_of("ann", 1)
    adapter = learned(method, backbone, ann)[0]
    name = next(iter(adapter.tensors)).rpartition(".")[0]
    missing = replace(adapter, tensors={n: t for n, t in adapter.tensors.items() if n != f"{name}.up"})
    with pytest.raises(CheckpointMismatch, match=r"is missing x \(4, \d+\), and the layer here is \(\d+, \d+\)"):
        method.conditioning(NOTHING, backbone, missing, ann, ["x"])
    foreign = replace(adapter, tensors={f"unet.absent.{n}": t for n, t in adapter.tensors.items()})
    with pytest.raises(CheckpointMismatch, match=r"unet\.absent\..* the layer here is missing"):
        method.low_rank_layers(foreign, backbone)
