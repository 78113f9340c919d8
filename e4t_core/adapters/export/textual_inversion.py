"""A word's embedding, or several in a row, as diffusers' ``pipeline.load_textual_inversion(FILE)`` reads it."""

from __future__ import annotations

from torch import Tensor

from e4t_core.adapters.export._layers import safetensors_file
from e4t_core.record import Record
from e4t_core.storage import Store


def save_embedding(store: Store, key: str, word: str, embedding: Tensor, record: Record) -> int:
    """Write one embedding; returns the file's size in bytes.

    Args:
        store: where to.
        key: object name, ``....safetensors``.
        word: what it is called in prompts; the tensor's name.
        embedding: (D,) input embedding of the text encoder, stored as float32; or (V, D), which ``word`` stands for
            together once diffusers has read them.
        record: what made it; goes into the metadata.
    """
    data = safetensors_file({word: embedding.float().reshape(-1, embedding.shape[-1])}, record)
    store.put(key, data)
    return len(data)
