"""Networks from ONNX files: any that takes one batch of images and gives one vector each."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from e4t_core.backbones.image_input import Scale, Side
from e4t_core.backbones.onnx_files import model_file
from e4t_core.backbones.onnx_images import ImageModel, Layout
from e4t_core.config import Config
from e4t_core.errors import UsageError

SHIPPED = "bundled:identity_tiny"
"""The embedder that comes with the package."""
Triple = tuple[float, float, float]


class ImageEmbedderConfig(Config):
    """Which network, and how it wants its images.

    Attributes:
        path: ``bundled:NAME``, an ONNX file or its URI.
        size: (height, width) it takes, for models that do not declare it.
        mean, std: input = (pixel - mean) / std, pixels from 0 to 255, in ``channels`` order.
        channels: order of the colours.
        layout: order of the input's axes.
    """

    path: str
    size: tuple[Side, Side] | None = None
    mean: Triple = (127.5, 127.5, 127.5)
    std: tuple[Scale, Scale, Scale] = (127.5, 127.5, 127.5)
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Layout = "nchw"


class Embedder:
    """A model whose first output is the embedding.

    Args:
        path: ``bundled:NAME``, a local file or its URI.
        layout: order of the input's axes.
        device: ``cpu`` or ``cuda[:N]``.

    Attributes:
        size: (h, w) that the model takes, or None if it takes any.

    Raises:
        UsageError: the file is missing, no ONNX, or does not take one batch of images.
    """

    def __init__(self, path: str, layout: Layout, device: str) -> None:
        with model_file(path, SHIPPED) as file:
            self._model = ImageModel(path, file, device, layout)
        self.size = self._model.size

    def __call__(self, pixels_B3hw: Tensor) -> Tensor:
        """(B, E) embeddings of images that are scaled as the model expects.

        Raises:
            UsageError: the model's output is not (B, E).
        """
        out = self._model.run(self._model.outputs[0], pixels_B3hw.numpy())
        if out.ndim != 2 or len(out) != len(pixels_B3hw):
            raise UsageError(
                f"{self._model.name} gives {out.shape} for {len(pixels_B3hw)} images; an embedder gives (images, width)"
            )
        return torch.from_numpy(out)


class ScaledEmbedder:
    """An :class:`Embedder` that takes our images.

    Attributes:
        size: (h, w) of its input.

    Raises:
        UsageError: it cannot be opened, or its size is not known or another than configured.
    """

    def __init__(self, config: ImageEmbedderConfig, device: str) -> None:
        self.config, self._embedder = config, Embedder(config.path, config.layout, device)
        declared = self._embedder.size
        if config.size and declared and config.size != declared:
            raise UsageError(f"size is {config.size}, but {config.path} takes {declared}")
        size = declared or config.size
        if size is None:
            raise UsageError(f"{config.path} takes any size: say the one it was trained on as size")
        self.size = size

    def __call__(self, crops_B3hw: Tensor) -> Tensor:
        """(B, E) of images in [-1, 1] at its size, scaled to what it was trained on."""
        pixels_B3hw = (crops_B3hw + 1) * 127.5
        if self.config.channels == "bgr":
            pixels_B3hw = pixels_B3hw.flip(1)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.config.mean, self.config.std))
        return self._embedder((pixels_B3hw - mean) / std)
