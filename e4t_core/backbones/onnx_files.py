"""Single ONNX files wherever a recipe points, without the library that runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from e4t_core.backbones._fingerprints import file_hash
from e4t_core.bundled import SCHEME, bundled_folder
from e4t_core.errors import UsageError
from e4t_core.storage import Store


@contextlib.contextmanager
def model_file(path: str, shipped: str | None = None) -> Iterator[Path]:
    """A local file with the model that ``path`` names: ``bundled:NAME``, a local file or its URI.

    Args:
        shipped: what ``bundled:`` has of this kind, for messages.

    Raises:
        UsageError: there is none.
    """
    if path.startswith(SCHEME):
        file = bundled_folder(path) / "model.onnx"
        if not file.is_file():
            raise UsageError(f"'{path}' holds no ONNX model; {f'{shipped} is one' if shipped else 'give a file'}")
        yield file
        return
    folder, _, name = path.rpartition("/")
    store = Store(folder or ".")
    if not store.exists(name):
        right = f"a path, a URI or {shipped}" if shipped else "a path or a URI"
        raise UsageError(f"there is no ONNX file at '{path}'; give {right}")
    with store.as_local(name) as file:
        yield file


def model_file_hash(path: str, shipped: str | None = None) -> str:
    """SHA-256 of the file that :func:`model_file` gives; loads no model."""
    with model_file(path, shipped) as file:
        return file_hash(file)
