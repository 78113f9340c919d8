"""A word's embedding as diffusers' ``pipeline.load_textual_inversion(FILE)`` reads it."""

from __future__ import annotations

from torch import Tensor

from e4t_core.adapters.export._layers import safetensors_file
from e4t_core.record import Record
from e4t_core.storage import Store


def save_embedding(store: Store, key: str, word: str, embedding_D: Tensor, record: Record) -> int:
    """Write one embedding; returns the file's size in bytes.

    Args:
        store: where to.
        key: object name, ``....safetensors``.
        word: what it is called in prompts; the tensor's name.
        embedding_D: (D,) input embedding of the text encoder, stored as float32.
        record: what made it; goes into the metadata.
    """
    data = safetensors_file({word: embedding_D.float()[None]}, record)
    store.put(key, data)
    return len(data)
