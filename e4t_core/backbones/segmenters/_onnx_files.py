"""The files of an ONNX segmenter, without the library that loads them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from e4t_core.backbones._fingerprints import file_hash
from e4t_core.backbones._locate import model_folder
from e4t_core.backbones.segmenters.config import SaliencyConfig
from e4t_core.errors import UsageError, nearest
from e4t_core.record import fingerprint


@contextlib.contextmanager
def onnx_file(config: SaliencyConfig) -> Iterator[Path]:
    """A local copy of the ONNX file, with the weights that it may have put in files beside it.

    Raises:
        UserError: there is none.
    """
    if config.path.endswith(".onnx"):
        place, _, name = config.path.rpartition("/")
        raise UsageError(f"path '{config.path}' is a file: set path to '{place or '.'}' and file to '{name}'")
    with model_folder(config.path, [config.file, _beside(config)]) as folder:
        if not (folder / config.file).is_file():
            others = [path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx")]
            raise UsageError(f"{config.path} has no file '{config.file}'{nearest(config.file, others)}")
        yield folder / config.file


def onnx_fingerprint(config: SaliencyConfig) -> str:
    """Fingerprint of the ONNX file and of the weights beside it."""
    with onnx_file(config) as file:
        beside = sorted(file.parent.glob(Path(_beside(config)).name))
        return fingerprint([file_hash(path) for path in (file, *beside)])


def _beside(config: SaliencyConfig) -> str:
    """The names exporters give to weights outside the file: ``model.onnx.data``, ``model.onnx_data``."""
    return f"{config.file}[._]data*"
