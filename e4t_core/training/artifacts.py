"""Trained modules and adapters as safetensors files that carry their record, and the checks when they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from e4t_core.errors import CheckpointMismatch, DataError
from e4t_core.methods.base import Adapter
from e4t_core.record import RECORD_KEY, Record
from e4t_core.storage import Store

_SIGNATURE, _ADAPTER = "e4t_signature", "e4t_adapter"
_SHOWN = 4
"""Differing names that an error message lists before it only counts them."""


def save_tensors(store: Store, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """Write ``key`` whole; returns its size in bytes."""
    data = save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, metadata=dict(metadata))
    store.put(key, data)
    return len(data)


def load_tensors(store: Store, key: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of ``key``.

    Raises:
        DataError: nothing is there, or it is not a whole safetensors file.
    """
    try:
        with store.as_local(key) as path, safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError as error:
        raise DataError(f"there is no {store.url(key)}") from error
    except SafetensorError as error:
        raise DataError(f"{store.url(key)} is not a whole safetensors file: {error}") from error


def save_module(
    store: Store, key: str, module: nn.Module, record: Record, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write a trained module with its record and, if it has one, its ``signature`` (see :func:`load_module`).

    Args:
        store: where to.
        key: object name, ``....safetensors``.
        module: what a method's ``build`` gave.
        record: what made it.
        weights: other values for its tensors (an average over training); None takes its own.
    """
    metadata = {RECORD_KEY: record.to_json(), _SIGNATURE: json.dumps(_signature(module))}
    save_tensors(store, key, {**module.state_dict(), **(weights or {})}, metadata)


def load_module(store: Store, key: str, module: nn.Module) -> Record:
    """Fill ``module`` with the weights at ``key``.

    Raises:
        DataError: nothing there, or damaged.
        CheckpointMismatch: the weights belong to another method, setting, backbone or size; says which.
    """
    tensors, metadata = load_tensors(store, key)
    where = store.url(key)
    there: dict[str, Any] = json.loads(metadata.get(_SIGNATURE, "{}"))
    here = _signature(module)
    different = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if different:
        lines = [f"{n} is {there.get(n, 'not set')} there and {here.get(n, 'not set')} here" for n in different]
        raise CheckpointMismatch(f"{where} does not fit this recipe: {'; '.join(lines)}")
    fill(module, tensors, where)
    return Record.from_json(metadata.get(RECORD_KEY, ""), where)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy ``tensors`` into ``module`` after checking that names and shapes are the same.

    Raises:
        CheckpointMismatch: they are not.
    """
    mine = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    theirs = {name: tuple(t.shape) for name, t in tensors.items()}
    problems = [
        *(f"{n} is missing there" for n in mine if n not in theirs),
        *(f"{n} is unknown here" for n in theirs if n not in mine),
        *(f"{n} is {theirs[n]} there and {mine[n]} here" for n in mine if n in theirs and mine[n] != theirs[n]),
    ]
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointMismatch(f"{where} does not fit this recipe: {'; '.join(problems[:_SHOWN])}{more}")
    module.load_state_dict(dict(tensors), strict=True)


def _signature(module: nn.Module) -> dict[str, Any]:
    """A module may say what its weights depend on beyond their shapes: ``module.signature``, flat JSON values."""
    found = getattr(module, "signature", {})
    if not isinstance(found, dict):
        raise TypeError(f"{type(module).__name__}.signature is a {type(found).__name__}; it must be a dict")
    return found


def save_adapter(store: Store, name: str, adapter: Adapter, record: Record) -> Record:
    """Write ``NAME.safetensors``, which is complete in itself, and its record beside it as ``NAME.json``."""
    full = replace(record, facts={**record.facts, **adapter.meta, "identity": adapter.identity})
    about = {"method": adapter.method, "identity": adapter.identity, "meta": adapter.meta}
    metadata = {RECORD_KEY: full.to_json(), _ADAPTER: json.dumps(about)}
    save_tensors(store, f"{name}.safetensors", adapter.tensors, metadata)
    store.put(f"{name}.json", (full.to_json() + "\n").encode())
    return full


def load_adapter(store: Store, name: str) -> tuple[Adapter, Record]:
    """Read what :func:`save_adapter` wrote.

    Raises:
        DataError: nothing there, damaged, or no adapter.
    """
    key = f"{name}.safetensors"
    tensors, metadata = load_tensors(store, key)
    if _ADAPTER not in metadata:
        raise DataError(f"{store.url(key)} holds no adapter of this program (its metadata has {sorted(metadata)})")
    about = json.loads(metadata[_ADAPTER])
    return Adapter(tensors=tensors, **about), Record.from_json(metadata[RECORD_KEY], store.url(key))


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that later steps do not touch."""
    return {n: torch.empty_like(t, device="cpu").copy_(t.detach()) for n, t in tensors.items()}
