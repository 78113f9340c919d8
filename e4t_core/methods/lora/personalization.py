"""Low-rank weights for each identity, tuned on the frozen model, of many identities at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from e4t_core.adapters.concurrent import tune
from e4t_core.adapters.low_rank import LowRank
from e4t_core.adapters.subjects import Tuned
from e4t_core.adapters.tunable import LoRAWeights
from e4t_core.backbones.base import Backbone, Projection
from e4t_core.errors import CheckpointMismatch
from e4t_core.memory import Fitting
from e4t_core.methods._adapters import check_method, networks, total_bytes
from e4t_core.methods._prior import ClassImages
from e4t_core.methods._tuning import subject_of, tuning_facts
from e4t_core.methods.base import Adapter, Identity
from e4t_core.methods.lora.config import LoRAConfig

NAME = "lora"


def projections_of(config: LoRAConfig, backbone: Backbone) -> dict[str, Projection]:
    """The layers that are tuned: every attention's four."""
    where = ("unet", "text_encoder") if config.personalize.text_encoder else ("unet",)
    return backbone.projections(("q", "k", "v", "out"), where)


def personalize_all(
    config: LoRAConfig,
    backbone: Backbone,
    identities: Sequence[Identity],
    class_images: ClassImages,
    fitting: Fitting,
) -> list[Adapter]:
    """An adapter for each identity, in order. One whose tuning diverged says so in ``meta["failed"]``."""
    ours, prior = config.personalize, class_images(backbone)
    if ours.gradient_checkpointing:
        backbone.enable_gradient_checkpointing()
    lora = LoRAWeights(projections_of(config, backbone), ours.rank, ours.alpha)
    subjects = (subject_of(one, backbone, [config.prompt], ours.mask) for one in identities)
    tuned = {one.id: one for one in tune(backbone, lora, subjects, ours, fitting, prior=prior)}
    about = {**networks(backbone), "prompt": config.prompt, "rank": ours.rank, **class_images.facts()}
    return [_adapter(config, about, one, tuned[one.id], lora.scale) for one in identities]


def _adapter(config: LoRAConfig, about: Mapping[str, Any], identity: Identity, tuned: Tuned, scale: float) -> Adapter:
    """``LAYER.up`` (M, r) and ``LAYER.down`` (r, N) with LoRA's scale in ``up``: ``up @ down`` is the whole dW."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in tuned.tensors.items():
        tensors[name] = (tensor * scale if name.endswith(".up") else tensor).contiguous()
    meta = {
        **about,
        "images": len(identity.images_N3HW),
        "masked": config.personalize.mask and identity.masks_N1HW is not None,
        **tuning_facts(tuned, config.personalize),
        "seconds": tuned.seconds,
        "bytes": total_bytes(tensors),
    }
    return Adapter(NAME, identity.id, tensors, meta)


def layers(adapter: Adapter, projections: Mapping[str, Projection]) -> dict[str, LowRank]:
    """Layer -> its dW, float32, K = 1; empty for an adapter without tensors.

    Args:
        projections: of any size of backbone, which may be on ``meta``; layers that the adapter does not name are left.

    Raises:
        CheckpointMismatch: it belongs to another method, or a layer is missing here, incomplete or of another size.
    """
    check_method(adapter, NAME)
    found = {}
    for name in dict.fromkeys(key.rpartition(".")[0] for key in adapter.tensors):
        up, down = (adapter.tensors.get(f"{name}.{part}") for part in ("up", "down"))
        here = projections[name].module.weight.shape if name in projections else None
        if up is None or down is None or here is None or (up.shape[0], down.shape[1]) != tuple(here):
            raise CheckpointMismatch(
                f"adapter of '{adapter.identity}': {name} is {_shape(up)} x {_shape(down)}, and the layer here is "
                f"{'missing' if here is None else tuple(here)}; give the recipe that it was personalized with"
            )
        found[name] = LowRank(up[None].float(), down[None].float())
    return found


def _shape(tensor: Tensor | None) -> Any:
    return "missing" if tensor is None else tuple(tensor.shape)
