"""Personalize many identities from their images, in committed units over a pool of actors."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from e4t_core.errors import TooManyBad, UserError
from e4t_core.methods.base import Adapter, Identity
from e4t_core.record import Record, fingerprint
from e4t_core.storage import Store
from jobs._adapter_set import FACTS, pack
from jobs._job import Job
from jobs._lineage import lineage, public
from jobs._models import Loaded, absolute, clip_dims, load_models, open_shards, peak_memory, reset_peak_memory
from jobs._people import Chosen, choose, identity_seed, listed, load_identities, select
from jobs._pool import announce_resources, spread
from jobs._preprocess import ensure_shards
from jobs._recipe import Recipe
from jobs._run_folder import RunFolder
from jobs._sections import PersonalizeConfig
from jobs._units import Unit, commit, committed, newest_tries, parquet, publish
from pipelines.loader import ShardDataset
from pipelines.shards.keys import sample_key

HELP = "personalize many identities, from one image each or from all; does only what is missing"
_VERSION = 1
"""Raised when the output of the same inputs changes."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument(
        "--shards", metavar="URI", help="shards with the identities; else they are made from the source"
    )
    parser.add_argument("--checkpoint", metavar="URI", help="the --out of pretrain")
    parser.add_argument("--retry-failed", action="store_true", help="try units with failed identities once more")


def run(job: Job) -> dict[str, Any]:
    """Personalize the identities that the recipe selects."""
    if job.dry_run:
        return _plan(job)
    checkpoint = _checkpoint(job)
    store = Store(absolute(job.out))
    with contextlib.ExitStack() as stack:
        uri = job.args.shards
        if not uri:
            uri = store.url("shards")
            stack.enter_context(job.ray())
            ensure_shards(job, Store(uri))
        task, units = _task(job, store, uri, checkpoint)
        done = committed(store, units)
        if left := [unit for unit in units if unit.number not in done]:
            stack.enter_context(job.ray())
            _work(job, task, left, sum(len(unit.items) for unit in units))
        else:
            job.say(f"personalize: nothing to do, {len(units)} units are committed in {store.uri}")
    return _finish(job, task, store, units)


def _checkpoint(job: Job) -> str | None:
    if not job.recipe.build_method().pretrains:
        return None
    how = f"make one with `python -m jobs pretrain --recipe {job.args.recipe} --shards URI --out URI`"
    return absolute(job.required("checkpoint", how))


# --- what to do


@dataclass(frozen=True)
class Task:
    """What an actor is given: values and URIs.

    Attributes:
        checkpoint: of the pre-trained module; None for methods without.
        inputs: where everything came from, for records.
    """

    recipe: Recipe
    shards: str
    version: int
    checkpoint: str | None
    out: str
    inputs: Mapping[str, str]


def _task(job: Job, store: Store, uri: str, checkpoint: str | None) -> tuple[Task, list[Unit]]:
    recipe = job.recipe
    dataset = open_shards(recipe, uri, ("ingest", "clip"))
    chosen = choose(dataset, recipe.personalize, recipe.seed)
    inputs = {"shards": f"{dataset.store.uri}#{dataset.version}", "method": recipe.method.name}
    if checkpoint:
        trained = RunFolder(Store(checkpoint)).trained()
        inputs |= {"checkpoint": checkpoint, "checkpoint_sha256": trained.facts["sha256"]}
    task = Task(recipe, dataset.store.uri, dataset.version, checkpoint, store.uri, inputs)
    size = recipe.personalize.identities_per_shard
    parts = [chosen[at : at + size] for at in range(0, len(chosen), size)]
    tries = [partial(_unit, task, number, part) for number, part in enumerate(parts)]
    return task, newest_tries(store, tries, lambda commit: job.args.retry_failed and bool(_failed(commit["rows"])))


def _failed(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Identity -> why it failed."""
    return {row["identity"]: row["message"] for row in rows if row["status"] != "ok"}


def _unit(task: Task, number: int, part: Sequence[Chosen], retry: int) -> Unit:
    recipe = task.recipe
    made_from = {
        "version": _VERSION,
        "seed": recipe.seed,
        "method": recipe.method.dump(),
        "backbone": recipe.backbone.dump(),
        "clip": recipe.clip.dump(),
        "checkpoint": task.inputs.get("checkpoint_sha256", ""),
        "identities": [one.content for one in part],
        "retry": retry,
    }
    return Unit("adapters", number, fingerprint(made_from), tuple(part))


def _plan(job: Job) -> dict[str, Any]:
    """How many identities, from the listing or the manifest alone."""
    recipe, config = job.recipe, job.recipe.personalize
    if job.args.shards:
        where = absolute(job.args.shards)
        groups: Mapping[str, Sequence[Any]] = ShardDataset.open(where).identities()
    else:
        where = f"source '{recipe.source.name}'"
        groups = listed(recipe.build_source(), recipe.source.limit)
    chosen = select(groups, config, where)
    units = -(-len(chosen) // config.identities_per_shard)
    job.say(f"personalize: {len(chosen)} of {len(groups)} identities of {where}, in {units} units, {_how_many(config)}")
    return {
        "dry_run": True,
        "identities": len(chosen),
        "images": sum(len(group) for group in chosen.values()),
        "units": units,
        "method": recipe.method.name,
    }


def _how_many(config: PersonalizeConfig) -> str:
    held = f", {config.held_out} held out" if config.held_out else ""
    return ("one image each" if config.images == 1 else f"{config.images} images each") + held


# --- doing it


def _work(job: Job, task: Task, left: Sequence[Unit], people: int) -> None:
    config = task.recipe.personalize
    here = people - sum(len(unit.items) for unit in left)
    announce_resources(job, 1, config.cpus, config.gpus)
    job.say(f"personalize: {people} identities of {task.shards} -> {task.out} ({here} are there)")
    with job.progress(people, "personalize", "identity") as bar:
        bar.n = bar.initial = here
        failed = 0
        for unit, bad in spread(Personalizer, (task,), left, config):
            failed += bad
            bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
            bar.update(len(unit.items))


class Personalizer:
    """An actor: models are loaded with its first unit and stay; the method restores them in place."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @cached_property
    def dataset(self) -> ShardDataset:
        """The shards, opened once."""
        return ShardDataset.open(self.task.shards, self.task.version)

    @cached_property
    def loaded(self) -> Loaded:
        """The models, loaded once."""
        recipe = self.task.recipe
        return load_models(recipe, recipe.personalize, clip_dims(self.dataset), self.task.checkpoint)

    def run(self, unit: Unit) -> int:
        """Personalize and commit a unit; returns how many of it failed."""
        recipe, store = self.task.recipe, Store(self.task.out)
        device = self.loaded.backbone.device
        reset_peak_memory(device)
        adapters, failures = self._tune(load_identities(self.dataset, unit.items, recipe.seed))
        peak = peak_memory(device)
        record = Record("adapters", public(recipe.dump()), recipe.hash, self.task.inputs, {"unit": unit.number})
        data, sizes = pack(adapters, record)
        rows = [self._row(unit, one, adapters.get(one.identity), failures, sizes, peak) for one in unit.items]
        commit(store, unit, {"safetensors": data, "parquet": parquet(rows, FACTS)}, {"rows": rows})
        return len(failures)

    def _tune(self, identities: list[Identity]) -> tuple[dict[str, Adapter], dict[str, str]]:
        """Adapters of those that succeed, messages of those that do not. A batch that fails is cut in halves until
        the one that spoils it stands alone: seeds are the identity's own, so company changes nothing."""
        models = self.loaded
        try:
            adapters = models.method.personalize(models.module, models.backbone, identities)
        except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError) as error:
            raise UserError(
                f"personalizing {[one.id for one in identities]}: {error}; lower the method's batch"
            ) from error
        except Exception as error:  # noqa: BLE001 -- becomes the identity's row; the others go on
            if len(identities) == 1:
                return {}, {identities[0].id: f"{type(error).__name__}: {error}"}
            middle = len(identities) // 2
            first, second = self._tune(identities[:middle]), self._tune(identities[middle:])
            return first[0] | second[0], first[1] | second[1]
        failures = {adapter.identity: str(adapter.meta["failed"]) for adapter in adapters if "failed" in adapter.meta}
        return {adapter.identity: adapter for adapter in adapters if adapter.identity not in failures}, failures

    def _row(
        self,
        unit: Unit,
        one: Chosen,
        adapter: Adapter | None,
        failures: Mapping[str, str],
        sizes: Mapping[str, Mapping[str, int]],
        peak: int,
    ) -> dict[str, Any]:
        meta = adapter.meta if adapter else {}
        losses = meta.get("losses") or [None]
        return {
            "identity": one.identity,
            "key": sample_key(one.identity),
            "unit": unit.number,
            "status": "ok" if adapter else "failed",
            "message": failures.get(one.identity, ""),
            "input_key": one.keys[0],
            "input_keys": list(one.keys),
            "seed": identity_seed(self.task.recipe.seed, one.identity),
            "steps": meta.get("steps", 0),
            "seconds": meta.get("seconds", 0.0),
            "seconds_setup": self.loaded.seconds,
            "loss": losses[-1],
            "peak_memory_bytes": peak,
            "bytes": sizes.get(one.identity, {}).get("bytes", 0),
            "crc32": sizes.get(one.identity, {}).get("crc32", 0),
            "meta_json": json.dumps(meta),
        }


# --- the version


def _finish(job: Job, task: Task, store: Store, units: Sequence[Unit]) -> dict[str, Any]:
    commits = committed(store, units)
    rows = [row for number in sorted(commits) for row in commits[number]["rows"]]
    failed = _failed(rows)
    about = {
        "kind": "adapters",
        "method": task.recipe.method.name,
        "identities": len(rows) - len(failed),
        "failed": failed,
        "recipe": public(task.recipe.dump()),
        "recipe_hash": task.recipe.hash,
        "inputs": dict(task.inputs),
        **lineage("personalize", job.args),
    }
    manifest = publish(store, commits, rows, FACTS, about)
    tuned = [row for row in rows if row["status"] == "ok"]
    summary = {
        "out": store.uri,
        "version": manifest["version"],
        "method": task.recipe.method.name,
        "shards": task.inputs["shards"],
        "identities": len(tuned),
        "failed": len(failed),
        "units": len(units),
        "steps": max((row["steps"] for row in tuned), default=0),
        "seconds_per_identity": _mean([row["seconds"] for row in tuned]),
        "bytes": sum(row["bytes"] for row in tuned),
        "peak_memory_bytes": max((row["peak_memory_bytes"] for row in tuned), default=0),
    }
    job.say(
        f"personalize: version {manifest['version']}: {len(tuned)} identities, {len(failed)} failed, "
        f"{summary['seconds_per_identity']:.1f} s and {summary['bytes'] / max(len(tuned), 1) / 1e6:.2f} MB each"
    )
    _judge(failed, len(rows), task, summary)
    return summary


def _judge(failed: Mapping[str, str], total: int, task: Task, summary: Mapping[str, Any]) -> None:
    allowed = task.recipe.personalize.allowed_failed_share
    if len(failed) <= allowed * total:
        return
    kinds = Counter(failed.values()).most_common(1)[0]
    name = next(identity for identity, message in failed.items() if message == kinds[0])
    raise TooManyBad(
        f"{len(failed)} of {total} identities failed, more than personalize.allowed_failed_share = {allowed:g}; "
        f"'{name}'{f' and {kinds[1] - 1} more' if kinds[1] > 1 else ''}: {kinds[0]}. The others are committed in "
        f"version {summary['version']} of {task.out}; --retry-failed tries them once more",
        **summary,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
