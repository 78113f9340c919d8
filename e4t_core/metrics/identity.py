"""ID: does the generated face belong to the person? Judged by a face embedder that users bring as an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from e4t_core.backbones.face_detector import FaceDetectorConfig, face_detector_fingerprint
from e4t_core.backbones.onnx_files import model_file_hash
from e4t_core.metrics._faces import AlignedFaces, Detector, whole_image
from e4t_core.metrics._features import mean_cosine
from e4t_core.metrics._onnx import SHIPPED, ImageEmbedderConfig, ScaledEmbedder
from e4t_core.metrics.base import Compared, Metric, MetricConfig
from e4t_core.record import canonical_json, fingerprint


class EmbedderConfig(ImageEmbedderConfig):
    """Which face embedder (ArcFace, CurricularFace...), and how it wants its images.

    Attributes:
        detector: finds the face and its five points, by which it is aligned as ArcFace's training data were; without
            one, images must be faces already.
    """

    detector: FaceDetectorConfig | None = None


class IdentityConfig(EmbedderConfig, MetricConfig):
    """The embedder that judges.

    Attributes:
        device: the CPU unless said otherwise: embedders are small, and onnxruntime's GPU build is another package.
    """

    device: str | None = "cpu"


class IdentitySimilarity(Metric):
    """Mean cosine between each generated image and the person's real images (E4T fig. 4).

    Faces are what :attr:`detector` finds (the whole image, unless one is configured); images without one score NaN and
    are counted by reports. References without a face are left out of the mean, and counted as well.
    """

    name: ClassVar[str] = "identity"
    title: ClassVar[str] = "ID"
    Config: ClassVar[type[MetricConfig]] = IdentityConfig
    misses: ClassVar[bool] = True
    references: ClassVar[Compared] = "real"
    config: IdentityConfig
    detector: Detector = staticmethod(whole_image)
    model: ScaledEmbedder

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the crops that the embedder sees."""
        return self.model.size

    @property
    def space(self) -> str:
        settings = {k: v for k, v in self.config.dump().items() if k in EmbedderConfig.model_fields}
        return f"faces {canonical_json(settings).decode()}"

    def setup(self) -> None:
        """Open the models.

        Raises:
            UsageError: one cannot be opened, or its interface does not fit the configuration.
        """
        self.model = ScaledEmbedder(self.config, self.device)
        if self.config.detector is not None:
            self.detector = AlignedFaces(self.config.detector)

    def weights(self) -> str:
        """SHA-256 of the embedder's file; with a detector, a fingerprint of both files.

        Raises:
            UsageError: there is none.
        """
        embedder, detector = model_file_hash(self.config.path, SHIPPED), self.config.detector
        return fingerprint([embedder, face_detector_fingerprint(detector)]) if detector else embedder

    def compare(self, generated_BE: Tensor, references_NE: Tensor, prompts: Sequence[str]) -> Tensor:
        return mean_cosine(generated_BE, references_NE)

    def embed(self, images_B3HW: Tensor) -> Tensor:
        """(B, E) unit vectors; NaN where no face was found."""
        embeddings_BE, found_B = self.embed_faces(images_B3HW)
        return embeddings_BE.masked_fill(~found_B[:, None], torch.nan)

    def embed_faces(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, E) unit vectors, and (B,) bool: was a face found? Where none was, the vector says nothing."""
        parts = [self._embed(part.detach().float().cpu()) for part in images_B3HW.split(self.config.batch_size)]
        embeddings, found = zip(*parts, strict=True)
        return torch.cat(embeddings), torch.cat(found)

    def _embed(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        crops_B3hw, found_B = self.detector(images_B3HW, self.size)
        return F.normalize(self.model(crops_B3hw), dim=1), found_B
