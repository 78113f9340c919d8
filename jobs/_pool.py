"""Tasks over a pool of Ray actors that load their models once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from e4t_core.errors import UsageError, UserError
from jobs._job import Job
from jobs._sections import ActorsConfig

T = TypeVar("T")

_RETRIES = 3
"""Times that a task is done again because the process that worked on it died."""


def announce_resources(job: Job, workers: int, cpus: float, gpus: float) -> None:
    """Say so if the cluster cannot hold the workers now.

    Raises:
        UsageError: it is a local Ray, which will never grow.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = sum(min(_times(n.get("CPU", 0), cpus), _times(n.get("GPU", 0), gpus), workers) for n in nodes)
    if fitting >= workers:
        return
    needs = f"{workers} x ({cpus:g} CPU, {gpus:g} GPU)"
    there = ", ".join(f"{n.get('CPU', 0):g} CPU + {n.get('GPU', 0):g} GPU" for n in nodes)
    if is_local(job):
        raise UsageError(
            f"the recipe asks for {needs} and this machine's Ray has {there}; lower the section's cpus and gpus (and "
            "set its device), raise ray.num_cpus, or join a cluster with ray.address"
        )
    job.say(f"waiting for resources: {needs} wanted, the cluster has {there}; {fitting} fit now")


def is_local(job: Job) -> bool:
    """Whether this is a Ray of the job's own, which ends with it."""
    return job.recipe.ray.address in (None, "local") and "RAY_ADDRESS" not in os.environ


def _times(has: float, wants: float) -> int:
    return int(has / wants) if wants else 1 << 20


def spread(worker: type, arguments: Sequence[Any], tasks: Sequence[T], config: ActorsConfig) -> Iterator[tuple[T, Any]]:
    """Call ``worker(*arguments).run(task)`` for every task, each in some actor; yields (task, result) as they end.

    A task whose process dies is done again, so ``run`` must be safe to repeat. Actors for which there is no room yet
    take part as soon as there is. Models belong into ``run`` or what it calls, not into the constructor: what is
    wrong with them is then told in plain words.

    Raises:
        UserError: what ``run`` raised, or that its process died again and again. Tasks that ended stay done.
    """
    cls = ray.remote(num_cpus=config.cpus, num_gpus=config.gpus, max_restarts=-1, max_task_retries=_RETRIES)(worker)
    actors = [cls.remote(*arguments) for _ in range(min(config.actors, len(tasks)))]
    try:
        yield from _dispatch(actors, tasks)
    finally:
        for actor in actors:
            ray.kill(actor)


def _dispatch(actors: Sequence[ActorHandle], tasks: Sequence[T]) -> Iterator[tuple[T, Any]]:
    """Give each actor that is up one task at a time."""
    left = list(reversed(tasks))
    starting = {actor.__ray_ready__.remote(): actor for actor in actors}
    working: dict[Any, tuple[ActorHandle, T]] = {}
    while left or working:
        ready = ray.wait([*starting, *working], num_returns=1)[0][0]
        ended: list[tuple[T, Any]] = []
        if ready in starting:
            actor = starting.pop(ready)
        else:
            actor, task = working.pop(ready)
            ended.append((task, _result(ready, task)))
        if left:
            task = left.pop()
            working[actor.run.remote(task)] = (actor, task)
        else:
            ray.kill(actor)  # its place may be what a restarting actor waits for
        yield from ended


def _result(ref: Any, task: Any) -> Any:
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise
    except RayActorError as error:
        raise UserError(
            f"the process that worked on {task} died {_RETRIES + 1} times ({str(error).splitlines()[0]}); if memory "
            "ran out, use fewer actors, smaller units or larger machines. What ended is kept: run the same command "
            "again to go on"
        ) from error
