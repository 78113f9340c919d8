"""Opening ONNX models with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from e4t_core.errors import UsageError

_UNREADABLE = (
    faults.Fail,
    faults.InvalidArgument,
    faults.InvalidGraph,
    faults.InvalidProtobuf,
    faults.NoSuchFile,
    faults.NotImplemented,
    faults.RuntimeException,
)
DTYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
"""What a model of images may take."""


def open_session(name: str, file: Path, device: str) -> onnxruntime.InferenceSession:
    """A session on ``device`` (``cpu`` or ``cuda[:N]``) with torch's number of threads; messages call it ``name``.

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
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(
            str(file), options, providers=[cuda] if kind == "cuda" else ["CPUExecutionProvider"]
        )
    except _UNREADABLE as error:
        raise UsageError(
            f"{name} is no ONNX model that onnxruntime {onnxruntime.__version__} can run: {error}"
        ) from error
