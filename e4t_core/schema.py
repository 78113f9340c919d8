"""The shard schema: which tar members each column (= stage) holds, and how their bytes are read and written.

A sample is a mapping ``member -> bytes`` plus its key. Members are named so that any WebDataset reader decodes
them by extension, and so that no two columns share a name: columns can be packed into one wide tar as they are.

================  ==========================  ======================================================
column            member                      content
================  ==========================  ======================================================
``ingest``        ``image.png|jpg|webp``      oriented, cropped, resized RGB image
``ingest``        ``source_mask.png``         the source's own mask, cropped alike (only if it has one)
``ingest``        ``meta.json``               :class:`SampleMeta`
``mask``          ``mask.png``                8-bit foreground mask at image size
``mask``          ``mask_soft.png``           8-bit probabilities behind it (only of a segmenter)
``caption``       ``caption.json``            ``{"text", "template"}``; template has one ``{}`` for the concept; further
                                              modes add ``"attributes"`` (list), ``"template_drawn": true``
``clip``          ``clip_cls.npy``            (L, D) float16, [CLS] of each configured layer, of the image or, if the
                                              stage is told so, of the image with its background black
``clip``          ``clip_tokens.npy``         (T, D) float16, last layer's patch tokens (optional)
``latent``        ``latent.npy``              (2C, h, w) float16, VAE moments: mean, then log variance
``identity``      ``identity.npy``            (E,) float16, face embedding of unit length
``lidb``          ``lidb.npy``                (P,) float32, LiDB weights: by layer, A_train then B_train
``lidb``          ``lidb.json``               ``{"seed", "a", "b", "checksum", "steps", "loss_before", "loss_after"}``
================  ==========================  ======================================================
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e4t_core.errors import DataError

SCHEMA_VERSION = 1

Sample = dict[str, Any]
"""``"__key__"``: str, then member name -> bytes."""


def encode_array(array: NDArray[Any]) -> bytes:
    """``.npy`` bytes (no pickles)."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def decode_array(data: bytes, what: str) -> NDArray[Any]:
    """Read ``.npy`` bytes.

    Raises:
        DataError: not an array, or one that needs pickle.
    """
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{what} is not a plain .npy array: {error}") from error


def encode_json(value: Mapping[str, Any]) -> bytes:
    """Deterministic UTF-8 JSON."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def decode_json(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: not a JSON object.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise DataError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{what} holds a JSON {type(value).__name__}, not an object")
    return value


def image_member(sample: Mapping[str, Any]) -> str:
    """The name of the sample's image member, whatever its format.

    Raises:
        DataError: the sample has none.
    """
    for name in sample:
        if name.startswith("image."):
            return name
    raise DataError(f"sample '{sample.get('__key__')}' has no image member; it has {sorted(sample)}")
