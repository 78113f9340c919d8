"""DreamBooth (Ruiz et al. 2022) behind the method contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from e4t_core.adapters.borrowed import shifted
from e4t_core.backbones.base import Backbone
from e4t_core.errors import UsageError, nearest
from e4t_core.methods._adapters import by_group, check_fit, check_method, check_networks
from e4t_core.methods._conditioning import WeightsConditioning, in_words
from e4t_core.methods._prior import ClassImages
from e4t_core.methods.base import Adapter, BackboneMethod, Conditioning, Identity
from e4t_core.methods.dreambooth.config import DreamBoothConfig
from e4t_core.methods.dreambooth.personalization import DENOISER, TEXT, personalize_one
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training.artifacts import save_adapter


class DreamBooth(BackboneMethod):
    """The whole model is tuned to draw one thing when a rare word is said, and anything else of its class as before."""

    name: ClassVar[str] = "dreambooth"
    Config: ClassVar[type[DreamBoothConfig]] = DreamBoothConfig
    several_images: ClassVar[bool] = True

    config: DreamBoothConfig

    def __init__(self, config: DreamBoothConfig) -> None:
        super().__init__(config)
        self._class_images = ClassImages(config.prior)

    def personalize(self, module: nn.Module, backbone: Backbone, identities: Sequence[Identity]) -> list[Adapter]:
        """One after the other: the whole denoiser is tuned, and restored in place between identities."""
        return [personalize_one(self.config, backbone, one, self._class_images) for one in identities]

    def conditioning(
        self, module: nn.Module, backbone: Backbone, adapter: Adapter, identity: Identity, prompts: Sequence[str]
    ) -> Conditioning:
        """The adapter's model, and the words that it was trained with where the placeholder is."""
        check_method(adapter, self.name)
        check_networks(adapter, backbone)
        deltas = by_group(adapter, (DENOISER, TEXT))
        known = {DENOISER: backbone.denoiser_parameters(), TEXT: backbone.text_parameters()}
        for group, tensors in deltas.items():
            check_fit(adapter, group, tensors, known[group])
        said = in_words(backbone, prompts, adapter.meta["prompt"])
        return WeightsConditioning(backbone, lambda: _all_shifted(known, deltas), said)

    def export(self, adapter: Adapter, uri: str, fmt: str, record: Record, backbone: Backbone) -> Record:
        """Write ``adapter.safetensors`` and its record under ``uri``: the differences from the backbone.

        Raises:
            UsageError: ``fmt`` is not ``native``.
        """
        if fmt != "native":
            raise UsageError(f"method 'dreambooth' cannot export '{fmt}'{nearest(fmt, self.formats)}")
        return save_adapter(Store(uri), "adapter", adapter, record)


@contextlib.contextmanager
def _all_shifted(
    parameters: Mapping[str, Mapping[str, nn.Parameter]], deltas: Mapping[str, Mapping[str, Tensor]]
) -> Iterator[None]:
    """Every network with its differences inside, and as it was outside."""
    with contextlib.ExitStack() as stack:
        for network, tensors in deltas.items():
            stack.enter_context(shifted(parameters[network], tensors))
        yield
