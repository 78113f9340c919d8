"""What a personalization is: ``token`` (D,), the embedding in place of S*, and ``lora.LAYER.up`` (M, r) and
``lora.LAYER.down`` (r, N), whose product is a layer's dW. ``meta["hard"]`` is the token of its hard prompts.

An adapter is complete: the encoder is not needed to use it. One without any tensors changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from e4t_core.adapters.dual_path import ConceptWeights
from e4t_core.adapters.low_rank import LowRank
from e4t_core.backbones.base import Backbone
from e4t_core.errors import CheckpointMismatch, UsageError
from e4t_core.methods._adapters import check_method, check_networks, networks
from e4t_core.methods.base import Adapter
from e4t_core.methods.domain_agnostic.config import DomainAgnosticConfig

NAME, LORA, TOKEN = "domain_agnostic", "lora.", "token"


def reference(config: DomainAgnosticConfig, backbone: Backbone) -> dict[str, Any]:
    """What an adapter's numbers are relative to, and how it was made."""
    return {**networks(backbone), "rank": config.rank, "dual_path": config.tuned_paths.dump()}


def scaled(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """A tunable's tensors under the adapter's names, with LoRA's scale in ``up``: ``up @ down`` is the whole dW."""
    found = {}
    for name, tensor in tensors.items():
        factor = scale if name.endswith(".up") else 1.0
        found[name if name == TOKEN else f"{LORA}{name}"] = (tensor * factor).contiguous()
    return found


def flat_of(weights: ConceptWeights, adapter: Adapter) -> Tensor:
    """(1, P) on the CPU, for :meth:`ConceptWeights.on`. Without LoRA tensors nothing is added to any layer.

    Raises:
        CheckpointMismatch: a tensor is missing, unknown or of another shape.
    """
    lora = {name.removeprefix(LORA): t for name, t in adapter.tensors.items() if name.startswith(LORA)}
    rest = {name: t for name, t in adapter.tensors.items() if not name.startswith(LORA)}
    if not lora:
        lora = {name: torch.zeros(shape) for name, shape in weights.lora.shapes.items()}
    found = {**lora, **rest}
    for name in [*weights.shapes, *found]:
        there = tuple(found[name].shape) if name in found else "missing"
        here = weights.shapes.get(name, "unknown")
        if there != here:
            raise CheckpointMismatch(
                f"adapter of '{adapter.identity}': {name} is {there} there and {here} here; give the recipe that it "
                "was personalized with"
            )
    flat_1P = weights.flat({name: t[None].float() for name, t in found.items()})
    if weights.lora.scale != 1:  # the adapter's factors hold it already
        for name, part in weights.unflat(flat_1P).items():
            if name.endswith(".up"):
                part.div_(weights.lora.scale)
    return flat_1P


def check_one_path(config: DomainAgnosticConfig, adapter: Adapter) -> None:
    """Whether the adapter is its LoRA and its embedding, and nothing else: what other programs can hold.

    Raises:
        UsageError: it draws with two paths.
        CheckpointMismatch: it belongs to another method.
    """
    check_method(adapter, NAME)
    paths = config.tuned_paths
    if paths.per != "none" and paths.blend < 1:
        raise UsageError(
            f"the adapter of '{adapter.identity}' draws with two paths (method.dual_path.blend = {paths.blend:g}): "
            f"{1 - paths.blend:.0%} of every attention is the untouched model's on a hard prompt, which no LoRA file "
            "can say. Personalize with method.personalize.dual_path=false or method.dual_path.blend=1, whose "
            "adapters are exact as a LoRA with an embedding, or export it as native"
        )


def layers(config: DomainAgnosticConfig, adapter: Adapter) -> dict[str, LowRank]:
    """Layer -> its dW, K = 1.

    Raises:
        UsageError: the adapter draws with two paths, or has no LoRA.
        CheckpointMismatch: it belongs to another method.
    """
    check_one_path(config, adapter)
    names = [name.removeprefix(LORA).removesuffix(".up") for name in adapter.tensors if name.endswith(".up")]
    if not names:
        raise UsageError(
            f"the adapter of '{adapter.identity}' has no LoRA: it is an embedding alone; export it as "
            "textual_inversion or native"
        )
    return {n: LowRank(*(adapter.tensors[f"{LORA}{n}.{part}"][None].float() for part in ("up", "down"))) for n in names}


def check_backbone(backbone: Backbone, adapter: Adapter) -> None:
    """Refuse an adapter of another method or of other networks.

    Raises:
        CheckpointMismatch: naming what differs.
    """
    check_method(adapter, NAME)
    check_networks(adapter, backbone)
