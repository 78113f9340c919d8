"""Layer importance: hand-computed scores and the groups of table 1."""

from __future__ import annotations

import math

import pytest
import torch

from e4t_core.backbones.base import Backbone
from e4t_core.errors import CheckpointMismatch, UsageError
from e4t_core.methods.e4t.layer_importance import by_group, layer_importance


def test_scores_by_hand() -> None:
    base = {"a.weight": torch.tensor([1.0, -3.0]), "a.bias": torch.tensor([0.0]), "b.weight": torch.tensor([2.0])}
    one = {"a.weight": torch.tensor([1.5, -3.0]), "a.bias": torch.tensor([0.5]), "b.weight": torch.tensor([3.0])}
    two = {"a.weight": torch.tensor([1.0, -3.0]), "a.bias": torch.tensor([0.0]), "b.weight": torch.tensor([2.0])}
    scores = layer_importance(base, [one, two])
    assert list(scores) == ["b", "a"]
    assert scores == pytest.approx({"a": (1.0 / 4.0 + 0) / 2, "b": (1.0 / 2.0 + 0) / 2})


def test_layers_that_start_at_zero() -> None:
    base = {"still.weight": torch.zeros(2), "moved.weight": torch.zeros(2)}
    scores = layer_importance(base, [{"still.weight": torch.zeros(2), "moved.weight": torch.ones(2)}])
    assert scores == {"moved": math.inf, "still": 0.0}


def test_groups_of_table_1_on_a_real_denoiser(backbone: Backbone) -> None:
    base = {n: p.detach() for n, p in backbone.denoiser_parameters().items()}
    tuned = {n: p * 3 if ".attn2.to_k" in n else p * 1.5 if ".attn1." in n else p for n, p in base.items()}
    groups = by_group(layer_importance(base, [tuned]))
    assert groups["location"].keys() == {"cross_attention", "self_attention", "other"}
    assert groups["stage"].keys() == {"down", "middle", "up"}
    assert groups["location"]["other"] == 0
    assert groups["location"]["self_attention"] == pytest.approx(0.5, rel=1e-4)
    assert groups["cross_attention"] == pytest.approx({"q": 0.0, "k": 2.0, "v": 0.0, "o": 0.0}, rel=1e-4)
    assert groups["self_attention"].keys() == {"q", "k", "v", "o"}


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(UsageError, match="at least one"):
        layer_importance({"a.weight": torch.ones(1)}, [])
    with pytest.raises(CheckpointMismatch, match=r"model 0 is not of the base's size: 'a.weight'"):
        layer_importance({"a.weight": torch.ones(1)}, [{"a.weight": torch.ones(2)}])
