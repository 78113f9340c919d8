"""An ONNX model that takes images, opened and with its interface checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e4t_core.backbones.onnx_session import DTYPES, open_session
from e4t_core.errors import UsageError


class Model:
    """An onnxruntime session.

    Args:
        name: names it in messages.
        file: the ONNX file.
        device: ``cpu`` or ``cuda[:N]``.

    Attributes:
        batch: 1 if it takes one image at a time, None if it takes any number.
        size: (h, w) that it takes, or None if it takes any.
        outputs: names of its outputs.

    Raises:
        UsageError: no ONNX, no such device, or it does not take (batch, 3, height, width).
    """

    def __init__(self, name: str, file: Path, device: str) -> None:
        self.name = name
        self._session = open_session(name, file, device)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in DTYPES:
            what = ", ".join(f"{i.name} {i.type}" for i in inputs)
            raise UsageError(f"{name} takes {what}; a model of images takes one {' or '.join(DTYPES)}")
        self._input = inputs[0]
        self.batch, self.size = self._shape()
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, output: str, pixels_B3hw: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output called ``output``, float32."""
        array = np.ascontiguousarray(pixels_B3hw.astype(DTYPES[self._input.type]))
        (found,) = self._session.run([output], {self._input.name: array})
        return np.asarray(found, dtype=np.float32)

    def _shape(self) -> tuple[int | None, tuple[int, int] | None]:
        """(fixed batch or None, (h, w) or None) from the model's own declaration."""
        shape = [dim if isinstance(dim, int) else None for dim in self._input.shape]
        if len(shape) != 4 or shape[1] not in (3, None):
            raise UsageError(f"{self.name} takes {self._input.shape}; it must take (batch, 3, height, width)")
        if shape[0] not in (1, None):
            raise UsageError(f"{self.name} takes {shape[0]} images at once; export it for one or for any number")
        height, width = shape[2:]
        return shape[0], (height, width) if height and width else None
