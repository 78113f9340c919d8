"""What the stages that run a frozen model share: one batch of images in, checked float16 arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from e4t_core.images import decode_image
from e4t_core.schema import Sample, encode_array, image_member
from pipelines.stages.base import Bad

_LARGEST = torch.finfo(torch.float16).max


def images(batch: Sequence[Sample], threads: int) -> Tensor:
    """(B, 3, H, W) in [-1, 1], in batch order, decoded by ``threads`` threads so that a fast model need not wait.

    Raises:
        DataError: a sample has no image that can be decoded.
    """
    with ThreadPoolExecutor(threads) as pool:
        return torch.stack(list(pool.map(_image, batch)))


def _image(sample: Sample) -> Tensor:
    return decode_image(sample[image_member(sample)], f"the image of {sample['__key__']}")


def half_arrays(outputs: Mapping[str, Tensor], index: int) -> Mapping[str, bytes] | Bad:
    """``.npy`` members of sample ``index``: each output's row as float16.

    A value that is not finite, or that float16 cannot hold, makes the sample ``not_finite``: stored, it would
    poison every batch that draws it.
    """
    members = {}
    for name, values in outputs.items():
        row = values[index]
        if not bool(row.isfinite().all()):
            return Bad(
                "not_finite", f"{name} has values that are not finite; run the model in float32, or look at the image"
            )
        largest = float(row.abs().max())
        if largest > _LARGEST:
            return Bad("not_finite", f"{name} reaches {largest:g}; float16 holds up to {_LARGEST:g}")
        members[name] = encode_array(row.half().numpy())
    return members
