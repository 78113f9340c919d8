"""peft: ``PeftModel.from_pretrained(pipeline.unet, FOLDER)``, a folder for every network."""

from __future__ import annotations

import json
from collections.abc import Iterable

from peft import LoraConfig
from torch import Tensor

from e4t_core.adapters.export._layers import Layers, safetensors_file
from e4t_core.record import Record

_TEXT_MODEL = "text_model."
"""What the paths of a text encoder's modules begin with before transformers 5, and no longer."""


def files(layers: Layers, record: Record) -> dict[str, bytes]:
    """``adapter_config.json`` and ``adapter_model.safetensors`` (``base_model.model.<layer>.lora_A.weight``).

    peft finds nothing where a path differs, and only warns. So the text encoder's layers are there under both paths:
    each version of transformers takes its own and leaves the others.
    """
    out = {}
    for network, found in layers.networks.items():
        tensors: dict[str, Tensor] = {}
        for name, (up_MR, down_RN) in found.items():
            for path in dict.fromkeys((name, name.removeprefix(_TEXT_MODEL))):
                tensors[f"base_model.model.{path}.lora_A.weight"] = down_RN.clone()  # safetensors shares no memory
                tensors[f"base_model.model.{path}.lora_B.weight"] = up_MR.clone()
        out[f"/{network}/adapter_config.json"] = _config(found, layers.rank)
        out[f"/{network}/adapter_model.safetensors"] = safetensors_file(tensors, record)
    return out


def _config(names: Iterable[str], rank: int) -> bytes:
    """A layer is one whose path ends with a target, so targets without ``text_model.`` fit both."""
    targets = [name.removeprefix(_TEXT_MODEL) for name in names]
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=targets, lora_dropout=0.0, inference_mode=True
    ).to_dict()
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    return (json.dumps(plain, indent=2, sort_keys=True) + "\n").encode()
