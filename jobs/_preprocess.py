"""Source to committed shards, for ``preprocess`` and for jobs that were given a source instead of shards."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from e4t_core.errors import TooManyBad
from e4t_core.storage import Store
from jobs._job import Job
from pipelines import executor
from pipelines.shards.estimate import dry_run


def plan_shards(job: Job, store: Store) -> list[dict[str, Any]]:
    """What :func:`ensure_shards` would do, per stage; lists the source and decodes nothing."""
    recipe = job.recipe
    estimates = dry_run(
        store,
        recipe.build_source(),
        recipe.build_stages(),
        samples_per_shard=recipe.shards.samples_per_shard,
        limit=recipe.source.limit,
    )
    return [asdict(e) for e in estimates]


def ensure_shards(job: Job, store: Store, retry_quarantined: bool = False) -> executor.Summary:
    """Bring the store up to date with the recipe; does only what is missing. Ray must be running.

    Raises:
        TooManyBad: everything good is committed, but the quarantined share is over the allowed one.
    """
    recipe = job.recipe
    job.say(f"preprocess: {recipe.source.name} -> {store.uri} (stages {', '.join(recipe.stages)})")
    with job.progress(None, "preprocess", "shard") as bar:

        def show(progress: executor.Progress) -> None:
            bar.total, bar.n = progress.total, progress.done
            bar.set_postfix_str(progress.text)
            bar.refresh()

        summary = executor.preprocess(
            store,
            recipe.build_source(),
            recipe.build_stages(),
            samples_per_shard=recipe.shards.samples_per_shard,
            limit=recipe.source.limit,
            recipe={**recipe.dump(), "hash": recipe.hash},
            retry_quarantined=retry_quarantined,
            on_progress=show,
        )
    job.say(
        f"preprocess: manifest {summary.version}: {summary.samples} samples, {summary.quarantined} quarantined, "
        f"{summary.shards_done} shards made, {summary.shards_cached} were there"
    )
    share = summary.quarantined / max(summary.planned, 1)
    if share > recipe.shards.allowed_bad_share:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(summary.reasons.items()))
        raise TooManyBad(
            f"{summary.quarantined} of {summary.planned} samples are quarantined ({share:.1%}; {reasons}), more than "
            f"shards.allowed_bad_share = {recipe.shards.allowed_bad_share:g}; what was good is committed in manifest "
            f"{summary.version} of {store.uri}; `python -m jobs shards ls {store.uri}` lists the reasons",
            **asdict(summary),
        )
    return summary
