"""A pre-training step in a Ray Train worker against the same step in plain PyTorch, each as its users have it.

python -m tests.benchmarks train_step
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

import jobs
from e4t_core.backbones import load_backbone, load_clip
from e4t_core.training import train
from jobs import _ray
from jobs._recipe import Recipe
from jobs._sections import RayConfig
from jobs._spinning import LONG
from pipelines.loader import ShardDataset, ShardLoader
from tests.benchmarks.measure import Figure, peak_memory, ratio, share_beside
from tests.benchmarks.tiny_data import TINY, Stream, tiny_recipe, tiny_shards

CASES = ((1, None), (2, None), (2, "2000"))
"""Threads, and ``GOMP_SPINCOUNT`` of both sides: set by nobody, or as jobs set it where cores are shared. One thread
leaves a core to Ray's own processes; two is what the tiny recipe uses."""
LOG_EVERY = 5
SETTINGS = (f"train.log_every={LOG_EVERY}", "train.checkpoint_every=100000")


def plain_steps(recipe: Recipe, shards: str) -> list[float]:
    """Seconds a step between two log lines of the plain loop in this process."""
    torch.set_num_threads(recipe.workers.threads)
    backbone = load_backbone(recipe.backbone)
    method = recipe.build_method()
    module = method.build(backbone, load_clip(recipe.clip).dims)
    dataset = ShardDataset.open(shards)
    loader = Stream(ShardLoader(dataset, method.columns, recipe.train.batch_size, seed=recipe.seed))
    marks = [(0, time.perf_counter())]
    train(
        method,
        module,
        backbone,
        loader,
        recipe.train,
        seed=recipe.seed,
        on_log=lambda step, _: marks.append((step, time.perf_counter())),
    )
    return [(b - a) / (there - here) for (here, a), (there, b) in pairwise(marks)]


def environment(spin: str | None) -> dict[str, str]:
    """This process's, with ``spin`` or none: what it has itself is from importing jobs, unless a user set it."""
    kept = {k: v for k, v in os.environ.items() if k != jobs.SPIN or not jobs.SPIN_IS_OURS}
    return kept if spin is None else {**kept, jobs.SPIN: spin}


def plain_alone(sets: Sequence[str], shards: str, spin: str | None, at_once: int = 1) -> list[float]:
    """Median step of so many processes of the plain loop at once. OpenMP reads its settings when a process starts, and
    these import jobs, which would set its own."""
    command = [sys.executable, "-m", "tests.benchmarks.train_step", shards, *sets]
    env = environment(spin or LONG)
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(at_once)]
    texts = [process.communicate()[0] for process in running]
    return [float(text.split("STEP ")[1]) for text in texts]


def ray_train_steps(recipe_sets: list[str], shards: str, out: Path, spin: str | None = None) -> list[float]:
    """The same as the pretrain job logs it."""
    sets = [word for text in recipe_sets for word in ("--set", text)]
    subprocess.run(
        [sys.executable, "-m", "jobs", "pretrain", "--recipe", "tiny", *sets, "--shards", shards, "--out", str(out)],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(spin),
    )  # fmt: skip
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["seconds_per_step"] for line in lines]


def run(quick: bool) -> list[Figure]:
    """Median step of both, the first ones (compilation, caches) left out."""
    return [figure for threads, spin in CASES for figure in _compared(15 if quick else 40, threads, spin)]


def _compared(steps: int, threads: int, spin: str | None) -> list[Figure]:
    sets = [f"train.steps={steps}", f"workers.threads={threads}", *SETTINGS]
    recipe = tiny_recipe(*sets)
    with tempfile.TemporaryDirectory() as temp:
        with _ray.session(RayConfig(address="local", num_cpus=2)):
            shards = tiny_shards(Path(temp), recipe).uri
        before = plain_alone(sets, shards, spin)
        with peak_memory(every=2) as peak, share_beside("ray::RayTrainWorker") as share:
            ray = statistics.median(ray_train_steps([*TINY, *sets], shards, Path(temp) / "run", spin)[1:])
        plain = statistics.mean([*before, *plain_alone(sets, shards, spin)])
    spins = "as shipped" if spin is None else f"GOMP_SPINCOUNT={spin}"
    note = f"batch {recipe.train.batch_size}, tiny stack, {threads} thread(s), {spins}"
    return [
        Figure("pretrain step, plain PyTorch", plain, "s", note=note),
        Figure("pretrain step, Ray Train worker", ray, "s", note=f"{note}, peak {peak[0]:.0f} MB with Ray"),
        Figure("pretrain step: what the processes beside the worker take", 100 * share[0], "% of a core", note=note),
        ratio(f"pretrain step: Ray Train / plain, {threads} thread(s)", ray / plain, "<= 1.10", note=note),
    ]


if __name__ == "__main__":
    print("STEP", statistics.median(plain_steps(tiny_recipe(*sys.argv[2:]), sys.argv[1])[1:]))
