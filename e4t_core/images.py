"""Encoded image bytes <-> tensors: the one place where pixels get their range.

Images are RGB in [-1, 1], masks are one channel in [0, 1]; both channel-first, as every model here takes them.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from e4t_core.errors import DataError


def decode_image(data: bytes, what: str = "the image") -> Tensor:
    """(3, H, W) float32 in [-1, 1] from the bytes of an RGB image as ``ingest`` writes it.

    Raises:
        DataError: the bytes are no image; ``what`` names them in the message.
    """
    pixels_HW3 = _decode(data, "RGB", what)
    return pixels_HW3.permute(2, 0, 1).contiguous().float().div_(127.5).sub_(1.0)


def decode_mask(data: bytes, what: str = "the mask") -> Tensor:
    """(1, H, W) float32 in [0, 1] from the bytes of an 8-bit mask.

    Raises:
        DataError: the bytes are no image.
    """
    return _decode(data, "L", what)[None].float().div_(255.0)


def encode_png(image_3HW: Tensor) -> bytes:
    """PNG bytes of an image in [-1, 1] (values outside are clamped); exact inverse of :func:`decode_image`.

    Raises:
        ValueError: not three channels.
    """
    if image_3HW.ndim != 3 or image_3HW.shape[0] != 3:
        raise ValueError(f"an image tensor is (3, H, W), not {tuple(image_3HW.shape)}")
    pixels_3HW = image_3HW.detach().float().cpu().clamp(-1, 1).add(1.0).mul(127.5).round().to(torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels_3HW.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _decode(data: bytes, mode: str, what: str) -> Tensor:
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.array(image if image.mode == mode else image.convert(mode))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{what} cannot be decoded ({error}); it should be PNG, JPEG or WebP bytes") from error
    return torch.from_numpy(pixels)
