"""Which layers fine-tuning changes most: the measurement behind E4T's choice of layers (section 3.2, table 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from torch import Tensor

from e4t_core.errors import CheckpointMismatch, UsageError

_STAGES = {"down_blocks": "down", "mid_block": "middle", "up_blocks": "up"}
_ATTENTIONS = {"attn1": "self_attention", "attn2": "cross_attention"}
_PROJECTIONS = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out": "o"}


def layer_importance(base: Mapping[str, Tensor], tuned: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Score every layer of a denoiser over fine-tuned versions of it.

    A layer's score in one model is ``mean |W - W0| / mean |W0|``, both means over all of its parameters (weight and
    bias together); scores are averaged over the models.

    Args:
        base: the original parameters by name (``LAYER.weight``, ``LAYER.bias``).
        tuned: the same of each fine-tuned model.

    Returns:
        layer name -> score, highest first. A layer that starts at zero scores infinity if it moved, else 0.

    Raises:
        UsageError: there is no fine-tuned model.
        CheckpointMismatch: a model has other parameters or shapes than the base.
    """
    if not tuned:
        raise UsageError("layer importance compares fine-tuned models with their base: give at least one")
    for number, model in enumerate(tuned):
        _check_same(base, model, number)
    layers: dict[str, list[str]] = {}
    for name in base:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    scores = {layer: fmean(_score(base, model, names) for model in tuned) for layer, names in layers.items()}
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


def by_group(scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Mean scores in the groups of table 1, for layers named as diffusers names them.

    Returns:
        ``location`` (cross_attention, self_attention, other), ``stage`` (up, down, middle), and ``cross_attention``
        and ``self_attention`` by projection (q, k, v, o). Groups without layers are left out.
    """
    groups: dict[str, dict[str, list[float]]] = {}
    for layer, score in scores.items():
        for table, row in _rows(layer):
            groups.setdefault(table, {}).setdefault(row, []).append(score)
    return {table: {row: fmean(found) for row, found in rows.items()} for table, rows in groups.items()}


def _rows(layer: str) -> list[tuple[str, str]]:
    parts = layer.split(".")
    attention = next((_ATTENTIONS[p] for p in parts if p in _ATTENTIONS), None)
    rows = [("location", attention or "other")]
    rows += [("stage", _STAGES[p]) for p in parts if p in _STAGES]
    if attention:
        rows += [(attention, _PROJECTIONS[p]) for p in parts if p in _PROJECTIONS]
    return rows


def _score(base: Mapping[str, Tensor], model: Mapping[str, Tensor], names: Sequence[str]) -> float:
    moved = sum(float((model[n].float() - base[n].float()).abs().sum()) for n in names)
    size = sum(float(base[n].float().abs().sum()) for n in names)
    if size == 0:
        return math.inf if moved else 0.0
    return moved / size


def _check_same(base: Mapping[str, Tensor], model: Mapping[str, Tensor], number: int) -> None:
    wrong = sorted({*base} ^ {*model}) or [n for n in base if base[n].shape != model[n].shape]
    if wrong:
        raise CheckpointMismatch(f"fine-tuned model {number} is not of the base's size: '{wrong[0]}' differs")
