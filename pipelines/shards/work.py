"""One shard of one stage, from inputs to commit. The executor runs this in Ray workers; this file does not know Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from e4t_core.errors import UserError
from e4t_core.record import canonical_json
from e4t_core.storage import Store
from pipelines.shards import layout
from pipelines.shards.commit import MAX_MESSAGE, Commit, Inputs, Quarantined, ShardRef, load_commit, shard_fingerprint
from pipelines.shards.isolation import IsolatedStage, limit_threads
from pipelines.shards.memory import Halving
from pipelines.shards.reading import Batch, ahead, column_batches, source_batches
from pipelines.shards.tar import Tar, Writer
from pipelines.sources.base import Source
from pipelines.stages.base import Bad, Measured, Result, Stage

_ATTEMPTS = 3
_Call = Halving | IsolatedStage


@dataclass(frozen=True)
class ShardTask:
    """A shard on its way through the stages.

    Attributes:
        shard: its number.
        group: its row group in the plan's items.
        items: hash of what the source lists for it.
        retry: stage -> how often its quarantined samples were tried again.
        done: stage -> what is committed so far.
    """

    shard: int
    group: int
    items: str
    retry: Mapping[str, int] = field(default_factory=dict)
    done: Mapping[str, ShardRef] = field(default_factory=dict)

    def inputs(self, stage: Stage) -> Inputs:
        """What ``stage`` makes this shard from; every stage it reads must be done."""
        return Inputs(
            items="" if stage.reads else self.items,
            upstream={name: self.done[name].sha256 for name in stage.reads},
            retry=self.retry.get(stage.name, 0),
        )


@dataclass(frozen=True)
class Done:
    """A shard of one stage that is committed; ``made`` is its commit if it was not there before."""

    ref: ShardRef
    made: Commit | None = None


@dataclass(frozen=True)
class Job:
    """What is the same for every shard of one stage.

    Attributes:
        identity: :func:`pipelines.shards.commit.stage_identity`, taken on the driver.
        items_key: the plan's table.
        run: tells this job's attempts from those of earlier ones.
    """

    store: Store
    source: Source
    stage: Stage
    identity: Mapping[str, Any]
    items_key: str
    run: str


class ShardWorker:
    """Runs one stage; loads its models once, when the first shard needs them, and then calls ``on_ready``."""

    def __init__(self, job: Job, on_ready: Callable[[], object] = lambda: None) -> None:
        self.job, self.store, self.stage, self._on_ready = job, job.store, job.stage, on_ready

    @cached_property
    def _ready(self) -> Halving:
        try:
            self.stage.setup()
        except Exception as error:
            kind = type(error) if isinstance(error, UserError) else RuntimeError
            raise kind(f"stage '{self.stage.name}' cannot start: {type(error).__name__}: {error}") from error
        limit_threads(self.stage)
        self._on_ready()
        return Halving(self.stage)

    def process(self, task: ShardTask) -> Done:
        """Make the shard, unless it is there.

        Raises:
            UserError: the store refuses, or holds damaged data.
            RuntimeError: the stage raised; the message names stage, shard and sample.
        """
        inputs = task.inputs(self.stage)
        fingerprint = shard_fingerprint(self.job.identity, inputs)
        commit = load_commit(self.store, layout.commit_key(self.stage.name, task.shard, fingerprint))
        if commit is not None and intact(self.store, commit.ref):
            return Done(commit.ref)
        mark = layout.attempt_key(self.stage.name, task.shard, fingerprint)
        with ExitStack() as stack:
            deaths = self._deaths(mark, task.shard)
            self.store.put(mark, canonical_json({"run": self.job.run, "attempts": deaths + 1}))
            # after the mark, so that a death while loading counts; before the clock of the shard starts
            call: _Call = stack.enter_context(IsolatedStage(self.stage)) if deaths else self._ready
            commit, tar = self._make(task, fingerprint, inputs, call)
        ref = publish_shard(self.store, commit, tar)
        self.store.delete(mark)
        return Done(ref, commit)

    def _deaths(self, mark: str, shard: int) -> int:
        """How often a worker of this run died at this shard; those of earlier runs may just have been stopped."""
        try:
            attempt = self.store.read_json(mark)
        except FileNotFoundError:
            return 0
        deaths = int(attempt["attempts"]) if attempt["run"] == self.job.run else 0
        if deaths >= _ATTEMPTS:
            raise RuntimeError(
                f"stage '{self.stage.name}', shard {shard}: its worker died {deaths} times, also with the stage in a "
                "process of its own; does the machine run out of memory? Fewer actors or smaller shards need less"
            )
        return deaths

    def _batches(self, task: ShardTask) -> Iterator[Batch]:
        size = self.stage.config.resources.batch_size
        if not self.stage.reads:
            return source_batches(self.store, self.job.source, self.job.items_key, task.group, size)
        upstream = {name: task.done[name] for name in self.stage.reads}
        return column_batches(self.store, task.shard, upstream, size)

    def _make(self, task: ShardTask, fingerprint: str, inputs: Inputs, call: _Call) -> tuple[Commit, Tar]:
        started, computing = time.time(), 0.0
        writer, ids, bad = Writer(), dict[str, str](), list[Quarantined]()
        facts = dict[str, Mapping[str, float]]()
        for batch in ahead(self._batches(task), call.prepare):
            begun = time.perf_counter()
            results = self._results(task.shard, batch, call)
            computing += time.perf_counter() - begun
            for sample_id, sample, result in zip(batch.ids, batch.samples, results, strict=True):
                key = sample["__key__"]
                made, figures = _parts(result)
                if figures:
                    facts[key] = dict(figures)
                if isinstance(made, Bad):
                    bad.append(Quarantined(sample_id, key, made.reason, made.message[:MAX_MESSAGE]))
                else:
                    writer.add(key, made)
                    ids[key] = sample_id
        tar = writer.finish()
        key = layout.data_key(self.stage.name, task.shard, tar.sha256)
        resources, finished = self.stage.config.resources, time.time()
        commit = Commit(
            stage=self.job.identity,
            shard=task.shard,
            ref=ShardRef(fingerprint, inputs, key, tar.sha256, len(tar.data), len(ids), len(bad)),
            samples={key: (ids[key], span) for key, span in tar.spans.items()},
            quarantined=tuple(bad),
            resources=resources.dump() | ({"most": call.most} if call.most else {}),
            seconds={resources.device: computing},
            waited=max(0.0, finished - started - computing),
            started=started,
            finished=finished,
            facts=facts,
        )
        return commit, tar

    def _results(self, shard: int, batch: Batch, call: _Call) -> Sequence[Result]:
        """The stage's answer to one batch, checked against its contract."""
        where = f"stage '{self.stage.name}', shard {shard}"
        try:
            results = call(batch.samples)
        except Exception as error:
            kind = type(error) if isinstance(error, UserError) else RuntimeError
            raise kind(f"{where}, {_culprit(batch, call)}: {type(error).__name__}: {error}") from error
        if len(results) != len(batch.samples):
            raise RuntimeError(f"{where}: {len(results)} results for {len(batch.samples)} samples; one each is right")
        for sample_id, result in zip(batch.ids, results, strict=True):
            made, figures = _parts(result)
            if not isinstance(made, Bad):
                self._check_members(f"{where}, sample '{sample_id}'", made)
            for name, value in figures.items():
                if not math.isfinite(value):
                    raise RuntimeError(f"{where}, sample '{sample_id}': figure '{name}' is {value}; leave it out")
        return results

    def _check_members(self, where: str, members: Mapping[str, bytes]) -> None:
        if not members:
            raise RuntimeError(f"{where}: no members; a sample without output is a Bad with its reason")
        for name, data in members.items():
            if not isinstance(data, bytes) or not any(fnmatchcase(name, pattern) for pattern in self.stage.writes):
                right = ", ".join(self.stage.writes)
                raise RuntimeError(f"{where}: member '{name}' ({type(data).__name__}); bytes of {right} are right")


def _parts(result: Result) -> tuple[Mapping[str, bytes] | Bad, Mapping[str, float]]:
    """Members or why there are none, and figures."""
    if isinstance(result, Measured):
        return result.members, result.facts
    return result, result.facts if isinstance(result, Bad) else {}


def publish_shard(store: Store, commit: Commit, tar: Tar) -> ShardRef:
    """Store tar and commit; whoever was first wins, and its commit is what counts."""
    # The name is the content's hash: writing it again cannot change it, mends a damaged copy, and makes it young
    # again for gc.
    store.put(commit.ref.key, tar.data)
    if store.create(commit.key, commit.to_json()):
        return commit.ref
    winner = load_commit(store, commit.key)
    if winner is not None and intact(store, winner.ref):
        return winner.ref
    store.put(commit.key, commit.to_json())  # its tar was lost, so it committed nothing
    return commit.ref


def intact(store: Store, ref: ShardRef) -> bool:
    """Whether the tar is there with the right size; ``shards verify`` looks inside."""
    return store.size(ref.key) == ref.bytes


def _culprit(batch: Batch, call: _Call) -> str:
    """Name the sample that makes ``call`` raise, by trying one at a time."""
    for sample_id, sample in zip(batch.ids, batch.samples, strict=True):
        try:
            call([sample])
        except Exception:  # noqa: BLE001 - the caller raises what it caught first
            return f"sample '{sample_id}'"
    return f"samples '{batch.ids[0]}' to '{batch.ids[-1]}' (none raises alone)"
