"""The keys of kohya's sd-scripts, which A1111 and ComfyUI load: drop the file into the folder of LoRAs."""

from __future__ import annotations

import torch

from e4t_core.adapters.export._layers import Layers, safetensors_file
from e4t_core.record import Record

PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te"}
_SD2_TEXT_WIDTH = 1024


def layer_key(network: str, name: str) -> str:
    """``lora_unet_mid_block_attentions_0_..._attn1_to_q``: prefix and module path, dots written as underscores."""
    return f"{PREFIXES[network]}_{name.replace('.', '_')}"


def files(layers: Layers, record: Record) -> dict[str, bytes]:
    """One file: ``<key>.lora_up.weight`` (M, R), ``<key>.lora_down.weight`` (R, N) and ``<key>.alpha`` = R a layer.

    The ``ss_`` metadata are those that sd-scripts writes and A1111 reads; ``ss_v2`` tells Stable Diffusion 2 by the
    width of its text states.
    """
    tensors = {}
    for network, found in layers.networks.items():
        for name, (up_MR, down_RN) in found.items():
            key = layer_key(network, name)
            tensors[f"{key}.lora_up.weight"] = up_MR
            tensors[f"{key}.lora_down.weight"] = down_RN
            tensors[f"{key}.alpha"] = torch.tensor(float(layers.rank))
    rank = str(layers.rank)
    about = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "ss_v2": str(_of_sd2(layers)),
    }
    return {".safetensors": safetensors_file(tensors, record, **about)}


def _of_sd2(layers: Layers) -> bool:
    crossing = [down for name, (_, down) in layers.networks.get("unet", {}).items() if name.endswith("attn2.to_k")]
    own = [down for _, down in layers.networks.get("text_encoder", {}).values()]
    return any(down.shape[1] == _SD2_TEXT_WIDTH for down in [*crossing, *own])
