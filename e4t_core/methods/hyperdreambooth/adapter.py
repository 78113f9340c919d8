"""What a personalization is: ``lidb`` (P,), the hypernetwork's prediction as plain LiDB weights, and the finetuned
``lora.LAYER.up`` (M, r) and ``lora.LAYER.down`` (r, N). Each layer's ``dW`` is the exact sum, of rank 1 + r.

An adapter is complete: the hypernetwork is not needed to use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from e4t_core.adapters.lidb import Space
from e4t_core.adapters.low_rank import LowRank
from e4t_core.backbones.base import Backbone
from e4t_core.errors import CheckpointMismatch, UsageError
from e4t_core.methods._adapters import check_method, networks
from e4t_core.methods.base import Adapter
from e4t_core.methods.hyperdreambooth.config import HyperDreamBoothConfig

NAME, LIDB, LORA = "hyperdreambooth", "lidb", "lora."


def reference(config: HyperDreamBoothConfig, space: Space, backbone: Backbone) -> dict[str, Any]:
    """What an adapter's numbers are relative to."""
    return {**networks(backbone), "lidb": config.lidb.dump(), "bases": space.checksum, "prompt": config.prompt}


def layers(config: HyperDreamBoothConfig, space: Space, adapter: Adapter, device: torch.device) -> dict[str, LowRank]:
    """Layer -> its dW, float32 on ``device``, K = 1, of one rank in all layers.

    Raises:
        CheckpointMismatch: the adapter belongs to another method or space.
    """
    _check_space(config, space, adapter)
    tensors = {name: t.to(device).float() for name, t in adapter.tensors.items()}
    found: dict[str, LowRank] = {}
    if LIDB in tensors:
        found = space.expand(space.unflat(tensors[LIDB][None]))
    for name, one in _lora(space, adapter, tensors).items():
        found[name] = found[name] + one if name in found else one
    return found


def lidb_alone(config: HyperDreamBoothConfig, space: Space, adapter: Adapter) -> Tensor:
    """(P,) the LiDB weights of an adapter that is nothing else.

    Raises:
        CheckpointMismatch: the adapter belongs to another method or space.
        UsageError: there are none, or finetuned ones on top.
    """
    _check_space(config, space, adapter)
    if set(adapter.tensors) != {LIDB}:
        what = "has finetuned weights of a higher rank on top" if LIDB in adapter.tensors else "has none"
        raise UsageError(
            f"a lidb file holds LiDB weights alone, and the adapter of '{adapter.identity}' {what}; choose another "
            "format, or personalize with method.personalize.steps=0"
        )
    return adapter.tensors[LIDB]


def _lora(space: Space, adapter: Adapter, tensors: Mapping[str, Tensor]) -> dict[str, LowRank]:
    """The finetuned part: all layers, or none."""
    if not any(name.startswith(LORA) for name in tensors):
        return {}
    out = {}
    for name, (outputs, inputs) in space.shapes.items():
        up, down = (tensors.get(f"{LORA}{name}.{part}") for part in ("up", "down"))
        if up is None or down is None or (up.shape[0], down.shape[1]) != (outputs, inputs):
            there = "missing" if up is None or down is None else f"{tuple(up.shape)} x {tuple(down.shape)}"
            raise CheckpointMismatch(
                f"adapter of '{adapter.identity}': {LORA}{name} is {there}, and the layer is {outputs} x {inputs}"
            )
        out[name] = LowRank(up[None], down[None])
    return out


def _check_space(config: HyperDreamBoothConfig, space: Space, adapter: Adapter) -> None:
    who = f"the adapter of '{adapter.identity}'"
    check_method(adapter, NAME)
    if adapter.meta.get("lidb") != config.lidb.dump():
        raise CheckpointMismatch(
            f"{who} has LiDB weights with {adapter.meta.get('lidb')}, and method.lidb is {config.lidb.dump()}; give "
            "the recipe that it was personalized with"
        )
    space.check(float(adapter.meta["bases"]), who)
