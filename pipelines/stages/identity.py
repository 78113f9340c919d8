"""``identity``: whom a face embedder sees in each image, for cross-reference pairs and for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from e4t_core.metrics.identity import EmbedderConfig, IdentityConfig, IdentitySimilarity
from e4t_core.schema import Sample
from pipelines.stages._encode import half_arrays, images
from pipelines.stages.base import Bad, Stage, StageConfig


class IdentityStageConfig(EmbedderConfig, StageConfig):
    """Which embedder is asked, in the words of the metric ``identity``."""


class Identity(Stage):
    """``identity.npy`` (E,) float16, of unit length: cosines are dot products.

    The embedder is fed as the metric feeds it, so that stored embeddings and scores speak of the same thing.
    """

    name: ClassVar[str] = "identity"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("ingest",)
    writes: ClassVar[tuple[str, ...]] = ("identity.npy",)
    Config: ClassVar[type[StageConfig]] = IdentityStageConfig
    config: IdentityStageConfig
    embedder: IdentitySimilarity

    def settings(self) -> dict[str, Any]:
        return {k: v for k, v in super().settings().items() if k != "path"}

    def weights(self) -> str:
        return self._metric().weights()

    def setup(self) -> None:
        """Open the model.

        Raises:
            UsageError: it cannot be opened, or its interface does not fit the configuration.
        """
        self.embedder = self._metric()
        self.embedder.setup()

    def _metric(self) -> IdentitySimilarity:
        """The metric whose embeddings are stored, not loaded."""
        c = self.config
        fields = {name: getattr(c, name) for name in EmbedderConfig.model_fields}
        config = IdentityConfig(**fields, device=c.resources.device, batch_size=c.resources.batch_size)
        return IdentitySimilarity(config, self.models)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Sample]) -> list[Mapping[str, bytes] | Bad]:
        embeddings_BE = self.embedder.embed(images(batch, self.config.resources.threads))
        return [half_arrays({"identity.npy": embeddings_BE}, i) for i in range(len(batch))]
