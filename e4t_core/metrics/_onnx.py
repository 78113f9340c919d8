"""A face embedder from an ONNX file: any network that takes one batch of images and gives one vector each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from e4t_core.backbones.onnx_session import DTYPES, open_session
from e4t_core.bundled import SCHEME, bundled_folder
from e4t_core.errors import UsageError
from e4t_core.storage import Store

Layout = Literal["nchw", "nhwc"]


class Embedder:
    """An onnxruntime session whose interface has been checked.

    Args:
        path: ``bundled:NAME``, a local file or its URI.
        layout: order of the input's axes.
        device: ``cpu`` or ``cuda[:N]``.

    Attributes:
        size: (h, w) that the model takes, or None if it takes any.

    Raises:
        UsageError: the file is missing, no ONNX, or does not map one batch of images to one vector each.
    """

    def __init__(self, path: str, layout: Layout, device: str) -> None:
        self.path, self.layout = path, layout
        with model_file(path) as file:
            self._session = open_session(path, file, device)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise UsageError(f"{path} takes {len(inputs)} inputs ({_names(inputs)}); a face embedder takes one")
        self._input = inputs[0]
        self._batch, self.size = self._shape()
        self._dtype = self._input_dtype()
        self._output = self._session.get_outputs()[0].name

    def __call__(self, pixels_B3hw: torch.Tensor) -> torch.Tensor:
        """(B, E) embeddings of images that are scaled as the model expects.

        Raises:
            UsageError: the model's output is not (B, E).
        """
        array = pixels_B3hw.numpy().astype(self._dtype)
        array = np.ascontiguousarray(array if self.layout == "nchw" else array.transpose(0, 2, 3, 1))
        step = self._batch or max(len(array), 1)
        parts = [self._run(array[i : i + step]) for i in range(0, len(array), step)]
        return torch.from_numpy(np.concatenate(parts).astype(np.float32))

    def _run(self, array: NDArray[Any]) -> NDArray[Any]:
        (out,) = self._session.run([self._output], {self._input.name: array})
        if out.ndim != 2 or len(out) != len(array):
            raise UsageError(
                f"{self.path} gives {out.shape} for {len(array)} images; a face embedder gives (images, width)"
            )
        return out

    def _shape(self) -> tuple[int | None, tuple[int, int] | None]:
        """(fixed batch or None, (h, w) or None) from the model's own declaration."""
        shape = [dim if isinstance(dim, int) else None for dim in self._input.shape]
        where = "(batch, 3, height, width)" if self.layout == "nchw" else "(batch, height, width, 3)"
        channel = 1 if self.layout == "nchw" else 3
        if len(shape) != 4 or shape[channel] not in (3, None):
            raise UsageError(f"{self.path} takes {self._input.shape}; layout '{self.layout}' needs {where}")
        if shape[0] not in (1, None):
            raise UsageError(
                f"{self.path} takes exactly {shape[0]} images at once; export it for one or for any number"
            )
        height, width = shape[2:] if self.layout == "nchw" else shape[1:3]
        return shape[0], (height, width) if height and width else None

    def _input_dtype(self) -> type[np.floating[Any]]:
        if self._input.type not in DTYPES:
            raise UsageError(f"{self.path} takes {self._input.type}; a face embedder takes {' or '.join(DTYPES)}")
        return DTYPES[self._input.type]


@contextlib.contextmanager
def model_file(path: str) -> Iterator[Path]:
    """A local file with the model.

    Raises:
        UsageError: there is none.
    """
    if path.startswith(SCHEME):
        file = bundled_folder(path) / "model.onnx"
        if not file.is_file():
            raise UsageError(f"'{path}' holds no ONNX model; bundled:identity_tiny is one")
        yield file
        return
    folder, _, name = path.rpartition("/")
    store = Store(folder or ".")
    if not store.exists(name):
        raise UsageError(f"there is no ONNX file at '{path}'; give a path, a URI or bundled:identity_tiny")
    with store.as_local(name) as file:
        yield file


def _names(values: Any) -> str:
    return ", ".join(value.name for value in values) or "none"
