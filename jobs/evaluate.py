"""Score generated images: identity, prompt, likeness and cost, with intervals over identities."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from e4t_core.errors import DataError
from e4t_core.metrics import Metric
from e4t_core.record import Record, content_hash, fingerprint
from e4t_core.storage import Store
from jobs import _aggregates, _scores
from jobs._job import Job
from jobs._lineage import command_line, environment, public
from jobs._models import absolute
from jobs._pool import announce_resources, spread
from jobs._tracking import Run, Tracker, shown
from jobs._units import ImageSet
from pipelines.shards.manifest import load_manifest

HELP = "score generated images: ID, CLIP-T, CLIP-I, cost, with intervals over identities"
RESULT = "evaluation.json"
_TOLD = ("version", "recipe_hash", "inputs", "failed", "command")
"""What of the images' manifest is passed on: where they come from, and the identities that could not be learned."""
SCHEMA = 1


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--images", metavar="URI", help="what `generate` wrote")
    parser.add_argument("--shards", metavar="URI", help="the real images: what `preprocess` wrote")


def run(job: Job) -> dict[str, Any]:
    """Score what is not scored yet, then aggregate and log. A second run has nothing to do."""
    evaluation = Evaluation(job)
    todo = evaluation.todo()
    job.say(
        f"evaluate: {len(evaluation.images)} images of {evaluation.images_uri}: {len(evaluation.keys)} units, "
        f"{len(evaluation.keys) - len(todo)} scored already"
    )
    if job.dry_run:
        return {"dry_run": True, "out": job.out, "units": len(evaluation.keys), "to_do": len(todo)}
    done = evaluation.finished()
    if done is None:
        tracker = Tracker.open(job.recipe.mlflow, job.out)  # refuses before hours are spent, not after
        evaluation.score(todo)
        done = evaluation.finish(tracker)
    for line in _aggregates.text_table(done["methods"]):
        job.say(line)
    return _summary(job, done, scored=len(todo), cached=len(evaluation.keys) - len(todo))


def _summary(job: Job, done: Mapping[str, Any], scored: int, cached: int) -> dict[str, Any]:
    return {
        "out": job.out,
        "evaluation": job.store.url(RESULT),
        "rows": job.store.url(done["rows"]),
        "units_scored": scored,
        "units_cached": cached,
        "images": sum(m["images"] for m in done["methods"]),
        "identities": max(m["identities"] for m in done["methods"]),
        "scores": {m["method"]: m["scores"] for m in done["methods"]},
        "untrained": done["untrained"],
        "mlflow": done["mlflow"],
    }


@dataclass
class Evaluation:
    """One evaluation: its inputs, and the steps from scores to a stored result."""

    job: Job

    @cached_property
    def images_uri(self) -> str:
        """Where the generated images are."""
        return absolute(self.job.required("images", "what `python -m jobs generate --out` wrote"))

    @cached_property
    def shards_uri(self) -> str:
        """Where the real images are."""
        return absolute(self.job.required("shards", "what `python -m jobs preprocess --out` wrote, generate's too"))

    @cached_property
    def images(self) -> ImageSet:
        """The generated images."""
        images = ImageSet.open(self.images_uri)
        if not len(images):
            raise DataError(f"{self.images_uri} holds no images: {images.manifest.get('failed', 'nothing was drawn')}")
        return images

    @cached_property
    def references(self) -> tuple[int, str]:
        """The shards' version, and a content fingerprint of their images."""
        manifest = load_manifest(Store(self.shards_uri))
        return manifest.version, fingerprint({str(n): ref.sha256 for n, ref in manifest.refs("ingest").items()})

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """The configured metrics, not loaded."""
        recipe = self.job.recipe
        return _scores.build(recipe.metrics, recipe.models, recipe.evaluate.device)

    @cached_property
    def keys(self) -> dict[int, str]:
        """Unit -> key of its scores."""
        return _scores.unit_keys(self.images, self.references[1], self.metrics)

    @cached_property
    def fingerprint(self) -> str:
        """Everything that decides the result."""
        recipe, scores = self.job.recipe, list(self.keys.values())
        intervals = {"samples": recipe.evaluate.bootstrap_samples, "confidence": recipe.evaluate.confidence}
        return fingerprint({"schema": SCHEMA, "scores": scores, "intervals": intervals, "seed": recipe.seed})

    def todo(self) -> list[tuple[int, str]]:
        """Units that have no scores yet."""
        there = {entry.key for entry in self.job.store.list("scores")}
        return [(unit, key) for unit, key in self.keys.items() if key not in there]

    def finished(self) -> dict[str, Any] | None:
        """The stored result, if it is this evaluation's."""
        try:
            stored = self.job.store.read_json(RESULT)
        except FileNotFoundError:
            return None
        return stored if stored.get("fingerprint") == self.fingerprint else None

    def score(self, todo: list[tuple[int, str]]) -> None:
        """Score the units that are to do, in actors."""
        if not todo:
            return
        job, recipe = self.job, self.job.recipe
        args = (
            self.images_uri,
            self.shards_uri,
            self.references[0],
            absolute(job.out),
            recipe.metrics,
            recipe.models,
            recipe.evaluate.threads,
            recipe.evaluate.device,
        )
        sizes = {unit: len(rows) for unit, rows in _scores.by_unit(self.images.table).items()}
        with job.ray(), job.progress(sum(sizes[unit] for unit, _ in todo), "evaluate", "image") as bar:
            announce_resources(job, 1, recipe.evaluate.cpus, recipe.evaluate.gpus)
            for _, images in spread(_scores.Scorer, args, todo, recipe.evaluate):
                bar.update(images)

    def finish(self, tracker: Tracker) -> dict[str, Any]:
        """Join the units, aggregate, log to MLflow, and store the result last."""
        store = self.job.store
        table = _scores.read_scores(store, list(self.keys.values()))
        data = _scores.to_parquet(table)
        rows = f"rows/{content_hash(data, 16)}.parquet"
        store.put(rows, data)
        result = self._result(table, rows)
        result["mlflow"] = self._log(tracker, result)
        self.job.say(f"evaluate: logged to experiment '{tracker.experiment}' at {shown(tracker.uri)}")
        store.put(RESULT, (json.dumps(result, indent=1) + "\n").encode())  # in the recipe's order
        return result

    def _result(self, table: pa.Table, rows: str) -> dict[str, Any]:
        recipe, version = self.job.recipe, self.references[0]
        columns = _scores.columns(self.metrics)
        record = Record("evaluation", public(recipe.dump()), recipe.hash, self._inputs())
        return {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "name": recipe.name,
            "recipe_hash": recipe.hash,
            "created": time.time(),
            "methods": _aggregates.aggregate(table.to_pandas(), columns, recipe.evaluate, recipe.seed),
            "untrained": self._untrained(),
            "rows": rows,
            "images": {"uri": self.images_uri, **{key: self.images.manifest[key] for key in _TOLD}},
            "shards": {"uri": self.shards_uri, "version": version},
            "record": vars(record),
            "environment": environment(),
            "command": command_line("evaluate", self.job.args),
        }

    def _inputs(self) -> dict[str, str]:
        weights = {f"weights.{name}": metric.weights() for name, metric in self.metrics.items() if metric.weights()}
        return {
            "images": fingerprint(list(self.keys.values())),
            "references": self.references[1],
            **weights,
        }

    def _untrained(self) -> list[str]:
        """What has random weights, so that reports can say that the figures mean nothing."""
        random: dict[str, list[str]] = {}
        for metric in self.metrics.values():
            if metric.untrained():
                random.setdefault(metric.weights(), []).append(metric.title)
        backbone = ["the diffusion model"] if self.job.recipe.backbone.random_seed is not None else []
        return backbone + [f"the judge of {' and '.join(titles)}" for titles in random.values()]

    def _benchmark(self) -> dict[str, Any]:
        """What evaluations must share for their methods to be compared: their parent run in MLflow."""
        recipe = self.job.recipe
        prompts = [p.dump() for p in recipe.generate.prompts]
        return {"references": self.references[1], "prompts": prompts, "metrics": _scores.judges(self.metrics)}

    def _log(self, tracker: Tracker, result: Mapping[str, Any]) -> dict[str, Any]:
        benchmark = self._benchmark()
        parent = tracker.shared(f"benchmark {result['name']}", fingerprint(benchmark), benchmark)
        with parent:
            runs = {m["method"]: self._log_method(tracker, parent, m, result) for m in result["methods"]}
        return {"uri": shown(tracker.uri), "experiment": tracker.experiment, "parent": parent.id, "runs": runs}

    def _log_method(self, tracker: Tracker, parent: Run, figures: Mapping[str, Any], result: Mapping[str, Any]) -> str:
        params = {**result["record"]["recipe"], "inputs": result["record"]["inputs"], "hash": result["recipe_hash"]}
        with tracker.start(f"{figures['method']} ({result['name']})", params, parent) as run:
            run.metrics(_aggregates.metrics(dict(figures)))
            run.flush()
            run.artifact_from(self.job.store, result["rows"])
            run.json(RESULT, result)
        return run.id
