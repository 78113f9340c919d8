"""The folder of one pre-training run.

==========================================  ==================================================================
``run.json``                                what it is a run of; created exclusively by its first start
``checkpoints/step-000100/``                everything to go on; counts once ``state.json``, written last, is there
``module.safetensors``, ``metrics.jsonl``   the trained module and its loss curve
``record.json``                             what made it; written last: with it the run is finished
==========================================  ==================================================================
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from e4t_core.errors import DataError, UsageError
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training import TrainState, load_state, save_module, save_state

MODULE, RECORD, METRICS, RUN = "module.safetensors", "record.json", "metrics.jsonl", "run.json"
DECISIVE = ("seed", "backbone", "clip", "method", "train")
"""Recipe sections that decide what pre-training computes, given the shards."""
_LATER = "personalize"
"""The field of a method's section that acts after pre-training."""
_KEPT = 2
"""Checkpoints that stay: the newest, and one more in case its storage fails."""
_SHOWN = 6


@dataclass(frozen=True)
class Data:
    """The shards of a run: where, which version, and a hash of everything that training reads of it."""

    uri: str
    version: int
    fingerprint: str


def decisive(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a dumped recipe that two starts of one run must share."""
    parts = {name: recipe[name] for name in DECISIVE}
    return {**parts, "method": {k: v for k, v in recipe["method"].items() if k != _LATER}}


class RunFolder:
    """Reading and writing a run's folder."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def pinned(self) -> Data | None:
        """The shards that the run was begun with, or None if it was not."""
        try:
            return Data(**self.store.read_json(RUN)["shards"])
        except FileNotFoundError:
            return None

    def begin(self, recipe: Mapping[str, Any], data: Data, lineage: Mapping[str, Any]) -> str:
        """Make it this recipe's run, or make sure that it is; returns the run's id.

        Raises:
            UsageError: it is a run of another recipe or of other shards; names what differs.
        """
        about = {"id": uuid.uuid4().hex[:16], "recipe": recipe, "shards": asdict(data), **lineage}
        self.store.create(RUN, (json.dumps(about, indent=1, sort_keys=True) + "\n").encode())
        self.check(recipe, data)
        return str(self.store.read_json(RUN)["id"])

    def check(self, recipe: Mapping[str, Any], data: Data) -> None:
        """Make sure that it is this recipe's run, if it was begun.

        Raises:
            UsageError: see :meth:`begin`.
        """
        if self.pinned() is None:
            return
        there = self.store.read_json(RUN)
        lines = differences(decisive(there["recipe"]), decisive(recipe))
        if there["shards"]["fingerprint"] != data.fingerprint:
            old = there["shards"]
            lines.append(
                f"shards are version {old['version']} of {old['uri']} ({old['fingerprint']}) there and version "
                f"{data.version} of {data.uri} ({data.fingerprint}) here"
            )
        if lines:
            more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
            raise UsageError(
                f"{self.store.uri} is a run of another recipe: {'; '.join(lines[:_SHOWN])}{more}. Use its recipe to go "
                "on with it, or another --out to start anew"
            )

    # --- checkpoints

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        keys = [entry.key.split("/") for entry in self.store.list("checkpoints")]
        return sorted(int(k[1].removeprefix("step-")) for k in keys if k[-1] == "state.json")

    def save(self, state: TrainState, record: Record, curve: Sequence[Mapping[str, Any]]) -> None:
        """Write a checkpoint with the loss curve so far, then drop those that are no longer needed."""
        key = _checkpoint(state.step)
        self.store.put(f"{key}/{METRICS}", _lines(curve))
        save_state(self.store, key, state, record)
        for step in self.steps()[:-_KEPT]:
            old = _checkpoint(step)
            self.store.delete(f"{old}/state.json")  # first, so that what is left never looks complete
            for entry in list(self.store.list(old)):
                self.store.delete(entry.key)

    def load(self, step: int, record: Record) -> tuple[TrainState, list[dict[str, Any]]]:
        """A checkpoint and its loss curve.

        Raises:
            CheckpointMismatch: it is of another recipe.
            DataError: it is damaged.
        """
        key = _checkpoint(step)
        elsewhere = {name for name in record.recipe if name not in DECISIVE} | {f"method.{_LATER}"}
        state, _ = load_state(self.store, key, record, ignore=elsewhere)
        return state, self._curve(f"{key}/{METRICS}")

    # --- the finished run

    def finish(self, module: nn.Module, state: TrainState, record: Record, curve: Sequence[Mapping[str, Any]]) -> None:
        """Write the trained module, the curve and, last, the record with the module's SHA-256 among its facts."""
        save_module(self.store, MODULE, module, record, state.weights)
        self.store.put(METRICS, _lines(curve))
        facts = {**record.facts, "sha256": self.sha256(MODULE)}
        self.store.write_json(RECORD, {**asdict(record), "facts": facts})

    def record(self) -> Record | None:
        """The finished run's record, or None."""
        try:
            return Record.from_json(self.store.read(RECORD).decode(), self.store.url(RECORD))
        except FileNotFoundError:
            return None

    def trained(self) -> Record:
        """The finished run's record.

        Raises:
            DataError: there is no finished run.
        """
        record = self.record()
        if record is None:
            steps = self.steps()
            how_far = f"stands at step {steps[-1]}; run pretrain again to finish it" if steps else "has no checkpoint"
            raise DataError(f"{self.store.uri} holds no finished pre-training (it {how_far}); see `pretrain --help`")
        return record

    def curve(self) -> list[dict[str, Any]]:
        """The finished run's loss curve, or that of its newest checkpoint."""
        steps = self.steps()
        return self._curve(
            METRICS if self.store.exists(METRICS) or not steps else f"{_checkpoint(steps[-1])}/{METRICS}"
        )

    def _curve(self, key: str) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in self.store.read(key).splitlines()]
        except FileNotFoundError:
            return []

    def sha256(self, key: str) -> str:
        """Of one of the run's files."""
        with self.store.open(key) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def init_inputs(init_from: str | None) -> dict[str, str]:
    """Record inputs of a run that begins from another's module.

    Raises:
        DataError: there is no finished run.
    """
    if init_from is None:
        return {}
    return {"init_sha256": str(RunFolder(Store(init_from)).trained().facts["sha256"])}


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``name is A there and B here`` for every leaf that differs."""
    lines: list[str] = []
    for key in sorted({*there, *here}):
        name, old, new = f"{prefix}{key}", there.get(key, "not set"), here.get(key, "not set")
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{name}.")
        elif old != new:
            lines.append(f"{name} is {old!r} there and {new!r} here")
    return lines


def _checkpoint(step: int) -> str:
    return f"checkpoints/step-{step:06d}"


def _lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, sort_keys=True).encode() + b"\n" for row in rows)
