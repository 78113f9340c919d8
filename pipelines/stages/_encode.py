"""What the stages that run a frozen model share: one batch of images in, checked float16 arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from e4t_core.images import decode_image
from e4t_core.schema import Sample, encode_array, image_member
from pipelines.stages.base import Bad

_DECODED = "__decoded__"
_LARGEST = torch.finfo(torch.float16).max


def images(batch: Sequence[Sample], threads: int) -> Tensor:
    """(B, 3, H, W) in [-1, 1], in batch order, decoded by ``threads`` threads so that a fast model need not wait.

    Raises:
        DataError: a sample has no image that can be decoded.
    """
    decode(batch, threads)
    return torch.stack([sample[_DECODED] for sample in batch])


def decode(batch: Sequence[Sample], threads: int) -> None:
    """Put each sample's image beside its members, if it is not there: what stages do in ``prepare``.

    Raises:
        DataError: a sample has no image that can be decoded.
    """
    todo = [sample for sample in batch if _DECODED not in sample]
    with ThreadPoolExecutor(threads) as pool:
        for sample, image in zip(todo, pool.map(_image, todo), strict=True):
            sample[_DECODED] = image


def _image(sample: Sample) -> Tensor:
    return decode_image(sample[image_member(sample)], f"the image of {sample['__key__']}")


def half_arrays(stage: str, outputs: Mapping[str, Tensor], index: int) -> Mapping[str, bytes] | Bad:
    """``.npy`` members of sample ``index``: each output's row as float16.

    A value that is not finite, or that float16 cannot hold, makes the sample ``not_finite``: stored, it would
    poison every batch that draws it.
    """
    members = {}
    for name, values in outputs.items():
        row = values[index]
        if not bool(row.isfinite().all()):
            return not_finite(stage, name)
        largest = float(row.abs().max())
        if largest > _LARGEST:
            message = f"stage '{stage}': {name} reaches {largest:g}; float16 holds up to {_LARGEST:g}"
            return Bad("not_finite", message)
        members[name] = encode_array(row.half().numpy())
    return members


def not_finite(stage: str, tensor: str) -> Bad:
    """Why a sample is quarantined for which a model gives NaN or infinity."""
    advice = "run the model in float32, or look at the image"
    return Bad("not_finite", f"stage '{stage}': {tensor} has values that are not finite; {advice}")
