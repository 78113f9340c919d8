"""Draw the recipe's prompts for every personalized identity, in committed units over a pool of actors."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from e4t_core.errors import UsageError
from e4t_core.images import encode_png
from e4t_core.methods.base import Adapter, Identity
from e4t_core.record import fingerprint
from e4t_core.sampling import sample
from e4t_core.storage import Store
from jobs._adapter_set import AdapterSet
from jobs._board import Board
from jobs._job import Job
from jobs._lineage import lineage, public
from jobs._models import Loaded, absolute, clip_dims, load_models, open_shards
from jobs._people import Chosen, image_seed, load_identities, rows_of
from jobs._pool import announce_resources, spread
from jobs._recipe import Recipe
from jobs._run_folder import RunFolder
from jobs._sections import Prompt
from jobs._units import IMAGE_ROWS, Unit, commit, committed, publish
from pipelines.loader import ShardDataset
from pipelines.shards import tar
from pipelines.shards.keys import sample_key

HELP = "draw the recipe's prompts for every personalized identity; does only what is missing"
_VERSION = 1
"""Raised when the output of the same inputs changes."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--shards", metavar="URI", help="the shards that personalize was given")
    parser.add_argument("--checkpoint", metavar="URI", help="the checkpoint that personalize was given")
    parser.add_argument("--adapters", metavar="URI", help="the --out of personalize")


def run(job: Job) -> dict[str, Any]:
    """Draw what is missing."""
    task, units = _task(job)
    store = Store(task.out)
    left = [unit for unit in units if unit.number not in committed(store, units)]
    images, to_do = _count(task.recipe, units), _count(task.recipe, left)
    if job.dry_run:
        job.say(f"generate: {images} images in {len(units)} units, {to_do} of them to do")
        return {"dry_run": True, "images": images, "to_do": to_do, "units": len(units), "method": task.method}
    if left:
        _work(job, task, left, images, to_do)
    else:
        job.say(f"generate: nothing to do, {images} images are committed in {store.uri}")
    return _finish(job, task, store, units)


# --- what to do


@dataclass(frozen=True)
class Task:
    """What an actor is given: values and URIs.

    Attributes:
        shards, version: where the input images are.
        adapters, adapters_version: what personalize wrote.
        checkpoint: of the pre-trained module; None for methods without.
        inputs: where everything came from, for the manifest.
    """

    recipe: Recipe
    method: str
    shards: str
    version: int
    adapters: str
    adapters_version: int
    checkpoint: str | None
    out: str
    inputs: Mapping[str, str]


def _task(job: Job) -> tuple[Task, list[Unit]]:
    recipe = job.recipe
    adapters = AdapterSet.open(absolute(job.required("adapters", "make them with `python -m jobs personalize`")))
    made = adapters.manifest
    if made["method"] != recipe.method.name:
        raise UsageError(
            f"{adapters.store.uri} holds adapters of method '{made['method']}', the recipe names "
            f"'{recipe.method.name}'; --set method.name={made['method']}"
        )
    dataset = open_shards(
        recipe,
        job.required("shards", f"{made['inputs']['shards']} is what the adapters were made from"),
        ("ingest", "clip"),
    )
    checkpoint = _checkpoint(job, made["inputs"])
    inputs = {
        **made["inputs"],
        "shards": f"{dataset.store.uri}#{dataset.version}",
        "adapters": f"{adapters.store.uri}#{made['version']}",
    }
    task = Task(
        recipe, made["method"], dataset.store.uri, dataset.version, adapters.store.uri, made["version"], checkpoint,
        absolute(job.out), inputs,
    )  # fmt: skip
    return task, list(_units(task, adapters))


def _checkpoint(job: Job, made_from: Mapping[str, str]) -> str | None:
    if not job.recipe.build_method().pretrains:
        return None
    uri = absolute(job.required("checkpoint", f"{made_from['checkpoint']} is what the adapters were made with"))
    RunFolder(Store(uri)).trained()
    return uri


def _units(task: Task, adapters: AdapterSet) -> Iterator[Unit]:
    """A unit for each unit of adapters that has any."""
    recipe, generate = task.recipe, task.recipe.generate
    rows = [row for row in adapters.table.to_pylist() if row["status"] == "ok"]
    for made in adapters.manifest["units"]:
        items = tuple((row["identity"], row["input_key"]) for row in rows if row["unit"] == made["unit"])
        made_from = {
            "version": _VERSION,
            "adapters": {extension: file["sha256"] for extension, file in made["files"].items()},
            "seed": recipe.seed,
            "method": recipe.method.dump(),
            "backbone": recipe.backbone.dump(),
            "sampler": generate.sampler.dump(),
            "prompts": [prompt.dump() for prompt in generate.prompts],
            "images_per_prompt": generate.images_per_prompt,
        }
        if items:
            yield Unit("images", made["unit"], fingerprint(made_from), items)


def _count(recipe: Recipe, units: Sequence[Unit]) -> int:
    each = len(recipe.generate.prompts) * recipe.generate.images_per_prompt
    return sum(len(unit.items) for unit in units) * each


# --- doing it


def _work(job: Job, task: Task, left: Sequence[Unit], images: int, to_do: int) -> None:
    config = task.recipe.generate
    job.say(f"generate: {images} images for {task.adapters} -> {task.out} ({images - to_do} are there)")
    with job.ray(), job.progress(images, "generate", "image") as bar:
        announce_resources(job, 1, config.cpus, config.gpus)
        bar.n = bar.initial = images - to_do
        board = Board()

        def drawn(count: int) -> None:
            bar.update(min(count, images - bar.n))  # a unit that is done again counts twice

        with board.read_by(drawn):
            for _ in spread(Generator, (task, board), left, config):
                pass


class Generator:
    """An actor: models are loaded with its first unit and stay."""

    def __init__(self, task: Task, board: Board) -> None:
        self.task, self.board = task, board

    @cached_property
    def dataset(self) -> ShardDataset:
        """The shards, opened once."""
        return ShardDataset.open(self.task.shards, self.task.version)

    @cached_property
    def adapters(self) -> AdapterSet:
        """The adapters, opened once."""
        return AdapterSet.open(self.task.adapters, self.task.adapters_version)

    @cached_property
    def loaded(self) -> Loaded:
        """The models, loaded once."""
        recipe = self.task.recipe
        return load_models(recipe, recipe.generate, clip_dims(self.dataset), self.task.checkpoint)

    def run(self, unit: Unit) -> int:
        """Draw and commit a unit; returns its number of images."""
        rows = rows_of(self.dataset, [key for _, key in unit.items])
        chosen = [Chosen(identity, key, rows[key], ()) for identity, key in unit.items]
        images: dict[str, bytes] = {}
        facts: list[tuple[str, dict[str, Any]]] = []
        for identity in load_identities(self.dataset, chosen, self.task.recipe.seed):
            for key, png, row in self._draw(identity, unit):
                images[key] = png
                facts.append((key, row))
        writer = tar.Writer()
        for key in sorted(images):
            writer.add(key, {"png": images[key]})
        built = writer.finish()
        indexed = [{**row, **built.spans[key]._asdict()} for key, row in facts]
        commit(Store(self.task.out), unit, {"tar": built.data}, {"rows": indexed})
        return len(indexed)

    def _draw(self, identity: Identity, unit: Unit) -> list[tuple[str, bytes, dict[str, Any]]]:
        """All images of an identity: key in the tar, PNG, row of the index."""
        config, adapter, person = self.task.recipe.generate, self.adapters.read(identity.id), self._person(identity.id)
        wanted = [(prompt, index) for prompt in config.prompts for index in range(config.images_per_prompt)]
        out: list[tuple[str, bytes, dict[str, Any]]] = []
        norms: list[float] | None = None
        for at in range(0, len(wanted), config.batch_size):
            batch = wanted[at : at + config.batch_size]
            pngs, trace, seconds = self._sample(identity, adapter, batch)
            norms = norms or trace.get("embedding_norm")
            for (prompt, index), png in zip(batch, pngs, strict=True):
                key = f"{sample_key(identity.id)}/{prompt.name}/{index}"
                out.append((key, png, {**_row(self.task, identity.id, prompt, index, seconds), **person}))
            self.board.tell(len(batch))
        curve = json.dumps(norms) if norms else None
        return [(key, png, {**row, "unit": unit.number, "embedding_norm_json": curve}) for key, png, row in out]

    def _sample(
        self, identity: Identity, adapter: Adapter, batch: Sequence[tuple[Prompt, int]]
    ) -> tuple[list[bytes], dict[str, list[float]], float]:
        """PNGs of one batch, the conditioning's trace, and seconds per image."""
        models, began = self.loaded, time.perf_counter()
        prompts = [prompt.template.replace("{}", models.backbone.placeholder) for prompt, _ in batch]
        seeds = [image_seed(self.task.recipe.seed, identity.id, prompt.name, index) for prompt, index in batch]
        conditioning = models.method.conditioning(models.module, models.backbone, adapter, identity, prompts)
        images_B3HW = sample(models.backbone, conditioning, self.task.recipe.generate.sampler, seeds).cpu()
        seconds = (time.perf_counter() - began) / len(batch)
        return [encode_png(image) for image in images_B3HW], conditioning.trace, seconds

    def _person(self, identity: str) -> dict[str, Any]:
        """What personalizing the identity cost."""
        facts = self.adapters.facts(identity)
        return {
            "steps": facts["steps"],
            "seconds_personalize": facts["seconds"],
            "seconds_setup": facts["seconds_setup"],
            "peak_memory_bytes": facts["peak_memory_bytes"],
            "bytes_adapter": facts["bytes"],
            "near": ", ".join(json.loads(facts["meta_json"]).get("near", ())) or None,
            "input_key": facts["input_key"],
        }


def _row(task: Task, identity: str, prompt: Prompt, index: int, seconds: float) -> dict[str, Any]:
    return {
        "method": task.method,
        "identity": identity,
        "prompt": prompt.name,
        "prompt_text": prompt.template,
        "concept_less": prompt.concept_less,
        "kind": prompt.kind,
        "index": index,
        "seed": image_seed(task.recipe.seed, identity, prompt.name, index),
        "seconds_generate": seconds,
    }


# --- the version


def _finish(job: Job, task: Task, store: Store, units: Sequence[Unit]) -> dict[str, Any]:
    commits = committed(store, units)
    rows = [row for number in sorted(commits) for row in commits[number]["rows"]]
    people = {row["identity"] for row in rows}
    failed = AdapterSet.open(task.adapters, task.adapters_version).manifest["failed"]
    about = {
        "kind": "images",
        "method": task.method,
        "identities": len(people),
        "images": len(rows),
        "failed": failed,
        "recipe": public(task.recipe.dump()),
        "recipe_hash": task.recipe.hash,
        "inputs": dict(task.inputs),
        **lineage("generate", job.args),
    }
    manifest = publish(store, commits, rows, IMAGE_ROWS, about)
    seconds = sum(row["seconds_generate"] for row in rows) / max(len(rows), 1)
    job.say(
        f"generate: version {manifest['version']}: {len(rows)} images of {len(people)} identities, {seconds:.2f} s each"
    )
    return {
        "out": store.uri,
        "version": manifest["version"],
        "method": task.method,
        "identities": len(people),
        "images": len(rows),
        "failed": len(failed),
        "units": len(units),
        "seconds_per_image": seconds,
        "bytes": sum(unit["files"]["tar"]["bytes"] for unit in manifest["units"]),
    }
