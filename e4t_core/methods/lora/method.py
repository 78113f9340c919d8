"""LoRA-DreamBooth behind the method contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from e4t_core.adapters.concurrent import tuning_fit
from e4t_core.adapters.low_rank import LowRank
from e4t_core.backbones.base import Backbone, Projection
from e4t_core.errors import UsageError, nearest
from e4t_core.methods._adapters import check_networks
from e4t_core.methods._conditioning import low_rank_conditioning, low_rank_together
from e4t_core.methods._prior import ClassImages
from e4t_core.methods.base import Adapter, BackboneMethod, Conditioning, Identity
from e4t_core.methods.lora.config import LoRAConfig
from e4t_core.methods.lora.personalization import layers, personalize_all, projections_of
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training.artifacts import save_adapter


class LoRA(BackboneMethod):
    """DreamBooth's prompt and prior on low-rank weights of the attention layers."""

    name: ClassVar[str] = "lora"
    Config: ClassVar[type[LoRAConfig]] = LoRAConfig
    several_images: ClassVar[bool] = True
    draws_together: ClassVar[bool] = True

    config: LoRAConfig

    def __init__(self, config: LoRAConfig) -> None:
        super().__init__(config)
        self._fitting = tuning_fit()
        self._class_images = ClassImages(config.prior)

    def personalize(self, module: nn.Module, backbone: Backbone, identities: Sequence[Identity]) -> list[Adapter]:
        """All of them together, on one set of class images."""
        return personalize_all(self.config, backbone, identities, self._class_images, self._fitting)

    def conditioning(
        self, module: nn.Module, backbone: Backbone, adapter: Adapter, identity: Identity, prompts: Sequence[str]
    ) -> Conditioning:
        """The adapter's weights, and the words that it was trained with where the placeholder is."""
        projections = projections_of(self.config, backbone)
        found = _layers_for(adapter, backbone, projections)
        return low_rank_conditioning(backbone, projections, found, adapter.meta["prompt"], prompts)

    def conditioning_together(
        self,
        module: nn.Module,
        backbone: Backbone,
        adapters: Sequence[Adapter],
        identities: Sequence[Identity],
        prompts: Sequence[Sequence[str]],
    ) -> Conditioning:
        """Each image with its own identity's weights."""
        projections = projections_of(self.config, backbone)
        found = [_layers_for(adapter, backbone, projections) for adapter in adapters]
        said = [adapter.meta["prompt"] for adapter in adapters]
        return low_rank_together(backbone, projections, found, said, prompts)

    def low_rank_layers(self, adapter: Adapter, backbone: Backbone) -> Mapping[str, LowRank]:
        """All of the adapter, on the CPU."""
        return layers(adapter, projections_of(self.config, backbone))

    def export(self, adapter: Adapter, uri: str, fmt: str, record: Record, backbone: Backbone) -> Record:
        """Write ``adapter.safetensors`` and its record under ``uri``.

        Raises:
            UsageError: ``fmt`` is not ``native``.
        """
        if fmt != "native":
            raise UsageError(f"method 'lora' cannot export '{fmt}'{nearest(fmt, self.formats)}")
        return save_adapter(Store(uri), "adapter", adapter, record)


def _layers_for(adapter: Adapter, backbone: Backbone, projections: Mapping[str, Projection]) -> dict[str, LowRank]:
    """The adapter's weights on the backbone's device.

    Raises:
        CheckpointMismatch: they are of another backbone or of other layers.
    """
    found = layers(adapter, projections)
    check_networks(adapter, backbone)
    return {name: LowRank(one.up.to(backbone.device), one.down.to(backbone.device)) for name, one in found.items()}
