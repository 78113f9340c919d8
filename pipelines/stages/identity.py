"""``identity``: whom a face embedder sees in each image, for cross-reference pairs and for evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from e4t_core.metrics.identity import EmbedderConfig, IdentityConfig, IdentitySimilarity
from e4t_core.schema import Sample
from pipelines.stages._encode import decode, half_arrays, images
from pipelines.stages.base import Bad, Stage, StageConfig

_NO_FACE = Bad(
    "no_face",
    "the detector finds no face; show one that is larger and turned to the camera, or lower "
    "stages.identity.detector.score",
)


class IdentityStageConfig(EmbedderConfig, StageConfig):
    """Which embedder is asked, in the words of the metric ``identity``; with a detector, of the largest face."""


class Identity(Stage):
    """``identity.npy`` (E,) float16, of unit length: cosines are dot products.

    The embedder is fed as the metric feeds it, so that stored embeddings and scores speak of the same thing. Samples in
    which the configured detector finds no face are quarantined as ``no_face``.
    """

    name: ClassVar[str] = "identity"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("ingest",)
    writes: ClassVar[tuple[str, ...]] = ("identity.npy",)
    Config: ClassVar[type[StageConfig]] = IdentityStageConfig
    config: IdentityStageConfig
    embedder: IdentitySimilarity

    def settings(self) -> dict[str, Any]:
        about = {k: v for k, v in super().settings().items() if k not in ("path", "detector")}
        detector = self.config.detector
        # only then: columns that were made without one stay as they are
        return about | ({"detector": detector.settings()} if detector else {})

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

    def prepare(self, batch: Sequence[Sample]) -> None:
        decode(batch, self.config.resources.threads)

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Sample]) -> list[Mapping[str, bytes] | Bad]:
        embeddings_BE, found_B = self.embedder.embed_faces(images(batch, self.config.resources.threads))
        return [
            half_arrays(self.name, {"identity.npy": embeddings_BE}, i) if found else _NO_FACE
            for i, found in enumerate(found_B.tolist())
        ]
