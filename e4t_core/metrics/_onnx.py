"""A face embedder from an ONNX file: any network that takes one batch of images and gives one vector each."""

from __future__ import annotations

import torch

from e4t_core.backbones.onnx_files import model_file
from e4t_core.backbones.onnx_images import ImageModel, Layout
from e4t_core.errors import UsageError

SHIPPED = "bundled:identity_tiny"
"""The embedder that comes with the package."""


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

    def __call__(self, pixels_B3hw: torch.Tensor) -> torch.Tensor:
        """(B, E) embeddings of images that are scaled as the model expects.

        Raises:
            UsageError: the model's output is not (B, E).
        """
        out = self._model.run(self._model.outputs[0], pixels_B3hw.numpy())
        if out.ndim != 2 or len(out) != len(pixels_B3hw):
            raise UsageError(
                f"{self._model.name} gives {out.shape} for {len(pixels_B3hw)} images; a face embedder gives "
                "(images, width)"
            )
        return torch.from_numpy(out)
