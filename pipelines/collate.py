"""Samples of a store as one batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from e4t_core.errors import DataError
from e4t_core.images import decode_image, decode_mask
from e4t_core.schema import Sample, decode_array, decode_json, image_member
from pipelines.sources.base import PART


def collate(samples: Sequence[Sample], columns: Sequence[str]) -> dict[str, Any]:
    """Stack samples into one batch.

    Returns:
        Lists ``keys``, ``ids``, ``identities``, ``parts`` (of a mix, else None); with ``caption``: lists ``texts``,
        ``templates``; with ``latent``: ``latent_moments`` (B, 2C, h, w); with ``clip``: ``clip_cls`` (B, L, D) and, if
        stored, ``clip_tokens`` (B, T, D); with ``identity``: ``identity_embeddings`` (B, E); with ``mask``: ``masks``
        (B, 1, H, W) in [0, 1]; with ``lidb``: ``lidb`` (B, P); with ``ingest``: ``images`` (B, 3, H, W) in [-1, 1]. All
        tensors are float32.

    Raises:
        DataError: a member is missing, unreadable, or of another size than its neighbours.
    """
    batch: dict[str, Any] = {
        "keys": [s["__key__"] for s in samples],
        "ids": [s["__id__"] for s in samples],
        "identities": [s["__identity__"] for s in samples],
        "parts": [s["__labels__"].get(PART) for s in samples],
    }
    if "caption" in columns:
        captions = [decode_json(_member(s, "caption.json"), f"caption of '{s['__id__']}'") for s in samples]
        batch["texts"] = [c["text"] for c in captions]
        batch["templates"] = [c["template"] for c in captions]
    if "latent" in columns:
        batch["latent_moments"] = _arrays(samples, "latent.npy")
    if "clip" in columns:
        batch["clip_cls"] = _arrays(samples, "clip_cls.npy")
        if all("clip_tokens.npy" in s for s in samples):
            batch["clip_tokens"] = _arrays(samples, "clip_tokens.npy")
    if "lidb" in columns:
        batch["lidb"] = _arrays(samples, "lidb.npy")
    if "identity" in columns:
        batch["identity_embeddings"] = _arrays(samples, "identity.npy")
    if "mask" in columns:
        masks = [decode_mask(_member(s, "mask.png"), f"mask of '{s['__id__']}'") for s in samples]
        batch["masks"] = _stack(samples, masks, "mask.png")
    if "ingest" in columns:
        images = [decode_image(s[image_member(s)], f"image of '{s['__id__']}'") for s in samples]
        batch["images"] = _stack(samples, images, "image")
    return batch


def _member(sample: Sample, name: str) -> bytes:
    if name not in sample:
        raise DataError(f"sample '{sample['__id__']}' has no {name}; it has {', '.join(sorted(sample))}")
    return bytes(sample[name])


def _arrays(samples: Sequence[Sample], name: str) -> torch.Tensor:
    arrays = [decode_array(_member(s, name), f"{name} of '{s['__id__']}'") for s in samples]
    return _stack(samples, [torch.from_numpy(a).float() for a in arrays], name)


def _stack(samples: Sequence[Sample], tensors: Sequence[torch.Tensor], what: str) -> torch.Tensor:
    for sample, tensor in zip(samples, tensors, strict=True):
        if tensor.shape != tensors[0].shape:
            raise DataError(
                f"{what} of '{sample['__id__']}' is {tuple(tensor.shape)}, of '{samples[0]['__id__']}' "
                f"{tuple(tensors[0].shape)}; one batch needs one size"
            )
    return torch.stack(list(tensors))
