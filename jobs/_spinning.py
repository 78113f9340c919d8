"""How long the threads of a training spin as they wait for each other."""

from __future__ import annotations

from typing import Any

import jobs
from jobs._job import Job
from jobs._pool import is_local

LONG = "30000"
"""A tenth of what OpenMP has where nobody sets it: nearly as fast, and where another program does take a core, a step
takes a quarter of the time (`python -m tests.benchmarks.spinning`)."""


def worker_environment(job: Job) -> dict[str, Any]:
    """Ray's ``runtime_env`` for the workers of this training: they spin long if they have their cores to themselves.

    They do if each thread has a CPU: one that its worker reserved, or one of a local Ray, which runs nothing else.
    What the user set (``GOMP_SPINCOUNT``) stays.
    """
    return {"env_vars": {jobs.SPIN: LONG}} if jobs.SPIN_IS_OURS and _has_its_cores(job) else {}


def _has_its_cores(job: Job) -> bool:
    import ray

    workers = job.recipe.workers
    if workers.threads <= workers.cpus:
        return True
    cpus = sum(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    return is_local(job) and workers.num_workers * workers.threads <= cpus
