"""The files of a transformers model folder, without the library that loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e4t_core.backbones._fingerprints import file_hash, model_fingerprint
from e4t_core.backbones._locate import model_folder
from e4t_core.backbones.image_input import InputFormat
from e4t_core.config import validate
from e4t_core.errors import UserError

CONFIG, PREPROCESSOR, _PROCESSOR = "config.json", "preprocessor_config.json", "processor_config.json"
_TOKENIZER = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
_WEIGHTS = ("model.safetensors", "model-*.safetensors")
PATTERNS = (CONFIG, PREPROCESSOR, _PROCESSOR, *_TOKENIZER, *_WEIGHTS, "model.safetensors.index.json")
"""What is fetched: no other precision, no pickles."""


def transformers_fingerprint(path: str, kind: str, vocabulary: tuple[str, ...] = ()) -> str:
    """Fingerprint of configuration, image processor, tokenizer if it has one, and weights.

    Raises:
        UserError: a file is missing, or it is another kind of model.
    """
    with model_folder(path, PATTERNS) as folder:
        weights = check(folder, kind, vocabulary)
        tokenizer = {name: file_hash(folder / name) for name in _TOKENIZER if (folder / name).is_file()}
        facts = {**model_config(folder, kind), "processor": _processor(folder)[1], "tokenizer": tokenizer}
        return model_fingerprint(facts, weights, None)


def check(folder: Path, kind: str, vocabulary: tuple[str, ...] = ()) -> list[Path]:
    """The safetensors files, sorted, of a folder that has all that is needed.

    Args:
        kind: transformers' ``model_type``.
        vocabulary: files of which one must be there; without any, transformers would take an empty one.

    Raises:
        UserError: it has not.
    """
    model_config(folder, kind)
    weights = sorted(file for pattern in _WEIGHTS for file in folder.glob(pattern))
    if not weights:
        raise UserError(f"{folder} has no model.safetensors; convert the weights to safetensors")
    if vocabulary and not any((folder / name).is_file() for name in vocabulary):
        raise UserError(f"{folder} has no tokenizer; it needs {' or '.join(vocabulary)}")
    return weights


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
        raise UserError(f"{folder / CONFIG} describes a '{found}' model; it must be a '{kind}' model")
    return config


def input_format(folder: Path, resample: int = 2) -> InputFormat:
    """How the folder's image processor scales images; ``resample`` is what its class does if the file does not say.

    Raises:
        UserError: it is missing, no JSON, or does something that is not done here.
    """
    path, fields = _processor(folder)
    return validate(InputFormat, {"resample": resample, **fields}, str(path))


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
