"""Salient-object networks from ONNX files: U-2-Net (Qin et al. 2020), IS-Net, BiRefNet and their like."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e4t_core.backbones.image_input import InputFormat, Size
from e4t_core.backbones.onnx_images import ImageModel
from e4t_core.backbones.segmenters._onnx_files import onnx_file
from e4t_core.backbones.segmenters.base import Segmenter
from e4t_core.backbones.segmenters.config import SaliencyConfig
from e4t_core.errors import UsageError, nearest

_U2NET_SIZE = (320, 320)
_ROUNDING = 1e-3
"""How far half precision may take a probability out of [0, 1]."""


class Saliency(Segmenter):
    """The foreground is what stands out. The session has a device of its own; tensors stay on the CPU.

    Args:
        config: what the model cannot say itself.
        model: the opened model.

    Raises:
        UsageError: its size or its outputs are not what ``config`` says.
    """

    def __init__(self, config: SaliencyConfig, model: ImageModel) -> None:
        height, width = _size(config, model)
        size = Size(height=height, width=width)
        super().__init__(InputFormat(size=size, image_mean=config.mean, image_std=config.std))
        self.config = config
        self._model = model
        self._output = _output(config, model)

    def foreground(self, pixels_B3hw: Tensor) -> Tensor:
        return self._normalized(torch.from_numpy(self._maps(pixels_B3hw.numpy())))

    def _maps(self, pixels_B3hw: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, h, w) from an output of (B, 1, h, w) or (B, h, w)."""
        out = self._model.run(self._output, pixels_B3hw)
        shape = out.shape
        if out.ndim == 4 and shape[1] == 1:
            out = out[:, 0]
        if out.ndim != 3 or len(out) != len(pixels_B3hw):
            raise UsageError(
                f"output '{self._output}' of {self._model.name} is {shape} for {len(pixels_B3hw)} images; a map is "
                f"(images, 1, height, width). Its outputs: {', '.join(self._model.outputs)}"
            )
        return out

    def _normalized(self, maps_Bhw: Tensor) -> Tensor:
        if self.config.normalization == "sigmoid":
            return maps_Bhw.sigmoid()
        low, high = maps_Bhw.amin((1, 2), keepdim=True), maps_Bhw.amax((1, 2), keepdim=True)
        if self.config.normalization == "minmax":
            # a flat map has nothing that stands out: 0, not 0 / 0
            return (maps_Bhw - low) / (high - low).clamp_min(torch.finfo(torch.float32).tiny)
        if bool((low < -_ROUNDING).any() or (high > 1 + _ROUNDING).any()):
            raise UsageError(
                f"output '{self._output}' of {self._model.name} goes from {low.min():g} to {high.max():g}, so it holds "
                "no probabilities: set normalization to 'sigmoid' for logits, or to 'minmax'"
            )
        return maps_Bhw


def load(config: SaliencyConfig, device: str | torch.device) -> Saliency:
    """See :func:`e4t_core.backbones.segmenters.load_segmenter`."""
    with onnx_file(config) as file:
        return Saliency(config, ImageModel(f"{config.path}/{config.file}", file, str(device)))


def _size(config: SaliencyConfig, model: ImageModel) -> tuple[int, int]:
    if config.size and model.size and config.size != model.size:
        raise UsageError(f"size is {config.size}, but {model.name} takes {model.size}; leave size out")
    return model.size or config.size or _U2NET_SIZE


def _output(config: SaliencyConfig, model: ImageModel) -> str:
    wanted: Any = config.output
    if isinstance(wanted, str):
        if wanted not in model.outputs:
            raise UsageError(f"{model.name} has no output '{wanted}'{nearest(wanted, model.outputs)}")
        return wanted
    if not 0 <= wanted < len(model.outputs):
        raise UsageError(f"output is {wanted}; {model.name} has {len(model.outputs)}: {', '.join(model.outputs)}")
    return model.outputs[wanted]
