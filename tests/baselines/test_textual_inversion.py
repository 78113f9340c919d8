"""Textual Inversion: a word is all that is learned, where the placeholder is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from e4t_core.backbones.base import Backbone
from e4t_core.errors import CheckpointMismatch
from e4t_core.methods import Adapter
from e4t_core.record import Record
from e4t_core.sampling import TextConditioning, sample
from e4t_core.storage import Store
from e4t_core.training import save_adapter
from tests.baselines.conftest import NOTHING, SAMPLER, Make, draw, learned
from tests.e4t.conftest import identity_of

RECORD = Record.of("adapter", {"seed": 0})


def test_an_identity_is_one_embedding_of_a_few_kilobytes(backbone: Backbone, make_method: Make, tmp_path: Path) -> None:
    method = make_method("textual_inversion")
    (adapter,) = learned(method, backbone, identity_of("ann", 1))
    assert {name: tuple(t.shape) for name, t in adapter.tensors.items()} == {"token": (backbone.text_width,)}
    assert not torch.equal(adapter.tensors["token"], backbone.token_embedding("face"))
    save_adapter(Store(tmp_path), "ann", adapter, RECORD)
    assert (tmp_path / "ann.safetensors").stat().st_size < 8192


def test_the_word_stands_where_the_placeholder_is(backbone: Backbone, make_method: Make) -> None:
    """With a real word's embedding it draws what that word draws, and without a placeholder what the prompt says."""
    method, ann = make_method("textual_inversion"), identity_of("ann", 1)
    (adapter,) = learned(method, backbone, ann)
    snow = Adapter(adapter.method, "ann", {"token": backbone.token_embedding("snow").clone()}, adapter.meta)

    def plain(prompt: str) -> torch.Tensor:
        return sample(backbone, TextConditioning(backbone, [prompt]), SAMPLER, seeds=[4])

    assert torch.equal(draw(method, backbone, snow, ann, "a photo of {} at night"), plain("a photo of snow at night"))
    assert torch.equal(draw(method, backbone, adapter, ann, "a photo of snow"), plain("a photo of snow"))
    assert not torch.equal(draw(method, backbone, adapter, ann), plain("a photo of face"))


def test_several_vectors_are_drawn_and_exported_in_order(backbone: Backbone, make_method: Make, tmp_path: Path) -> None:
    method, ann = make_method("textual_inversion", vectors=2), identity_of("ann", 1)
    (adapter,) = learned(method, backbone, ann)
    assert adapter.tensors["token"].shape == (2, backbone.text_width)
    words = torch.stack([backbone.token_embedding("cat"), backbone.token_embedding("snow")])
    said = Adapter(adapter.method, "ann", {"token": words}, adapter.meta)
    plain = sample(backbone, TextConditioning(backbone, ["a photo of cat snow"]), SAMPLER, seeds=[4])
    assert torch.equal(draw(method, backbone, said, ann), plain)
    method.export(adapter, str(tmp_path), "textual_inversion", RECORD, backbone)
    stored = load_file(tmp_path / "embedding.safetensors")
    assert list(stored) == [backbone.placeholder]
    assert torch.equal(stored[backbone.placeholder], adapter.tensors["token"])


def test_tuning_learns_the_image(backbone: Backbone, make_method: Make) -> None:
    method = make_method("textual_inversion", {"steps": 6, "lr": 2e-2, "probe": 4})
    (adapter,) = learned(method, backbone, identity_of("ann", 1))
    assert adapter.meta["loss_after"] < adapter.meta["loss_before"]


def test_an_embedding_of_another_width_is_refused(backbone: Backbone, make_method: Make) -> None:
    method, ann = make_method("textual_inversion"), identity_of("ann", 1)
    (adapter,) = learned(method, backbone, ann)
    wide = Adapter(adapter.method, "ann", {"token": torch.zeros(7)}, adapter.meta)
    with pytest.raises(CheckpointMismatch, match=r"'ann' holds \{'token': \(7,\)\}; a word of this model is .* 128"):
        method.conditioning(NOTHING, backbone, wide, ann, ["x"])
