"""Source to committed shards, for ``preprocess`` and ``targets``, and for jobs that were given a source instead of
shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from e4t_core.errors import TooManyBad
from e4t_core.storage import Store
from jobs._job import Job
from jobs._recipe import Recipe
from pipelines.shards.estimate import dry_run
from pipelines.shards.manifest import load_manifest
from pipelines.shards.quality import quality, sentence
from pipelines.stages import Stage

PREPROCESS, TARGETS = "preprocess", "targets"
"""The commands that make columns; each stage names its own."""


def bring_up_to_date(job: Job, command: str) -> dict[str, Any]:
    """What ``preprocess`` and ``targets`` do: what is missing, or with ``--dry-run`` tell what that is."""
    if job.dry_run:
        return _tell(job, _plan(job, job.store, command))
    store = job.store
    with job.ray():
        return {**ensure_shards(job, store, job.args.retry_quarantined, command), "out": store.uri}


def makes_columns(recipe: Recipe) -> str:
    """The command that makes every column of the recipe."""
    return TARGETS if any(stage.command == TARGETS for stage in recipe.build_stages()) else PREPROCESS


def _stages(job: Job, command: str) -> tuple[list[Stage], list[Stage]]:
    """The stages that ``command`` makes, and those that it leaves to others."""
    made, left = list[Stage](), list[Stage]()
    for stage in job.recipe.build_stages():
        (made if stage.command in (PREPROCESS, command) else left).append(stage)
    return made, left


# --- the plan


def _plan(job: Job, store: Store, command: str) -> list[dict[str, Any]]:
    """What :func:`ensure_shards` would do, per stage; lists the source and decodes nothing."""
    recipe = job.recipe
    estimates = dry_run(
        store,
        recipe.build_source(),
        _stages(job, command)[0],
        samples_per_shard=recipe.shards.samples_per_shard,
        limit=recipe.source.limit,
    )
    return [asdict(e) for e in estimates]


def _tell(job: Job, rows: list[dict[str, Any]]) -> dict[str, Any]:
    job.say(f"{'stage':<10} {'shards':>8} {'to do':>8} {'cached':>8} {'est. MB':>10} {'est. s':>10} {'est. GPU-h':>10}")
    for row in rows:
        shards = f"{row['to_do'] + row['cached']:>8} {row['to_do']:>8} {row['cached']:>8}"
        size = _amount(row["bytes"], 1e-6, 1)
        job.say(f"{row['stage']:<10} {shards} {size} {_amount(row['seconds'], 1, 0)} {_amount(row['gpu_hours'], 1, 2)}")
    for row in rows:
        reasons = [*row["changes"], *(f"{n} shards: {why}" for why, n in row["why"].items())]
        if reasons:
            job.say(f"{row['stage']}: {'; '.join(reasons)}")
    return {"dry_run": True, "out": job.out, "stages": rows}


def _amount(value: float | None, scale: float, digits: int) -> str:
    return f"{'unknown' if value is None else f'{value * scale:.{digits}f}':>10}"


# --- the work


def ensure_shards(job: Job, store: Store, retry_quarantined: bool = False, command: str = PREPROCESS) -> dict[str, Any]:
    """Bring the store up to date with the recipe; does only what is missing. Ray must be running.

    Args:
        command: whose stages are made, after those of ``preprocess``. Others stay in the version if they are whole.

    Returns:
        The :class:`~pipelines.shards.report.Summary`, and ``quality``: column -> what its commits say of it, for
        columns that keep figures (see :mod:`pipelines.shards.quality`).

    Raises:
        TooManyBad: everything good is committed, but the quarantined share is over the allowed one.
    """
    from pipelines import executor  # Ray Data, which actors that import the commands have no use for

    recipe, (made, left) = job.recipe, _stages(job, command)
    job.say(f"{command}: {recipe.source.name} -> {store.uri} (stages {', '.join(stage.name for stage in made)})")
    with job.progress(None, command, "shard") as bar:

        def show(progress: executor.Progress) -> None:
            bar.total, bar.n = progress.total, progress.done
            bar.set_postfix_str(progress.text)
            bar.refresh()

        summary = executor.preprocess(
            store,
            recipe.build_source(),
            made,
            samples_per_shard=recipe.shards.samples_per_shard,
            limit=recipe.source.limit,
            recipe={**recipe.dump(), "hash": recipe.hash},
            keep=left,
            retry_quarantined=retry_quarantined,
            on_progress=show,
        )
    job.say(
        f"{command}: manifest {summary.version}: {summary.samples} samples, {summary.quarantined} quarantined, "
        f"{summary.shards_done} shards made, {summary.shards_cached} were there"
    )
    facts = {**asdict(summary), "quality": _quality(job, store, summary.version, made)}
    share = summary.quarantined / max(summary.planned, 1)
    if share > recipe.shards.allowed_bad_share:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(summary.reasons.items()))
        raise TooManyBad(
            f"{summary.quarantined} of {summary.planned} samples are quarantined ({share:.1%}; {reasons}), more than "
            f"shards.allowed_bad_share = {recipe.shards.allowed_bad_share:g}; what was good is committed in manifest "
            f"{summary.version} of {store.uri}; `python -m jobs shards ls {store.uri}` lists the reasons",
            **facts,
        )
    return facts


def _quality(job: Job, store: Store, version: int, stages: Sequence[Stage]) -> dict[str, Any]:
    """What the commits say of the columns that were not made by ``preprocess``: the only ones with figures."""
    manifest, found = load_manifest(store, version), dict[str, Any]()
    for stage in stages:
        if stage.command != PREPROCESS and (figures := quality(store, manifest, stage.name)):
            job.say(f"{stage.name}: {sentence(figures)}")
            found[stage.name] = figures
    return found
