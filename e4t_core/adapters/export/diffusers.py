"""diffusers: ``pipeline.load_lora_weights(FOLDER)``. Without alphas its scale is 1."""

from __future__ import annotations

from e4t_core.adapters.export._layers import Layers, safetensors_file
from e4t_core.record import Record


def files(layers: Layers, record: Record) -> dict[str, bytes]:
    """One file, ``<network>.<layer>.lora_A.weight`` (R, N) and ``....lora_B.weight`` (M, R), under the name that
    diffusers looks for in a folder."""
    tensors = {}
    for network, found in layers.networks.items():
        for name, (up_MR, down_RN) in found.items():
            tensors[f"{network}.{name}.lora_A.weight"] = down_RN
            tensors[f"{network}.{name}.lora_B.weight"] = up_MR
    return {"/pytorch_lora_weights.safetensors": safetensors_file(tensors, record)}
