"""ONNX models that take images, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from e4t_core.errors import UsageError

Layout = Literal["nchw", "nhwc"]
_UNREADABLE = (
    faults.Fail,
    faults.InvalidArgument,
    faults.InvalidGraph,
    faults.InvalidProtobuf,
    faults.NoSuchFile,
    faults.NotImplemented,
    faults.RuntimeException,
)
_DTYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class ImageModel:
    """An onnxruntime session whose input has been checked.

    Args:
        name: names it in messages.
        file: the ONNX file.
        device: ``cpu`` or ``cuda[:N]``.
        layout: order of the input's axes.
        threads: of the session on a CPU; torch's number if None.

    Attributes:
        size: (h, w) that it takes, or None if it takes any.
        outputs: names of its outputs.

    Raises:
        UsageError: no ONNX, no such device, or it does not take one batch of images.
    """

    def __init__(self, name: str, file: Path, device: str, layout: Layout = "nchw", threads: int | None = None) -> None:
        self.name, self.layout = name, layout
        self._session = _open(name, file, device, threads or torch.get_num_threads())
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(value.name for value in inputs) or "none"
            raise UsageError(f"{name} takes {len(inputs)} inputs ({names}); a model of images takes one")
        self._input = inputs[0]
        self._batch, self.size = self._shape()
        self._dtype = self._input_dtype()
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, output: str, pixels_B3hw: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, ...) the output called ``output``, of images that are scaled as the model expects."""
        step = self._batch or max(len(pixels_B3hw), 1)
        starts = range(0, len(pixels_B3hw), step)
        return np.concatenate([self._run([output], pixels_B3hw[i : i + step])[0] for i in starts])

    def run_all(self, pixels_13hw: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Every output, in the order of :attr:`outputs`, of one image that is scaled as the model expects."""
        return self._run(self.outputs, pixels_13hw)

    def _run(self, outputs: list[str], pixels_B3hw: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        array = pixels_B3hw.astype(self._dtype)
        array = np.ascontiguousarray(array if self.layout == "nchw" else array.transpose(0, 2, 3, 1))
        return [np.asarray(out, np.float32) for out in self._session.run(outputs, {self._input.name: array})]

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which no other process can use: a stage that is sent to one sets itself up there."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_session", "_input")}

    def _shape(self) -> tuple[int | None, tuple[int, int] | None]:
        """(fixed batch or None, (h, w) or None) from the model's own declaration."""
        shape = [dim if isinstance(dim, int) else None for dim in self._input.shape]
        where = "(batch, 3, height, width)" if self.layout == "nchw" else "(batch, height, width, 3)"
        channel = 1 if self.layout == "nchw" else 3
        if len(shape) != 4 or shape[channel] not in (3, None):
            raise UsageError(f"{self.name} takes {self._input.shape}; layout '{self.layout}' needs {where}")
        if shape[0] not in (1, None):
            raise UsageError(
                f"{self.name} takes exactly {shape[0]} images at once; export it for one or for any number"
            )
        height, width = shape[2:] if self.layout == "nchw" else shape[1:3]
        return shape[0], (height, width) if height and width else None

    def _input_dtype(self) -> type[np.floating[Any]]:
        if self._input.type not in _DTYPES:
            raise UsageError(f"{self.name} takes {self._input.type}; a model of images takes {' or '.join(_DTYPES)}")
        return _DTYPES[self._input.type]


def _open(name: str, file: Path, device: str, threads: int) -> onnxruntime.InferenceSession:
    """A session on ``device`` (``cpu`` or ``cuda[:N]``); messages call it ``name``.

    Raises:
        UsageError: no ONNX, or no such device.
    """
    kind, _, index = device.partition(":")
    available = onnxruntime.get_available_providers()
    if kind == "cuda" and "CUDAExecutionProvider" not in available:
        raise UsageError(
            f"device '{device}': this onnxruntime has only {', '.join(available)}; install onnxruntime-gpu or use cpu"
        )
    cuda = ("CUDAExecutionProvider", {"device_id": int(index or 0)})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            str(file), options, providers=[cuda] if kind == "cuda" else ["CPUExecutionProvider"]
        )
    except _UNREADABLE as error:
        raise UsageError(
            f"{name} is no ONNX model that onnxruntime {onnxruntime.__version__} can run: {error}"
        ) from error
