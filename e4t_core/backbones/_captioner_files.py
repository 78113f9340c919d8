"""The files of a BLIP captioner in transformers' folder layout, without the libraries that load them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e4t_core.backbones._fingerprints import file_hash
from e4t_core.backbones._locate import model_folder
from e4t_core.errors import UserError
from e4t_core.record import fingerprint

_WEIGHTS = ("model.safetensors", "model-*.safetensors")
_VOCABULARY = ("tokenizer.json", "vocab.txt")
_TOKENIZER = (*_VOCABULARY, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
PREPROCESSOR, _PROCESSOR = "preprocessor_config.json", "processor_config.json"
PATTERNS = ("config.json", PREPROCESSOR, _PROCESSOR, *_TOKENIZER, *_WEIGHTS, "model.safetensors.index.json")
"""What is read: no other precision, no pickles."""


def weights_fingerprint(path: str) -> str:
    """Fingerprint of weights, configuration, preprocessing and tokenizer: all that a sentence follows from."""
    with model_folder(path, PATTERNS) as folder:
        check(folder)
        files = {file for pattern in PATTERNS for file in folder.glob(pattern)}
        return fingerprint({file.name: file_hash(file) for file in files})


def check(folder: Path) -> None:
    """Refuse a folder of another model, without safetensors, or without a vocabulary.

    Raises:
        UserError: it is one.
    """
    kind = _read(folder, "config.json").get("model_type")
    if kind != "blip":
        raise UserError(f"{folder} holds a '{kind}' model; a captioner is a BLIP model (model_type 'blip')")
    if not any(file for pattern in _WEIGHTS for file in folder.glob(pattern)):
        raise UserError(f"{folder} has no {_WEIGHTS[0]}; convert the weights to safetensors")
    if not any((folder / name).is_file() for name in _VOCABULARY):  # transformers would take an empty one
        raise UserError(f"{folder} has no tokenizer; it needs {' or '.join(_VOCABULARY)}")


def preprocessing(folder: Path) -> dict[str, Any]:
    """The image processor's configuration; newer transformers keep it inside ``processor_config.json``.

    Raises:
        UserError: there is none, or it leaves out a step.
    """
    if (folder / PREPROCESSOR).is_file() or not (folder / _PROCESSOR).is_file():
        name, found = PREPROCESSOR, _read(folder, PREPROCESSOR)
    else:
        name, found = _PROCESSOR, dict(_read(folder, _PROCESSOR).get("image_processor") or {})
    lacking = [key for key in ("size", "image_mean", "image_std") if key not in found]
    lacking += [key for key in ("do_resize", "do_rescale", "do_normalize") if not found.get(key, True)]
    if lacking:
        raise UserError(f"{folder / name} does not set {', '.join(lacking)}; BLIP's images are scaled and normalised")
    return found


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise UserError(f"{folder} has no {name}; it must be a folder that transformers saved a BLIP captioner to")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
