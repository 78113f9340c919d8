"""Everything that a training run needs to go on exactly where it was."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from e4t_core.errors import CheckpointMismatch, DataError
from e4t_core.record import RECORD_KEY, Record
from e4t_core.storage import Store
from e4t_core.training.artifacts import load_tensors, save_tensors

_SHOWN = 6


@dataclass
class TrainState:
    """A training run between two steps. Tensors are on the CPU and belong to the state.

    Attributes:
        step: optimizer steps done. Noise is derived from it, so no generator state is needed.
        module: the trained module's tensors.
        optimizer: AdamW's tensors, ``PARAMETER.exp_avg`` and so on.
        ema: averaged weights, if configured.
        loader: the loader's position, opaque JSON.
    """

    step: int
    module: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    ema: dict[str, Tensor] | None = None
    loader: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, Tensor]:
        """What generation should use: the average if there is one, else the module's own tensors."""
        return {**self.module, **(self.ema or {})}


def save_state(store: Store, key: str, state: TrainState, record: Record) -> None:
    """Write ``KEY/state.safetensors``, then ``KEY/state.json``: with the latter the checkpoint is complete."""
    groups = {"module": state.module, "optimizer": state.optimizer, "ema": state.ema or {}}
    tensors = {f"{group}/{name}": t for group, named in groups.items() for name, t in named.items()}
    size = save_tensors(store, f"{key}/state.safetensors", tensors, {RECORD_KEY: record.to_json()})
    about = {"step": state.step, "loader": state.loader, "ema": state.ema is not None, "bytes": size}
    store.write_json(f"{key}/state.json", {**about, "record": json.loads(record.to_json())})


def load_state(store: Store, key: str, record: Record, ignore: Collection[str] = ()) -> tuple[TrainState, Record]:
    """Read a checkpoint that ``record``'s run may continue.

    Args:
        store: where from.
        key: the checkpoint's folder.
        record: of the run that wants to continue; its recipe must be the checkpoint's.
        ignore: dotted recipe names (sections or fields) that may differ, such as where a run happens.

    Raises:
        DataError: nothing there, incomplete, or damaged.
        CheckpointMismatch: the checkpoint is of another recipe; names what differs.
    """
    where = store.url(key)
    try:
        about = store.read_json(f"{key}/state.json")
    except FileNotFoundError as error:
        raise DataError(f"{where} holds no complete checkpoint (state.json is missing)") from error
    found = Record.from_json(json.dumps(about["record"]), where)
    _check_recipe(found.recipe, record.recipe, ignore, where)
    tensors, _ = load_tensors(store, f"{key}/state.safetensors")
    groups: dict[str, dict[str, Tensor]] = {"module": {}, "optimizer": {}, "ema": {}}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = tensor
    ema = groups["ema"] if about["ema"] else None
    return TrainState(about["step"], groups["module"], groups["optimizer"], ema, about["loader"]), found


def _check_recipe(there: Mapping[str, Any], here: Mapping[str, Any], ignore: Collection[str], where: str) -> None:
    theirs, ours = _flat(there), _flat(here)
    lines = [
        f"{name} is {theirs.get(name, 'not set')!r} there and {ours.get(name, 'not set')!r} here"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name) and not any(name == i or name.startswith(f"{i}.") for i in ignore)
    ]
    if lines:
        more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise CheckpointMismatch(
            f"the checkpoint {where} is of another recipe: {'; '.join(lines[:_SHOWN])}{more}. "
            "Use its recipe to go on, or another --out to start anew"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: list(value) if isinstance(value, tuple) else value}
    parts = [_flat(item, f"{prefix}.{name}" if prefix else name) for name, item in value.items()]
    return {name: item for part in parts for name, item in part.items()}
