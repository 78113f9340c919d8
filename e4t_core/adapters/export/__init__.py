"""Low-rank weights as the files that other programs load: diffusers, A1111 and ComfyUI (kohya's keys), peft.

Every format is a file of this folder that turns one identity's layers into named bytes; nothing is rounded,
approximated or left out. Scales are 1: alpha, where a format has it, is the rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from e4t_core.adapters.export import diffusers, kohya, peft
from e4t_core.adapters.export._layers import Layers
from e4t_core.adapters.low_rank import LowRank
from e4t_core.errors import UsageError, nearest
from e4t_core.record import Record
from e4t_core.storage import Store

FORMATS: dict[str, Callable[[Layers, Record], dict[str, bytes]]] = {
    "diffusers": diffusers.files,
    "kohya": kohya.files,
    "peft": peft.files,
}
"""Format -> what it writes: the end of the object's name -> its bytes."""


def export_low_rank(layers: Mapping[str, LowRank], fmt: str, store: Store, name: str, record: Record) -> dict[str, int]:
    """Write one identity's layers; returns the size in bytes of every object written, by key.

    ============= ===================================================================== ===========================
    ``diffusers`` ``NAME/pytorch_lora_weights.safetensors``                             ``load_lora_weights``
    ``kohya``     ``NAME.safetensors``                                                  A1111, ComfyUI, sd-scripts
    ``peft``      ``NAME/{unet,text_encoder}/adapter_{config.json,model.safetensors}``  ``PeftModel.from_pretrained``
    ============= ===================================================================== ===========================

    Args:
        layers: stable layer name (``unet....to_q``, ``text_encoder.text_model....q_proj``) -> its dW, with K = 1 and
            the same rank in every layer.
        fmt: a name in :data:`FORMATS`.
        store: where to.
        name: begins the keys.
        record: what made the weights; goes into the metadata of every safetensors file.

    Raises:
        UsageError: no such format.
        ValueError: several identities, ranks that differ, or a layer of another network.
    """
    if fmt not in FORMATS:
        raise UsageError(f"no LoRA file format is called '{fmt}'{nearest(fmt, FORMATS)}")
    written = {f"{name}{end}": data for end, data in FORMATS[fmt](Layers.of(layers), record).items()}
    for key, data in written.items():
        store.put(key, data)
    return {key: len(data) for key, data in written.items()}
