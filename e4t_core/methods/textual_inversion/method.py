"""Textual Inversion (Gal et al. 2022) behind the method contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from e4t_core.adapters.concurrent import tuning_fit
from e4t_core.adapters.export.textual_inversion import save_embedding
from e4t_core.adapters.tunable import TokenWeights
from e4t_core.backbones.base import Backbone
from e4t_core.errors import CheckpointMismatch, UsageError, nearest
from e4t_core.methods._adapters import check_method, check_networks
from e4t_core.methods.base import Adapter, BackboneMethod, Conditioning, Identity
from e4t_core.methods.textual_inversion.conditioning import WordConditioning
from e4t_core.methods.textual_inversion.config import TextualInversionConfig
from e4t_core.methods.textual_inversion.personalization import TOKEN, personalize_all
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training.artifacts import save_adapter


class TextualInversion(BackboneMethod):
    """One new word in the vocabulary of the frozen model; its embedding is all that is learned."""

    name: ClassVar[str] = "textual_inversion"
    Config: ClassVar[type[TextualInversionConfig]] = TextualInversionConfig
    several_images: ClassVar[bool] = True
    draws_together: ClassVar[bool] = True
    formats: ClassVar[tuple[str, ...]] = ("native", "textual_inversion")

    config: TextualInversionConfig

    def __init__(self, config: TextualInversionConfig) -> None:
        super().__init__(config)
        self._fitting = tuning_fit()

    def personalize(self, module: nn.Module, backbone: Backbone, identities: Sequence[Identity]) -> list[Adapter]:
        """All of them together."""
        return personalize_all(self.config, backbone, identities, self._fitting)

    def conditioning(
        self, module: nn.Module, backbone: Backbone, adapter: Adapter, identity: Identity, prompts: Sequence[str]
    ) -> Conditioning:
        """The word where the placeholder is; an adapter without tensors has the word that tuning starts from."""
        check_method(adapter, self.name)
        check_networks(adapter, backbone)
        return WordConditioning(backbone, [self._token(adapter, backbone)], prompts)

    def conditioning_together(
        self,
        module: nn.Module,
        backbone: Backbone,
        adapters: Sequence[Adapter],
        identities: Sequence[Identity],
        prompts: Sequence[Sequence[str]],
    ) -> Conditioning:
        """Each image with its own identity's word."""
        for adapter in adapters:
            check_method(adapter, self.name)
            check_networks(adapter, backbone)
        tokens = [self._token(adapter, backbone) for adapter in adapters]
        of_each_image = [token for token, whose in zip(tokens, prompts, strict=True) for _ in whose]
        return WordConditioning(backbone, of_each_image, [prompt for whose in prompts for prompt in whose])

    def _token(self, adapter: Adapter, backbone: Backbone) -> Tensor:
        """(D,) or (V, D).

        Raises:
            CheckpointMismatch: it is no embedding of this text encoder.
        """
        weights = TokenWeights(backbone, self.config.domain_word, self.config.vectors)
        token = adapter.tensors.get(TOKEN, weights.initial([0])[TOKEN][0])
        if token.shape[-1] != backbone.text_width or token.ndim > 2 or set(adapter.tensors) - {TOKEN}:
            shapes = {name: tuple(t.shape) for name, t in adapter.tensors.items()}
            raise CheckpointMismatch(
                f"the adapter of '{adapter.identity}' holds {shapes}; a word of this model is 'token' of "
                f"{backbone.text_width} numbers, or several of them"
            )
        return token

    def export(self, adapter: Adapter, uri: str, fmt: str, record: Record, backbone: Backbone) -> Record:
        """Write ``adapter.safetensors`` and its record under ``uri``; or ``embedding.safetensors``, which
        ``load_textual_inversion`` of diffusers reads.

        Raises:
            UsageError: no such format.
        """
        if fmt == "native":
            return save_adapter(Store(uri), "adapter", adapter, record)
        if fmt != "textual_inversion":
            raise UsageError(f"method 'textual_inversion' cannot export '{fmt}'{nearest(fmt, self.formats)}")
        token = self._token(adapter, backbone)
        save_embedding(Store(uri), "embedding.safetensors", backbone.placeholder, token, record)
        return record
