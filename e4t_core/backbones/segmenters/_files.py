"""The files of segmenters, without the libraries that load them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from e4t_core.backbones._fingerprints import file_hash, model_fingerprint
from e4t_core.backbones._locate import model_folder
from e4t_core.backbones.segmenters._inputs import InputFormat
from e4t_core.backbones.segmenters.config import SaliencyConfig
from e4t_core.config import validate
from e4t_core.errors import UsageError, UserError, nearest
from e4t_core.record import fingerprint

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
_PROCESSOR = "processor_config.json"
_TOKENIZER = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
PATTERNS = (
    CONFIG,
    PREPROCESSOR,
    _PROCESSOR,
    *_TOKENIZER,
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
)
"""What is fetched of a transformers model folder."""


def transformers_fingerprint(path: str, kind: str) -> str:
    """Fingerprint of a transformers model: configuration, image processor, tokenizer if it has one, and weights."""
    with model_folder(path, PATTERNS) as folder:
        tokenizer = {name: file_hash(folder / name) for name in _TOKENIZER if (folder / name).is_file()}
        facts = {**model_config(folder, kind), "processor": _processor(folder)[1], "tokenizer": tokenizer}
        return model_fingerprint(facts, weight_files(folder), None)


def model_config(folder: Path, kind: str) -> dict[str, Any]:
    """``config.json`` of a model of ``kind`` (transformers' ``model_type``).

    Raises:
        UserError: it is missing, no JSON, or another kind of model.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} has no {CONFIG}; it must be a transformers model folder")
    config = _json(folder / CONFIG)
    found = config.get("model_type")
    if found != kind:
        raise UserError(f"{folder / CONFIG} describes a '{found}' model; a {kind} segmenter needs a '{kind}' model")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files, sorted.

    Raises:
        UserError: there are none.
    """
    files = sorted([*folder.glob("model.safetensors"), *folder.glob("model-*.safetensors")])
    if not files:
        raise UserError(f"{folder} has no model.safetensors; convert the weights to safetensors")
    return files


def input_format(folder: Path) -> InputFormat:
    """How the folder's image processor scales images.

    Raises:
        UserError: it is missing, no JSON, or does something that segmenters here do not.
    """
    path, fields = _processor(folder)
    return validate(InputFormat, fields, str(path))


def _processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The image processor's settings: in their own file, or in the one that transformers 5 writes."""
    if (folder / PREPROCESSOR).is_file():
        return folder / PREPROCESSOR, _json(folder / PREPROCESSOR)
    path = folder / _PROCESSOR
    fields = _json(path).get("image_processor") if path.is_file() else None
    if fields is None:
        raise UserError(f"{folder} has no {PREPROCESSOR}; it says how the model's images are scaled")
    return path, fields


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is no JSON object: {error}") from error


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
