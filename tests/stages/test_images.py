"""Bytes to tensors and back: ranges, shapes, exactness."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from e4t_core.errors import DataError
from e4t_core.images import decode_image, decode_mask, encode_png


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_every_level_survives_the_round_trip() -> None:
    pixels = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3).astype(np.uint8)
    image_3HW = decode_image(png(pixels))
    assert image_3HW.shape == (3, 16, 16)
    assert image_3HW.dtype == torch.float32
    assert (image_3HW.min(), image_3HW.max()) == (-1.0, 1.0)
    back = np.array(Image.open(io.BytesIO(encode_png(image_3HW))))
    assert np.array_equal(back, pixels)


def test_channels_are_first_and_in_rgb_order() -> None:
    pixels = np.zeros((2, 4, 3), dtype=np.uint8)
    pixels[:, :, 0] = 255
    image_3HW = decode_image(png(pixels))
    assert image_3HW.shape == (3, 2, 4)
    assert (image_3HW[0] == 1).all()
    assert (image_3HW[1:] == -1).all()


def test_values_outside_the_range_are_clamped() -> None:
    image_3HW = torch.stack([torch.full((2, 2), v) for v in (-3.0, 0.0, 3.0)])
    assert decode_image(encode_png(image_3HW))[:, 0, 0].tolist() == pytest.approx([-1, 1 / 255, 1], abs=1e-6)


def test_masks_are_between_zero_and_one() -> None:
    mask_1HW = decode_mask(png(np.array([[0, 51], [204, 255]], dtype=np.uint8)))
    torch.testing.assert_close(mask_1HW, torch.tensor([[[0, 0.2], [0.8, 1.0]]]))


def test_bytes_that_are_no_image_are_named() -> None:
    with pytest.raises(DataError, match=r"person 3 cannot be decoded.*PNG, JPEG or WebP"):
        decode_image(b"hello", "person 3")


def test_a_mask_is_refused_as_an_image_tensor() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4, 4\)"):
        encode_png(torch.zeros(1, 4, 4))
