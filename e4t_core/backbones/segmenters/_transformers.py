"""Loads transformers' segmentation models from safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from e4t_core.backbones._quiet import quiet
from e4t_core.backbones.segmenters._files import CONFIG, model_config, weight_files
from e4t_core.errors import CheckpointMismatch


def load_model(cls: Any, folder: Path) -> Any:
    """A ``cls`` with the folder's weights, in float32.

    Raises:
        UserError: the folder holds another kind of model, or no safetensors weights.
        CheckpointMismatch: weights of another size, or with missing or unknown tensors.
    """
    model_config(folder, cls.config_class.model_type)
    weight_files(folder)
    try:
        with quiet():
            model, found = cls.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, local_files_only=True
            )
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointMismatch(f"the weights in {folder} do not fit its {CONFIG}: {error}") from error
    wrong = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
    if wrong:
        raise CheckpointMismatch(
            f"the weights in {folder} are not those of a {cls.__name__}: {len(wrong)} tensors are missing or unknown, "
            f"such as '{wrong[0]}'"
        )
    return model.requires_grad_(False).eval()
