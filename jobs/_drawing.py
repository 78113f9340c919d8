"""Drawing personalized identities: which images there are to draw, and the worker's part that draws them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from e4t_core.errors import UsageError
from e4t_core.images import encode_png
from e4t_core.methods.base import Adapter, Conditioning, Identity
from e4t_core.record import fingerprint
from e4t_core.sampling import sample
from e4t_core.storage import Store
from jobs._adapter_set import AdapterSet, photos_of
from jobs._job import Job
from jobs._models import Loaded, absolute, clip_dims, load_models, open_shards
from jobs._people import Chosen, image_seed, load_identities, rows_of
from jobs._recipe import Recipe
from jobs._run_folder import RunFolder
from jobs._sections import Prompt
from jobs._units import Unit, commit
from pipelines.loader import ShardDataset
from pipelines.shards import tar
from pipelines.shards.keys import sample_key

VERSION = 1
"""Raised when the output of the same inputs changes."""
_WHO = ("identity", "input_key", "input_keys", "unit", "status")


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


def drawing_task(job: Job, out: str) -> tuple[Task, list[Unit]]:
    """What the job's ``--adapters``, ``--shards`` and ``--checkpoint`` ask for: a unit for each of adapters with any.

    Args:
        out: where workers write.

    Raises:
        UsageError: one is missing, or they do not belong together.
    """
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
        absolute(out), inputs,
    )  # fmt: skip
    return task, list(_units(task, adapters))


def _checkpoint(job: Job, made_from: Mapping[str, str]) -> str | None:
    if not job.recipe.build_method().pretrains:
        return None
    uri = absolute(job.required("checkpoint", f"{made_from['checkpoint']} is what the adapters were made with"))
    RunFolder(Store(uri)).trained()
    return uri


def _units(task: Task, adapters: AdapterSet) -> Iterator[Unit]:
    recipe, generate = task.recipe, task.recipe.generate
    people: dict[int, list[tuple[str, tuple[str, ...]]]] = {}
    known = [name for name in _WHO if name in adapters.table.column_names]
    for row in adapters.table.select(known).to_pylist():
        if row["status"] == "ok":
            people.setdefault(row["unit"], []).append((row["identity"], tuple(photos_of(row))))
    for made in adapters.manifest["units"]:
        made_from = {
            "version": VERSION,
            "adapters": {extension: file["sha256"] for extension, file in made["files"].items()},
            "seed": recipe.seed,
            "method": recipe.method.dump(),
            "backbone": recipe.backbone.dump(),
            "sampler": generate.sampler.dump(),
            "prompts": [prompt.dump() for prompt in generate.prompts],
            "images_per_prompt": generate.images_per_prompt,
        }
        if items := tuple(people.get(made["unit"], ())):
            yield Unit("images", made["unit"], fingerprint(made_from), items)


def count_images(recipe: Recipe, units: Sequence[Unit]) -> int:
    """Images of so many units."""
    each = len(recipe.generate.prompts) * recipe.generate.images_per_prompt
    return sum(len(unit.items) for unit in units) * each


@dataclass(frozen=True)
class Picture:
    """One drawn image.

    Attributes:
        png: its bytes.
        row: of the index, without its place in a tar.
    """

    png: bytes
    row: dict[str, Any]


@dataclass(frozen=True)
class _Wanted:
    """One image to draw."""

    identity: Identity
    prompt: Prompt
    index: int


class Painter:
    """Draws units; models are loaded with the first one and stay.

    Args:
        task: what to draw from.
        tell: told the number of images after each batch.
    """

    def __init__(self, task: Task, tell: Callable[[int], None]) -> None:
        self.task, self.tell = task, tell
        self._held: dict[str, Adapter] = {}

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

    def draw(self, unit: Unit) -> Iterator[tuple[str, list[Picture]]]:
        """Each identity of the unit with all its images, in order of prompt and index."""
        rows = rows_of(self.dataset, [key for _, keys in unit.items for key in keys])
        chosen = [Chosen(identity, keys, tuple(rows[key] for key in keys)) for identity, keys in unit.items]
        identities = load_identities(self.dataset, chosen, self.task.recipe.seed)
        each = count_images(self.task.recipe, [unit]) // len(identities)
        ready: list[Picture] = []
        for pictures in self._batches(identities):
            ready += pictures
            while len(ready) >= each:
                whose, ready = ready[:each], ready[each:]
                yield whose[0].row["identity"], _finished(whose, unit.number)

    def _batches(self, identities: Sequence[Identity]) -> Iterator[list[Picture]]:
        """All images, identity by identity, a batch at a time: of several identities where the method can."""
        config, together = self.task.recipe.generate, self.loaded.method.draws_together
        for group in [identities] if together else [[one] for one in identities]:
            wanted = [
                _Wanted(identity, prompt, index)
                for identity in group
                for prompt in config.prompts
                for index in range(config.images_per_prompt)
            ]
            for at in range(0, len(wanted), config.batch_size):
                yield self._batch(wanted[at : at + config.batch_size])

    def _batch(self, wanted: Sequence[_Wanted]) -> list[Picture]:
        models, began = self.loaded, time.perf_counter()
        conditioning = self._conditioning(wanted)
        seeds = [image_seed(self.task.recipe.seed, w.identity.id, w.prompt.name, w.index) for w in wanted]
        images_B3HW = sample(models.backbone, conditioning, self.task.recipe.generate.sampler, seeds).cpu()
        seconds = (time.perf_counter() - began) / len(wanted)
        norms = conditioning.trace.get("embedding_norm")
        curve = json.dumps(norms) if norms else None
        self.tell(len(wanted))
        return [
            Picture(encode_png(image), self._row(w, seconds) | {"embedding_norm_json": curve})
            for w, image in zip(wanted, images_B3HW, strict=True)
        ]

    def _conditioning(self, wanted: Sequence[_Wanted]) -> Conditioning:
        models = self.loaded
        prompts: dict[str, list[str]] = {}
        for one in wanted:
            text = one.prompt.template.replace("{}", models.backbone.placeholder)
            prompts.setdefault(one.identity.id, []).append(text)
        identities = list({one.identity.id: one.identity for one in wanted}.values())
        self._held = {one.id: self._held.get(one.id) or self.adapters.read(one.id) for one in identities}
        adapters = list(self._held.values())
        if len(identities) == 1:
            only = prompts[identities[0].id]
            return models.method.conditioning(models.module, models.backbone, adapters[0], identities[0], only)
        return models.method.conditioning_together(
            models.module, models.backbone, adapters, identities, [prompts[one.id] for one in identities]
        )

    def _row(self, wanted: _Wanted, seconds: float) -> dict[str, Any]:
        """What the image is, and what personalizing its identity cost."""
        identity, prompt = wanted.identity.id, wanted.prompt
        facts = self.adapters.facts(identity)
        return {
            "method": self.task.method,
            "identity": identity,
            "prompt": prompt.name,
            "prompt_text": prompt.template,
            "concept_less": prompt.concept_less,
            "kind": prompt.kind,
            "index": wanted.index,
            "seed": image_seed(self.task.recipe.seed, identity, prompt.name, wanted.index),
            "seconds_generate": seconds,
            "steps": facts["steps"],
            "seconds_personalize": facts["seconds"],
            "seconds_setup": facts["seconds_setup"],
            "peak_memory_bytes": facts["peak_memory_bytes"],
            "bytes_adapter": facts["bytes"],
            "near": ", ".join(json.loads(facts["meta_json"]).get("near", ())) or None,
            "input_key": facts["input_key"],
            "input_keys": photos_of(facts),
        }


def _finished(pictures: list[Picture], unit: int) -> list[Picture]:
    """An identity's images, each with the trace of the first batch: it is the identity's, not the image's."""
    curve = pictures[0].row["embedding_norm_json"]
    return [Picture(one.png, {**one.row, "unit": unit, "embedding_norm_json": curve}) for one in pictures]


def commit_pictures(store: Store, unit: Unit, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Write a unit's tar, then its commit; returns the commit that stands."""
    named = {_name(picture.row): picture for picture in pictures}
    writer = tar.Writer()
    for name in sorted(named):
        writer.add(name, {"png": named[name].png})
    built = writer.finish()
    rows = [{**picture.row, **built.spans[name]._asdict()} for name, picture in named.items()]
    return commit(store, unit, {"tar": built.data}, {"rows": rows})


def _name(row: dict[str, Any]) -> str:
    return f"{sample_key(row['identity'])}/{row['prompt']}/{row['index']}"
