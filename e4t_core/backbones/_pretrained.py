"""Loads networks of diffusers and transformers from safetensors, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from e4t_core.backbones._quiet import quiet
from e4t_core.errors import CheckpointMismatch


def from_safetensors(cls: Any, folder: Path, dtype: torch.dtype, **parts: bool) -> Any:
    """A ``cls`` with the folder's weights; ``parts`` says which of its optional parts it has.

    Raises:
        CheckpointMismatch: weights of another size, or with missing or unknown tensors.
    """
    misfit = f"the weights in {folder} do not fit its config.json"
    try:
        with quiet():
            model, found = cls.from_pretrained(
                folder,
                use_safetensors=True,
                torch_dtype=dtype,
                output_loading_info=True,
                local_files_only=True,
                **parts,
            )
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointMismatch(f"{misfit}: {error}") from error
    wrong = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
    if wrong:
        raise CheckpointMismatch(
            f"{misfit}: {len(wrong)} tensors of a {cls.__name__} are missing or unknown, such as '{wrong[0]}'"
        )
    return model
