"""What a personalization changed, as tensors, and putting it back on.

``denoiser.NAME`` and ``module.NAME`` are differences from the pre-trained weights, which lose far less in a short
type than the weights themselves would. ``offsets.LAYER.u`` and ``.v`` are the tuned dW in their exact rank-3 form;
a direct offset has no smaller form, so ``offsets.LAYER.dw`` is a difference too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from e4t_core.adapters.borrowed import shifted
from e4t_core.adapters.modulation import modulated
from e4t_core.adapters.weight_offsets import delta_matrices
from e4t_core.backbones.base import Backbone
from e4t_core.errors import CheckpointMismatch
from e4t_core.methods._adapters import by_group, check_fit, check_method, differences
from e4t_core.methods.base import Adapter
from e4t_core.methods.e4t.config import E4TConfig
from e4t_core.methods.e4t.module import E4TModule
from e4t_core.record import content_hash

_SAMPLED = 64
"""Values of each tensor that enter :func:`weights_mark`."""


def weights_mark(module: nn.Module) -> str:
    """A short mark that tells trained modules apart: a hash over evenly spaced values of every tensor.

    It reads a few values of each tensor, so it is cheap on any device; it is no content hash.
    """
    parts = []
    for tensor in module.state_dict().values():
        flat = tensor.detach().flatten()
        parts.append(flat[:: max(1, len(flat) // _SAMPLED)].float())
    return content_hash(torch.cat(parts).cpu().numpy().tobytes(), 16)


def reference(module: E4TModule, backbone: Backbone) -> dict[str, Any]:
    """What the differences are relative to."""
    return {"module": weights_mark(module), "unet": backbone.identity()["unet"]}


def changes(
    config: E4TConfig,
    module: E4TModule,
    denoiser: Mapping[str, nn.Parameter],
    before: Mapping[str, Mapping[str, Tensor]],
    cls_LD: Tensor,
) -> dict[str, Tensor]:
    """Everything that tuning changed, on the CPU.

    Args:
        config: the recipe section.
        module: after tuning.
        denoiser: the denoiser's parameters after tuning.
        before: ``denoiser`` and ``module``: the tensors before it, by the same names.
        cls_LD: CLIP levels of the image.
    """
    dtype = getattr(torch, config.personalize.save_dtype)
    encoder = {f"encoder.{name}": p for name, p in module.encoder.named_parameters()}
    tensors = {
        **differences("denoiser", denoiser, before["denoiser"], dtype),
        **differences("module", encoder, before["module"], dtype),
    }
    if config.personalize.tune not in ("all", "components"):
        return tensors
    with torch.no_grad():
        compact = module.offsets.compact(cls_LD)
    for name, tensor in compact.items():
        if name.endswith(".dw"):
            old = before["module"][f"offsets.layers.{name.replace('.', '/').removesuffix('/dw')}.dw"]
            tensors[f"offsets.{name}"] = (tensor - old).to(dtype).cpu()
        else:
            tensors[f"offsets.{name}"] = tensor.float().cpu()
    return tensors


@contextlib.contextmanager
def applied(module: E4TModule, backbone: Backbone, adapter: Adapter, cls_LD: Tensor) -> Iterator[None]:
    """Inside, module and backbone are those of the adapter, offsets included; outside they are untouched.

    Raises:
        CheckpointMismatch: the adapter belongs to another module or backbone.
    """
    check(module, backbone, adapter)
    groups = by_group(adapter, ("denoiser", "module", "offsets"))
    denoiser, ours = backbone.denoiser_parameters(), dict(module.named_parameters())
    for group, known in (("denoiser", denoiser), ("module", ours)):
        check_fit(adapter, group, groups[group], known)
    with shifted(denoiser, groups["denoiser"]), shifted(ours, groups["module"]):
        deltas = _delta_weights(module, backbone.device, groups["offsets"], cls_LD)
        functions = {name: (lambda dw=dw: dw) for name, dw in deltas.items()}
        with modulated(backbone.projections(("q", "k", "v")), functions) as on, on.held():
            yield


@torch.no_grad()
def _delta_weights(
    module: E4TModule, device: torch.device, tuned: Mapping[str, Tensor], cls_LD: Tensor
) -> dict[str, Tensor]:
    compact = module.offsets.compact(cls_LD.to(device))
    for name, tensor in tuned.items():
        moved = tensor.to(device).float()
        compact[name] = compact[name] + moved if name.endswith(".dw") else moved
    return delta_matrices(compact)


def check(module: E4TModule, backbone: Backbone, adapter: Adapter) -> None:
    """Refuse an adapter whose differences are relative to other weights.

    Raises:
        CheckpointMismatch: naming what differs.
    """
    check_method(adapter, "e4t")
    for what, here in reference(module, backbone).items():
        there = adapter.meta.get(what)
        if there != here:
            raise CheckpointMismatch(
                f"the adapter of '{adapter.identity}' was tuned from {what} {there}, but here is {what} {here}; "
                "give the checkpoint and backbone that it was personalized with"
            )
