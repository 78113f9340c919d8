"""Score images, given or drawn here: identity, prompt, likeness and cost, with intervals over identities."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from e4t_core.record import Record, fingerprint
from jobs import _aggregates, _scores
from jobs._evaluated import Inputs
from jobs._fresh import DrawingScorer
from jobs._index import written
from jobs._job import Job
from jobs._lineage import command_line, environment, public, shown
from jobs._models import absolute
from jobs._pool import announce_resources, spread
from jobs._real_sets import Embedder, Part
from jobs._rows import columns, conformed, score_rows
from jobs._sets import score_set
from jobs._tracking import Run, Tracker
from jobs._tracking.datasets import StoreDataset

HELP = "score images: ID, CLIP-T, CLIP-I, DINO, diversity, KID, cost, with intervals over identities"
RESULT = "evaluation.json"
_TOLD = ("version", "recipe_hash", "inputs", "failed", "command")
"""What of the images' manifest is passed on: where they come from, and the identities that could not be learned."""
SCHEMA = 1


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--images", metavar="URI", help="what `generate` wrote")
    parser.add_argument("--adapters", metavar="URI", help="instead of --images: what `personalize` wrote, drawn here")
    parser.add_argument("--checkpoint", metavar="URI", help="with --adapters: the checkpoint personalize was given")
    parser.add_argument("--shards", metavar="URI", help="the real images: what `preprocess` wrote")
    parser.add_argument("--cache", metavar="URI", help="where vectors of real images are kept for other evaluations")


def run(job: Job) -> dict[str, Any]:
    """Score what is not scored yet, then aggregate and log. A second run has nothing to do."""
    evaluation = Evaluation(job)
    todo = evaluation.todo()
    job.say(
        f"evaluate: {evaluation.count} images of {evaluation.made_from}: {len(evaluation.keys)} units, "
        f"{len(evaluation.keys) - len(todo)} scored already"
    )
    if job.dry_run:
        return {"dry_run": True, "out": job.out, "units": len(evaluation.keys), "to_do": len(todo)}
    done = evaluation.finished()
    if done is None:
        tracker = Tracker.open(job.recipe.mlflow, job.out)  # refuses before hours are spent, not after
        evaluation.warn()
        evaluation.work(todo)
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
        "sets": {m["method"]: m["sets"] for m in done["methods"]},
        "costs": {m["method"]: m["costs"] for m in done["methods"]},
        "untrained": done["untrained"],
        "mlflow": done["mlflow"],
    }


class Evaluation(Inputs):
    """One evaluation: the steps from its inputs to a stored result."""

    @cached_property
    def fingerprint(self) -> str:
        """Everything that decides the result."""
        recipe, scores = self.job.recipe, list(self.keys.values())
        intervals = {"samples": recipe.evaluate.bootstrap_samples, "confidence": recipe.evaluate.confidence}
        made_from: dict[str, Any] = {"schema": SCHEMA, "scores": scores, "intervals": intervals, "seed": recipe.seed}
        if self.sets:
            real = {name: [part.key for part in found.parts] for name, found in self.real.items()}
            made_from |= {"sets": _scores.judges(self.sets), "real": real}
        if self.fresh is not None:
            made_from["kept"] = [unit.fingerprint for unit in self.fresh.kept.values()]
        return fingerprint(made_from)

    def todo(self) -> list[tuple[int, str]]:
        """Units that have no scores yet, or no pictures that should stay."""
        there, bare = {entry.key for entry in self.job.store.list("scores")}, set[int]()
        if self.fresh is not None:
            bare = self.fresh.without_pictures()
        return [(unit, key) for unit, key in self.keys.items() if key not in there or unit in bare]

    def finished(self) -> dict[str, Any] | None:
        """The stored result, if it is this evaluation's."""
        try:
            stored = self.job.store.read_json(RESULT)
        except FileNotFoundError:
            return None
        return stored if stored.get("fingerprint") == self.fingerprint else None

    def work(self, todo: list[tuple[int, str]]) -> None:
        """Do what is to do in the actors of one Ray."""
        missing = {name: parts for name, real in self.real.items() if (parts := real.todo(self.cache))}
        if todo or missing:
            with self.job.ray():
                self._score(todo)
                self._look(missing)

    def _score(self, todo: list[tuple[int, str]]) -> None:
        """Score the units that are to do."""
        recipe = self.job.recipe
        args = (
            self.images_uri,
            self.shards_uri,
            self.references[0],
            absolute(self.job.out),
            recipe.metrics,
            recipe.models,
            recipe.evaluate.threads,
            recipe.evaluate.device,
        )
        wanted = {unit for unit, _ in todo}
        if self.fresh is not None:
            self._spread(DrawingScorer, (*args, self.fresh), todo, self.fresh.images(wanted), "draw and evaluate")
        else:
            total = sum(rows.num_rows for unit, rows in self.images.index.units(["unit"]) if unit in wanted)
            self._spread(_scores.Scorer, args, todo, total, "evaluate")

    def _spread(self, worker: type, args: tuple[Any, ...], todo: Sequence[Any], images: int, what: str) -> None:
        """Let actors do what is to do, with a bar of its images."""
        job, config = self.job, self.job.recipe.evaluate
        if not todo:
            return
        with job.progress(images, what, "image") as bar:
            announce_resources(job, 1, config.cpus, config.gpus)
            for _, done in spread(worker, args, todo, config):
                bar.update(done)

    def warn(self) -> None:
        """Say before the work, not after it, which metric of sets will have too few images."""
        for name, metric in self.sets.items():
            there, real = self.count, len(self.real[name])
            if min(there, real) < metric.least():
                self.job.say(
                    f"evaluate: {metric.title} needs {metric.least()} images of either side and gets {there} generated "
                    f"and {real} real ones: it will not be scored"
                )

    def _look(self, missing: Mapping[str, list[Part]]) -> None:
        """Make the vectors of real images that are missing."""
        recipe, config = self.job.recipe, self.job.recipe.evaluate
        for name, parts in missing.items():
            args = (
                self.real[name],
                self.cache.uri,
                recipe.metrics[name],
                recipe.models,
                config.threads,
                config.device,
            )
            self._spread(Embedder, args, parts, sum(len(part.rows) for part in parts), f"real images for {name}")

    def finish(self, tracker: Tracker) -> dict[str, Any]:
        """Join the units, aggregate, log to MLflow, and store the result last. Rows pass through a unit at a time."""
        store, keys = self.job.store, list(self.keys.values())
        if self.fresh is not None:
            self.fresh.publish(self.job)
        single = _scores.per_image(self.metrics)
        sums = _aggregates.Sums(columns(single))

        def tables() -> Iterator[pa.Table]:
            schema = score_rows(single)
            for table in _scores.read_scores(store, keys):
                sums.add(table.to_pandas())
                yield conformed(table, schema)

        with written(tables()) as file:
            rows = f"rows/{file.sha256[:16]}.parquet"
            store.put_file(rows, file.path)
        result = self._result(_aggregates.summed(sums, self.job.recipe.evaluate, self.job.recipe.seed), rows)
        result["mlflow"] = self._log(tracker, result)
        self.job.say(f"evaluate: {tracker.standing()}")
        store.put(RESULT, (json.dumps(result, indent=1) + "\n").encode())  # in the recipe's order
        return result

    def _result(self, methods: list[dict[str, Any]], rows: str) -> dict[str, Any]:
        recipe, version = self.job.recipe, self.references[0]
        record = Record("evaluation", public(recipe.dump()), recipe.hash, self._inputs())
        return {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "name": recipe.name,
            "recipe_hash": recipe.hash,
            "created": time.time(),
            "methods": [method | {"sets": self._sets(method["method"])} for method in methods],
            "untrained": self._untrained(),
            "rows": rows,
            "images": {"uri": self.images_uri, **{key: self.images.manifest[key] for key in _TOLD}},
            "shards": {"uri": self.shards_uri, "version": version},
            "record": vars(record),
            "environment": environment(),
            "command": command_line("evaluate", self.job.args),
        }

    def _sets(self, method: str) -> dict[str, Any]:
        """The method's scores as a whole."""
        return {name: scores[method] for name, scores in self._set_scores.items()}

    @cached_property
    def _set_scores(self) -> dict[str, dict[str, Any]]:
        keys, seed = list(self.keys.values()), self.job.recipe.seed
        return {
            name: score_set(self.job.store, self.cache, keys, name, metric, self.real[name], seed)
            for name, metric in self.sets.items()
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
        return backbone + [f"the judge of {_listed(titles)}" for titles in random.values()]

    def _benchmark(self) -> dict[str, Any]:
        """What evaluations must share for their methods to be compared: their parent run in MLflow."""
        recipe = self.job.recipe
        prompts = [p.dump() for p in recipe.generate.prompts]
        return {"references": self.references[1], "prompts": prompts, "metrics": _scores.judges(self.metrics)}

    def _log(self, tracker: Tracker, result: Mapping[str, Any]) -> dict[str, Any]:
        benchmark = self._benchmark()
        with tracker.start(f"benchmark {result['name']}", benchmark, key=fingerprint(benchmark)) as parent:
            runs = {m["method"]: self._log_method(tracker, parent, m, result) for m in result["methods"]}
        where = {"uri": shown(tracker.uri), "experiment": tracker.experiment}
        return {**where, "parent": parent.id, "benchmark": parent.facts(), "runs": runs}

    def _log_method(
        self, tracker: Tracker, parent: Run, figures: Mapping[str, Any], result: Mapping[str, Any]
    ) -> str | None:
        """MLflow's id of the method's run. One that was killed after logging logs to the same run again."""
        params = {**result["record"]["recipe"], "inputs": result["record"]["inputs"], "hash": result["recipe_hash"]}
        key = fingerprint([self.fingerprint, figures["method"], absolute(self.job.out)])
        with tracker.start(f"{figures['method']} ({result['name']})", params, parent, key=key) as run:
            run.inputs(self._datasets(), "evaluation")
            run.metrics(_aggregates.metrics(dict(figures)))
            run.flush()
            run.artifact_from(self.job.store, result["rows"])
            run.json(RESULT, result)
        return run.id

    def _datasets(self) -> list[StoreDataset]:
        """What was scored, and against which photos."""
        version, references = self.references
        return [
            StoreDataset.shards(self.shards_uri, version, references),
            StoreDataset.images(self.images_uri, self.images.manifest, fingerprint(list(self.keys.values()))),
        ]


def _listed(names: Sequence[str]) -> str:
    """``A``, ``A and B``, ``A, B and C``."""
    return " and ".join([*filter(None, [", ".join(names[:-1])]), *names[-1:]])
