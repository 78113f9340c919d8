"""Pre-train a method's module on committed shards with Ray Train."""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from typing import Any

from e4t_core.backbones import backbone_shape
from e4t_core.errors import UsageError, UserError
from e4t_core.record import Record
from e4t_core.storage import Store
from jobs._board import Board
from jobs._job import Job
from jobs._lineage import lineage, public
from jobs._models import absolute, clip_dims, describe, open_shards
from jobs._pool import announce_resources, is_local
from jobs._preprocess import makes_columns
from jobs._recipe import Recipe
from jobs._run_folder import MODULE, RECORD, Data, RunFolder, init_inputs
from jobs._spinning import worker_environment
from jobs._tracking import Run, Tracker
from jobs._tracking.datasets import StoreDataset
from pipelines.loader import ShardDataset

HELP = "pre-train the method's module on shards, on any number of workers; resumes from its last checkpoint"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--shards", metavar="URI", help="shards that preprocess made")


def run(job: Job) -> dict[str, Any]:
    """Train up to ``train.steps``, going on from the newest checkpoint in ``--out``."""
    recipe, method = job.recipe, job.recipe.build_method()
    if not method.pretrains:
        raise UsageError(f"method '{method.name}' needs no pre-training; run personalize without --checkpoint")
    init_inputs(recipe.train.init_from)  # a wrong one is told before anything starts
    folder = RunFolder(Store(absolute(job.out)))
    others = method.references.columns if method.references else ()
    dataset, data = _shards(job, folder, (*method.columns, *others))
    if job.dry_run:
        folder.check(public(recipe.dump()), data)
        return _plan(job, folder, dataset)
    run_id = folder.begin(public(recipe.dump()), data, lineage("pretrain", job.args))
    finished = folder.record()
    if finished is not None:
        job.say(f"pretrain: nothing to do, {folder.store.uri} is finished at step {finished.facts['steps']}")
        return _summary(folder, finished)
    tracker = Tracker.open(recipe.mlflow, job.out)
    about = {**public(recipe.dump()), "recipe_hash": recipe.hash, "shards_fingerprint": data.fingerprint}
    with job.ray(), tracker.start(f"pretrain {recipe.name}", about, key=f"pretrain-{run_id}") as tracked:
        tracked.inputs([StoreDataset.shards(data.uri, data.version, data.fingerprint)], "training")
        _train(job, folder, data, tracked)
        tracked.artifact_from(folder.store, RECORD)
    job.say(f"pretrain: {tracker.standing()}")
    record = folder.trained()
    job.say(f"pretrain: step {record.facts['steps']}, loss {record.facts['loss']:.4f} -> {folder.store.url(MODULE)}")
    return _summary(folder, record)


def _shards(job: Job, folder: RunFolder, columns: tuple[str, ...]) -> tuple[ShardDataset, Data]:
    """The shards: the version that the run was begun with, or the newest."""
    how = f"make them with `python -m jobs {makes_columns(job.recipe)} --recipe {job.args.recipe} --out URI`"
    uri = job.required("shards", how)
    pinned = folder.pinned()
    needed = tuple(dict.fromkeys((*columns, "clip")))
    dataset = open_shards(job.recipe, uri, needed, pinned.version if pinned else None)
    return dataset, describe(dataset, needed)


def _summary(folder: RunFolder, record: Record) -> dict[str, Any]:
    return {
        "out": folder.store.uri,
        "module": folder.store.url(MODULE),
        "recipe_hash": record.recipe_hash,
        "shards": record.inputs["shards"],
        **record.facts,
    }


# --- training


def _train(job: Job, folder: RunFolder, data: Data, tracked: Run) -> None:
    """Run the workers and show what they tell."""
    workers = job.recipe.workers
    announce_resources(job, workers.num_workers, workers.cpus, workers.gpus)
    board = Board(is_local(job))
    resumed = folder.steps()
    start = f"going on from step {resumed[-1]}" if resumed else "from the start"
    job.say(
        f"pretrain: {data.uri} version {data.version} -> {folder.store.uri}, {workers.num_workers} worker(s), {start}"
    )
    with job.progress(job.recipe.train.steps, "pretrain", "step") as bar:
        shown = _Shown(job, bar, tracked)
        with board.read_by(shown.read), tempfile.TemporaryDirectory(prefix="e4t-train-") as scratch:
            _fit(job, folder, data, board, scratch)


def _fit(job: Job, folder: RunFolder, data: Data, board: Board, scratch: str) -> None:
    """Ray Train, which starts the workers again when one is lost. Its own notes go to ``scratch``: our folder is
    the truth about checkpoints, and a run that Ray holds for finished must never be taken up again."""
    # relative paths in the recipe mean the same in a worker as in the driver
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    import ray
    from ray import train

    from jobs._train_worker import Task, work
    from jobs._trainer import LeanTrainer

    workers = job.recipe.workers
    per_worker = {"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})}
    trainer = LeanTrainer(
        work,
        grows=not is_local(job),
        # a reference, so that Ray's controller does not import our models to read it
        train_loop_config={"task": ray.put(Task(job.recipe, data, folder.store.uri, board))},
        scaling_config=train.ScalingConfig(
            num_workers=workers.num_workers, use_gpu=workers.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=train.RunConfig(
            name="pretrain",
            storage_path=scratch,
            failure_config=train.FailureConfig(max_failures=workers.max_failures),
            worker_runtime_env=worker_environment(job),
            logging_config=train.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        trainer.fit()
    except train.WorkerGroupError as error:
        raise _explained(error, folder, workers.max_failures) from error


def _explained(error: Any, folder: RunFolder, allowed: int) -> Exception:
    """What a user can act on, out of the failures of all ranks; a bug stays Ray's own error with its traceback."""
    from ray.exceptions import RayActorError

    causes = [getattr(e, "cause", None) or getattr(e, "_base_exc", None) or e for e in error.worker_failures.values()]
    for cause in causes:
        if isinstance(cause, UserError):
            return cause
    if any(isinstance(cause, RayActorError) for cause in causes):
        steps = folder.steps()
        return UserError(
            f"workers were lost more than workers.max_failures = {allowed} times; the last checkpoint is of step "
            f"{steps[-1] if steps else 0}: run the same command again to go on. Worker processes that are killed "
            "usually ran out of memory: lower train.batch_size and raise train.grad_accum"
        )
    return error


class _Shown:
    """Puts what the workers tell on the bar and into MLflow."""

    def __init__(self, job: Job, bar: Any, tracked: Run) -> None:
        self.job, self.bar, self.tracked = job, bar, tracked
        self.logged: set[int] = set()  # workers that start again tell the curve so far
        self.starts = 0

    def read(self, notice: dict[str, Any]) -> None:
        """One notice of a worker."""
        if notice["kind"] == "start":
            self.starts += 1
            if self.starts > 1:
                self.job.say(f"pretrain: a worker was lost; all go on from step {notice['step']}")
            self.bar.n = self.bar.initial = notice["step"]
            self.bar.unpause()
            for row in notice["curve"]:
                self._log(row)
        elif notice["kind"] == "log":
            self._log(notice["row"])
            self.bar.set_postfix_str(f"loss {notice['row']['loss']:.4f}", refresh=False)
            self._advance(notice["row"]["step"])
        elif notice["kind"] == "step":
            self._advance(notice["step"])

    def _advance(self, step: int) -> None:
        if step > self.bar.n:
            self.bar.update(step - self.bar.n)

    def _log(self, row: dict[str, Any]) -> None:
        if row["step"] not in self.logged:
            self.logged.add(row["step"])
            self.tracked.metrics({f"train/{k}": v for k, v in row.items() if k != "step"}, row["step"])


# --- the plan


def _plan(job: Job, folder: RunFolder, dataset: ShardDataset) -> dict[str, Any]:
    recipe, train, workers = job.recipe, job.recipe.train, job.recipe.workers
    per_step = train.batch_size * train.grad_accum * workers.num_workers
    done = folder.record() is not None
    steps = folder.steps()
    plan = {
        "dry_run": True,
        "out": folder.store.uri,
        "shards": f"{dataset.store.uri}#{dataset.version}",
        "samples": len(dataset),
        "steps": train.steps,
        "done": train.steps if done else (steps[-1] if steps else 0),
        "samples_per_step": per_step,
        "epochs": round(train.steps * per_step / len(dataset), 3),
        "workers": workers.num_workers,
        "learning_rate": train.learning_rate(train.steps, workers.num_workers),
        **_sizes(recipe, dataset),
    }
    for key, value in plan.items():
        job.say(f"{key:<18} {value}")
    return plan


def _sizes(recipe: Recipe, dataset: ShardDataset) -> dict[str, int]:
    """Parameters and bytes per worker, from models built without memory. Activations are not counted: they depend on
    the batch size, and ``train.gradient_checkpointing`` trades them for time."""
    backbone = backbone_shape(recipe.backbone)
    module = recipe.build_method().build(backbone, clip_dims(dataset))
    frozen = sum(p.numel() for p in backbone.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    state = 8 + (4 if recipe.train.ema_decay is not None else 0)  # Adam's moments, average
    kept = 4 + 4 + state / (recipe.workers.num_workers if recipe.train.shard_optimizer else 1)  # weight, gradient
    width = {"float32": 4, "bfloat16": 2, "float16": 2}[recipe.backbone.dtype]
    return {
        "parameters_trained": trained,
        "parameters_frozen": frozen,
        "bytes_without_activations": math.ceil(frozen * width + trained * kept),
    }
