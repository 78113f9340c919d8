"""What HyperDreamBooth trains: the hypernetwork, for one backbone and one space of LiDB weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from e4t_core.adapters.lidb import Space
from e4t_core.adapters.tunable import LiDBWeights
from e4t_core.backbones.base import Backbone
from e4t_core.methods._held import Held
from e4t_core.methods.hyperdreambooth.config import HyperDreamBoothConfig
from e4t_core.models.hypernetwork import HyperNetwork


class HyperDreamBoothModule(nn.Module):
    """The hypernetwork, on the backbone's device.

    theta is the difference of an identity's LiDB weights from the initial ones, which all identities share: at
    theta = 0 every ``dW`` is 0 and the backbone is untouched.

    Attributes:
        space: where LiDB weights live.
        weights: puts them on the backbone.
        held: those that are on it in pre-training.
        signature: what must be equal for weights to fit; a checkpoint carries it and loading compares it.
    """

    initial_P: Tensor
    bases: Tensor

    def __init__(self, config: HyperDreamBoothConfig, backbone: Backbone, clip_dims: tuple[int, int]) -> None:
        super().__init__()
        target = backbone.token_table.device
        device = "meta" if target.type == "meta" else "cpu"  # the same draws wherever it will run
        self.space = Space.of(backbone, config.lidb)
        self.weights = LiDBWeights(backbone, self.space)
        self.held = Held()
        self.network = HyperNetwork(
            clip_dims[1],
            [size for name in self.space.shapes for size in self.space.sizes(name)],
            width=config.width,
            heads=config.heads,
            blocks=config.blocks,
            iterations=config.iterations,
            unit=config.unit,
            rng=torch.Generator().manual_seed(config.init_seed),
            device=device,
        )
        self.signature = _signature(config, backbone, clip_dims)
        self.register_buffer("initial_P", self.space.flat(self.space.initial(1))[0], persistent=False)
        checksum = 0.0 if device == "meta" else self.space.checksum
        self.register_buffer("bases", torch.tensor(checksum, dtype=torch.float64))
        self.register_load_state_dict_pre_hook(_check_bases)
        self.to(target)

    def forward(self, cls_BLD: Tensor, tokens_BTD: Tensor) -> Tensor:
        """(B, P) theta, predicted from the last layer's [CLS] and patch tokens of each image."""
        return self.network(torch.cat([cls_BLD[:, -1:], tokens_BTD], dim=1))


def _check_bases(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Predictions mean nothing in other bases than they were learned in."""
    stored, space = state.get(f"{prefix}bases"), module.space
    if stored is not None and isinstance(space, Space):
        space.check(float(stored), "the hypernetwork")


def _signature(config: HyperDreamBoothConfig, backbone: Backbone, clip_dims: tuple[int, int]) -> dict[str, Any]:
    fields = ("prompt", "width", "heads", "blocks", "iterations", "unit")
    ours = {f"method.{name}": getattr(config, name) for name in fields}
    lidb = {f"method.lidb.{name}": value for name, value in config.lidb.dump().items()}
    theirs = {f"backbone.{part}": content for part, content in backbone.identity().items()}
    return {"method.name": "hyperdreambooth", **ours, **lidb, **theirs, "clip.width": clip_dims[1]}
