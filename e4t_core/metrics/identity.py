"""ID: does the generated face belong to the person? Judged by a face embedder that users bring as an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from e4t_core.backbones.face_detector import FaceDetectorConfig, face_detector_fingerprint
from e4t_core.backbones.image_input import Scale, Side
from e4t_core.backbones.onnx_files import model_file_hash
from e4t_core.backbones.onnx_images import Layout
from e4t_core.config import Config
from e4t_core.errors import UsageError
from e4t_core.metrics._faces import AlignedFaces, Detector, whole_image
from e4t_core.metrics._onnx import SHIPPED, Embedder
from e4t_core.metrics.base import Metric, MetricConfig
from e4t_core.record import fingerprint

Triple = tuple[float, float, float]


class EmbedderConfig(Config):
    """Which face embedder, and how it wants its images.

    Attributes:
        path: ``bundled:NAME``, an ONNX file or its URI (ArcFace, CurricularFace...).
        size: (height, width) it takes, for models that do not declare it.
        mean, std: input = (pixel - mean) / std, pixels from 0 to 255, in ``channels`` order.
        channels: order of the colours.
        layout: order of the input's axes.
        detector: finds the face and its five points, by which it is aligned as ArcFace's training data were; without
            one, images must be faces already.
    """

    path: str
    size: tuple[Side, Side] | None = None
    mean: Triple = (127.5, 127.5, 127.5)
    std: tuple[Scale, Scale, Scale] = (127.5, 127.5, 127.5)
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Layout = "nchw"
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
    are counted by reports. References without a face are left out of the mean.
    """

    name: ClassVar[str] = "identity"
    title: ClassVar[str] = "ID"
    Config: ClassVar[type[MetricConfig]] = IdentityConfig
    references: ClassVar[Literal["concept", "real"]] = "real"
    config: IdentityConfig
    detector: Detector = staticmethod(whole_image)
    model: Embedder
    size: tuple[int, int]

    def setup(self) -> None:
        """Open the models.

        Raises:
            UsageError: one cannot be opened, or its interface does not fit the configuration.
        """
        config = self.config
        self.model = Embedder(config.path, config.layout, self.device)
        if config.size and self.model.size and config.size != self.model.size:
            raise UsageError(f"size is {config.size}, but {config.path} takes {self.model.size}")
        size = self.model.size or config.size
        if size is None:
            raise UsageError(f"{config.path} takes any size: say the one it was trained on as size")
        self.size = size
        if config.detector is not None:
            self.detector = AlignedFaces(config.detector)

    def weights(self) -> str:
        """SHA-256 of the embedder's file; with a detector, a fingerprint of both files.

        Raises:
            UsageError: there is none.
        """
        embedder, detector = model_file_hash(self.config.path, SHIPPED), self.config.detector
        return fingerprint([embedder, face_detector_fingerprint(detector)]) if detector else embedder

    def __call__(self, generated_B3HW: Tensor, references_N3HW: Tensor, prompts: Sequence[str]) -> Tensor:
        generated_BE = self.embed(generated_B3HW)
        references_NE = self.embed(references_N3HW)
        seen_NE = references_NE[~references_NE.isnan().any(1)]
        return (generated_BE @ seen_NE.T).mean(1)  # the mean over no reference is NaN, as it should be

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
        return F.normalize(self.model(self._scaled(crops_B3hw)), dim=1), found_B

    def _scaled(self, crops_B3hw: Tensor) -> Tensor:
        """From [-1, 1] to what the model was trained on."""
        pixels_B3hw = (crops_B3hw + 1) * 127.5
        if self.config.channels == "bgr":
            pixels_B3hw = pixels_B3hw.flip(1)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.config.mean, self.config.std))
        return (pixels_B3hw - mean) / std
