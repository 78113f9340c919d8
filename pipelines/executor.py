"""Runs stages over shards with Ray Data: one row is one shard, one map operator with an actor pool is one stage.

Shards stream through the stages, so a shard is decoded on a CPU while another is encoded on a GPU. Rows carry a few
hundred bytes (what is committed so far); samples stay in the store. This is the only file that knows Ray Data.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy

from e4t_core import errors
from e4t_core.errors import UserError
from e4t_core.storage import Store
from pipelines.shards import plan as plans
from pipelines.shards.commit import ShardRef
from pipelines.shards.manifest import Manifest, publish
from pipelines.shards.monitor import Monitor, Tally
from pipelines.shards.report import Progress, StageReport, Summary
from pipelines.shards.survey import Survey, survey, whole
from pipelines.shards.work import Done, Job, ShardTask, ShardWorker
from pipelines.sources.base import Source
from pipelines.stages.base import Stage

_MAX_BLOCKS = 4096
_PROGRESS_S = 0.5
_NO_PROGRESS_S = 4 * 3600
"""Ray Data gives up when no shard of any stage ends for so long; half an hour, its own choice, is one slow shard."""

# Ray Data tells of every start and end; what it warns of (a cluster that lacks a GPU) stays.
logging.getLogger("ray.data._internal.execution.streaming_executor").setLevel(logging.WARNING)
logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def preprocess(
    store: Store,
    source: Source,
    stages: Sequence[Stage],
    *,
    samples_per_shard: int,
    recipe: Mapping[str, Any],
    keep: Sequence[Stage] = (),
    limit: int | None = None,
    retry_quarantined: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Bring ``store`` up to date with the source and the stages, doing only what is missing. Ray must be running.

    Safe to kill at any moment and to run several times at once: the store ends up the same.

    Args:
        stages: in an order in which each follows those it reads.
        samples_per_shard: size of new shards; shards that exist keep their samples.
        recipe: stored in the manifest.
        keep: stages that are not made here; those of which every shard is there stay in the version.
        retry_quarantined: try quarantined samples once more.

    Raises:
        DataError: an empty source, duplicate ids, damaged data.
        StorageError: the store refuses.
        RuntimeError: a stage raised; the message names stage, shard and sample.
    """
    began = time.perf_counter()
    plan = plans.resolve(store, source, samples_per_shard, limit)
    found = survey(store, plan, stages, retry_quarantined)
    finished = {task.shard: dict(task.done) for task in found.tasks}
    reports = {stage.name: StageReport(shards_cached=found.done(stage.name)) for stage in stages}
    if found.open:
        made, reports = _execute(store, source, plan, found, on_progress)
        finished.update(made)
    refs = {stage.name: {shard: done[stage.name] for shard, done in finished.items()} for stage in stages}
    kept = whole(store, [replace(task, done=finished[task.shard]) for task in found.tasks], keep)
    refs.update({stage.name: commits for stage, _, commits in kept})
    columns = [*found.stages, *((stage, identity) for stage, identity, _ in kept)]
    manifest = publish(store, plan, columns, refs, recipe)
    return _summary(manifest, refs, reports, time.perf_counter() - began)


def _summary(
    manifest: Manifest, refs: Mapping[str, Mapping[int, ShardRef]], reports: dict[str, StageReport], seconds: float
) -> Summary:
    head = manifest.head
    return Summary(
        version=manifest.version,
        samples=head["samples"],
        quarantined=head["quarantined"],
        planned=head["planned"],
        shards_done=sum(r.shards_done for r in reports.values()),
        shards_cached=sum(r.shards_cached for r in reports.values()),
        bytes=sum(ref.bytes for shards in refs.values() for ref in shards.values()),
        seconds=seconds,
        reasons=dict(head["reasons"]),
        stages=reports,
    )


# --- Ray


class _StageActor:
    """A worker of one stage, or of neighbouring ones that share workers. Errors travel as rows, so that shards in
    flight elsewhere still commit."""

    def __init__(self, jobs: Sequence[Job], monitor: Any) -> None:
        self._workers = [ShardWorker(job, partial(monitor.ready.remote, job.stage.name)) for job in jobs]
        self._monitor = monitor

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        task = _task_of(row)
        for worker in self._workers:
            name = worker.stage.name
            if row["error"] or name in task.done:
                continue
            if not ray.get(self._monitor.begin.remote(name)):
                return {**row, "error": _SKIPPED}
            try:
                done = worker.process(task)
            except Exception as error:  # noqa: BLE001 - the driver raises it
                self._monitor.stop.remote()
                return {**row, "error": _describe(error)}
            ray.get(self._monitor.end.remote(name, *_work(done)))
            task = replace(task, done={**task.done, name: done.ref})
        return row if row["error"] else _row_of(task)


def _work(done: Done) -> tuple[int, float, float] | tuple[()]:
    """Samples, seconds of computing and of waiting; nothing of a shard that was there."""
    made = done.made
    return (made.ref.n_ok + made.ref.n_bad, sum(made.seconds.values()), made.waited) if made else ()


_SKIPPED = json.dumps({"kind": "skipped"})


def _describe(error: Exception) -> str:
    kind = type(error).__name__ if isinstance(error, UserError) else ""
    facts = error.facts if isinstance(error, UserError) else {}
    return json.dumps({"kind": kind, "message": str(error), "facts": facts, "trace": traceback.format_exc()})


def _row_of(task: ShardTask) -> dict[str, Any]:
    return {"task": json.dumps(asdict(task)), "error": ""}


def _task_of(row: Mapping[str, Any]) -> ShardTask:
    fields = json.loads(row["task"])
    return ShardTask(**{**fields, "done": {name: ShardRef.from_dict(ref) for name, ref in fields["done"].items()}})


def _execute(
    store: Store, source: Source, plan: plans.Plan, found: Survey, on_progress: Callable[[Progress], None] | None
) -> tuple[dict[int, dict[str, ShardRef]], dict[str, StageReport]]:
    """Finish every open shard; shard -> stage -> commit, and what each stage did."""
    run = uuid.uuid4().hex
    jobs = [Job(store, source, stage, identity, plan.items_key, run) for stage, identity in found.stages]
    made: dict[int, dict[str, ShardRef]] = {}
    problems: list[dict[str, Any]] = []
    with _counting() as monitor, _watching(monitor, found, on_progress):
        for row in _rows(jobs, found, monitor).iter_rows():
            if row["error"]:
                problems.append(json.loads(row["error"]))
            else:
                task = _task_of(row)
                made[task.shard] = dict(task.done)
        tallies = ray.get(monitor.tallies.remote())
    _raise_first(problems)
    return made, {stage.name: _report(stage.name, found, tallies) for stage, _ in found.stages}


@contextmanager
def _counting() -> Iterator[Any]:
    """A monitor's process, which ends with the run: Ray Data would hold on to it for as long as the driver lives."""
    monitor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Monitor).remote()
    try:
        yield monitor
    finally:
        ray.kill(monitor)


def _rows(jobs: Sequence[Job], found: Survey, monitor: Any) -> ray.data.Dataset:
    """Every open shard on its way through the stages that it lacks."""
    rows = ray.data.from_items([_row_of(task) for task in found.open], override_num_blocks=_blocks(found))
    rows.context.enable_progress_bars = False
    rows.context.print_on_execution_start = False
    rows.context.execution_no_progress_timeout_s = _NO_PROGRESS_S
    for group in _sharing([job for job in jobs if found.done(job.stage.name) < len(found.tasks)]):
        rows = _add_workers(rows, group, monitor, len(found.open))
    return rows


def _blocks(found: Survey) -> int:
    """One shard a block, so that stages overlap from the first shard on; several only when there are very many."""
    return min(len(found.open), _MAX_BLOCKS)


def _sharing(jobs: Sequence[Job]) -> list[list[Job]]:
    """Neighbouring stages that load no model and ask for the same share workers: a process less to start for each."""
    groups: list[list[Job]] = []
    for job in jobs:
        if groups and _light(job) is not None and _light(job) == _light(groups[-1][-1]):
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups


def _light(job: Job) -> dict[str, Any] | None:
    resources = job.stage.config.resources
    return None if job.identity["weights"] else {**resources.dump(), "batch_size": None}


def _add_workers(rows: ray.data.Dataset, jobs: Sequence[Job], monitor: Any, shards: int) -> ray.data.Dataset:
    resources = jobs[0].stage.config.resources
    actors = min(resources.actors, shards)
    return rows.map(
        _StageActor,
        fn_constructor_args=(jobs, monitor),
        compute=ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus or None,
    )


def _raise_first(problems: Sequence[Mapping[str, Any]]) -> None:
    for problem in problems:
        kind = getattr(errors, problem["kind"], None) if problem["kind"] else None
        if isinstance(kind, type) and issubclass(kind, UserError):
            raise kind(problem["message"], **problem["facts"])
        if problem["kind"] != "skipped":
            raise RuntimeError(f"{problem['message']}\n\nIn the worker:\n{problem['trace']}")


@contextmanager
def _watching(monitor: Any, found: Survey, on_progress: Callable[[Progress], None] | None) -> Iterator[None]:
    """Report progress from a thread while the driver waits for rows."""
    if on_progress is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_PROGRESS_S):
            on_progress(_progress(monitor, found))

    thread = threading.Thread(target=watch, daemon=True, name="preprocess-progress")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    on_progress(_progress(monitor, found))


def _progress(monitor: Any, found: Survey) -> Progress:
    tallies = ray.get(monitor.tallies.remote())
    todo = {stage.name: len(found.tasks) - found.done(stage.name) for stage, _ in found.stages}
    done = sum(tally.made + tally.cached for tally in tallies.values())
    samples = sum(tally.samples for tally in tallies.values())
    text = ", ".join(_standing(name, tallies.get(name, Tally()), left) for name, left in todo.items() if left)
    return Progress(done, sum(todo.values()), samples, text)


def _standing(name: str, tally: Tally, left: int) -> str:
    """``clip 3/16 41.2/s (12% waiting)``: samples a second since it began, and its workers' time without input."""
    text = f"{name} {tally.made + tally.cached}/{left}"
    return f"{text} {tally.rate:.1f}/s ({tally.waiting:.0%} waiting)" if tally.samples else text


def _report(name: str, found: Survey, tallies: Mapping[str, Tally]) -> StageReport:
    tally = tallies.get(name, Tally())
    return StageReport(
        shards_done=tally.made,
        shards_cached=found.done(name) + tally.cached,
        samples=tally.samples,
        seconds=tally.ended - tally.began,
        samples_per_s=tally.rate,
        waiting=tally.waiting,
    )
