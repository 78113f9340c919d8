"""One identity's LiDB weights as a small file: a flat tensor, and in the metadata what its numbers mean.

A safetensors file with the tensor ``lidb``, float32 (P,), in the order of ``Space.flat``. Its metadata:

==================  ==================================================================================================
``e4t_lidb``        format version
``a, b, seed``      as in :class:`~e4t_core.adapters.lidb.LiDBConfig`
``bases``           checksum of the frozen bases
``layers``          names with (M, N), in order; see :func:`pack_layers`
``e4t_record``      recipe and inputs
==================  ==================================================================================================

The 28,800 numbers of Stable Diffusion 1.5 are 115,200 bytes; the rest is to stay under 15,000, so names are not
repeated in full 192 times.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from e4t_core.adapters.lidb import Space
from e4t_core.errors import CheckpointMismatch, DataError
from e4t_core.record import RECORD_KEY, Record
from e4t_core.storage import Store

FORMAT = 1
_TENSOR, _VERSION = "lidb", "e4t_lidb"
_SHOWN = 3
"""Differing layers that an error message lists before it only counts them."""


def save_lidb(store: Store, key: str, weights_P: Tensor, space: Space, record: Record) -> int:
    """Write one identity; returns the file's size in bytes.

    Args:
        store: where to.
        key: object name, ``....safetensors``.
        weights_P: (P,) the trained numbers, on any device; stored as float32.
        space: whose numbers they are.
        record: what made them.

    Raises:
        ValueError: not ``space.numbers`` numbers, or some are not finite.
    """
    if weights_P.shape != (space.numbers,):
        raise ValueError(f"these LiDB weights are {tuple(weights_P.shape)}; the space has ({space.numbers},)")
    if not bool(weights_P.isfinite().all()):
        raise ValueError(f"these LiDB weights hold {int((~weights_P.isfinite()).sum())} numbers that are not finite")
    metadata = {
        _VERSION: str(FORMAT),
        "a": str(space.config.a),
        "b": str(space.config.b),
        "seed": str(space.config.seed),
        "bases": repr(space.checksum),
        "layers": pack_layers(space.shapes),
        RECORD_KEY: record.to_json(),
    }
    data = save({_TENSOR: weights_P.detach().to("cpu", torch.float32).contiguous()}, metadata=metadata)
    store.put(key, data)
    return len(data)


def load_lidb(store: Store, key: str, space: Space) -> tuple[Tensor, Record]:
    """What :func:`save_lidb` wrote: float32 (P,) on the CPU, and its record.

    Args:
        store, key: where it is.
        space: that it must belong to.

    Raises:
        DataError: nothing is there, damaged, no LiDB weights, or a newer format.
        CheckpointMismatch: other layers, sizes or bases than ``space``; says which.
    """
    where = store.url(key)
    try:
        with store.as_local(key) as path, safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            _check_format(metadata, where)
            weights_P = file.get_tensor(_TENSOR)
    except FileNotFoundError as error:
        raise DataError(f"there is no {where}") from error
    except SafetensorError as error:
        raise DataError(f"{where} is not a whole safetensors file of LiDB weights: {error}") from error
    _check_layers(unpack_layers(metadata["layers"]), space, where)
    _check_sizes(metadata, space, where)
    space.check(float(metadata["bases"]), where)
    if weights_P.shape != (space.numbers,) or weights_P.dtype != torch.float32:
        raise DataError(
            f"{where} is damaged: it holds {tuple(weights_P.shape)} {weights_P.dtype}, and its layers need "
            f"({space.numbers},) torch.float32"
        )
    return weights_P, Record.from_json(metadata[RECORD_KEY], where)


def _check_format(metadata: Mapping[str, str], where: str) -> None:
    found = metadata.get(_VERSION)
    if found is None:
        raise DataError(f"{where} holds no LiDB weights (its metadata has {sorted(metadata)})")
    if int(found) > FORMAT:
        raise DataError(f"{where} has LiDB format {found}; this e4t reads up to {FORMAT}: upgrade e4t")


def _check_layers(there: Mapping[str, tuple[int, int]], space: Space, where: str) -> None:
    here = {name: tuple(shape) for name, shape in space.shapes.items()}
    lines = [
        f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
    if not lines and list(there) != list(here):
        lines = ["the same layers come in another order"]
    if lines:
        more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise CheckpointMismatch(f"{where} is of another backbone: {'; '.join(lines[:_SHOWN])}{more}")


def _check_sizes(metadata: Mapping[str, str], space: Space, where: str) -> None:
    here = {"a": space.config.a, "b": space.config.b}
    lines = [f"{name} is {metadata[name]} there and {size} here" for name, size in here.items()]
    if any(int(metadata[name]) != size for name, size in here.items()):
        raise CheckpointMismatch(f"{where} has LiDB weights of other sizes: {'; '.join(lines)}")


def pack_layers(shapes: Mapping[str, tuple[int, int]]) -> str:
    """Names and shapes as one short string.

    ``n name MxN`` a layer, joined by ``;``: n is how many of its dotted pieces are those of the layer before, and name
    is the rest: ``0 unet.mid.attn1.to_q 320x320;3 to_k 320x768``.
    """
    entries, before = [], list[str]()
    for name, (outputs, inputs) in shapes.items():
        pieces = name.split(".")
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(before, pieces[:-1], strict=False))))
        entries.append(f"{same} {'.'.join(pieces[same:])} {outputs}x{inputs}")
        before = pieces
    return ";".join(entries)


def unpack_layers(text: str) -> dict[str, tuple[int, int]]:
    """The inverse of :func:`pack_layers`."""
    shapes: dict[str, tuple[int, int]] = {}
    before: list[str] = []
    for entry in text.split(";"):
        same, rest, size = entry.split(" ")
        outputs, inputs = size.split("x")
        before = [*before[: int(same)], *rest.split(".")]
        shapes[".".join(before)] = (int(outputs), int(inputs))
    return shapes
