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
from pipelines.loader import ShardDataset, ShardLoader
from tests.benchmarks.measure import Figure, peak_memory, ratio, share_beside
from tests.benchmarks.tiny_data import TINY, Stream, tiny_recipe, tiny_shards

THREADS = (1, 2)
"""One leaves a core to Ray's own processes; two is what the tiny recipe uses."""
ROUNDS = 5
"""Two runs of the same differ by 5 % and more, so both are measured so often, in turns."""
TORCHS_SPIN = "300000"
"""``GOMP_SPINCOUNT`` as OpenMP has it where nobody sets it, and so PyTorch."""
SETTINGS = ("train.checkpoint_every=100000",)


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


def plain_alone(sets: Sequence[str], shards: str, spin: str, at_once: int = 1) -> list[float]:
    """Median step of so many processes of the plain loop at once. OpenMP reads its settings when a process starts."""
    command = [sys.executable, "-m", "tests.benchmarks.train_step", shards, *sets]
    env = {**os.environ, jobs.SPIN: spin}  # these processes import jobs, which would set its own
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(at_once)]
    texts = [process.communicate()[0] for process in running]
    return [float(text.split("STEP ")[1]) for text in texts]


def _as_users_have_it() -> dict[str, str]:
    """This process's environment; its spin is from importing jobs, unless a user set it."""
    return {k: v for k, v in os.environ.items() if k != jobs.SPIN or not jobs.SPIN_IS_OURS}


def ray_train_steps(recipe_sets: list[str], shards: str, out: Path) -> list[float]:
    """The same as the pretrain job logs it."""
    sets = [word for text in recipe_sets for word in ("--set", text)]
    subprocess.run(
        [sys.executable, "-m", "jobs", "pretrain", "--recipe", "tiny", *sets, "--shards", shards, "--out", str(out)],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_as_users_have_it(),
    )  # fmt: skip
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["seconds_per_step"] for line in lines]


def run(quick: bool) -> list[Figure]:
    """Median step of both, the first ones (compilation, caches) left out."""
    steps, rounds = (30, 1) if quick else (50, ROUNDS)
    return [figure for threads in THREADS for figure in _compared(steps, rounds, threads)]


def _compared(steps: int, rounds: int, threads: int) -> list[Figure]:
    sets = [f"train.steps={steps}", f"workers.threads={threads}", *SETTINGS]
    recipe = tiny_recipe(*sets)
    plain, ours, shares, peaks = [], [], [], []
    with tempfile.TemporaryDirectory() as temp:
        with _ray.session(RayConfig(address="local", num_cpus=2)):
            shards = tiny_shards(Path(temp), recipe).uri
        for number in range(rounds):
            plain.extend(plain_alone(sets, shards, TORCHS_SPIN))
            with peak_memory(every=2) as peak, share_beside("ray::RayTrainWorker") as share:
                steps_of_ray = ray_train_steps([*TINY, *sets], shards, Path(temp) / f"run-{number}")
            ours.append(statistics.median(steps_of_ray[1:]))
            shares.append(share[0])
            peaks.append(peak[0])
    ratios = [ray / torchs for ray, torchs in zip(ours, plain, strict=True)]
    note = f"batch {recipe.train.batch_size}, tiny stack, {threads} thread(s), median of {rounds}"
    spread = f"{note}; {min(ratios):.2f} to {max(ratios):.2f}"
    beside = 100 * statistics.median(shares)
    return [
        Figure("pretrain step, plain PyTorch", statistics.median(plain), "s", note=note),
        Figure("pretrain step, Ray Train worker", statistics.median(ours), "s", note=f"{note}, {max(peaks):.0f} MB"),
        Figure("pretrain step: what the processes beside the worker take", beside, "% of a core", note=note),
        ratio(f"pretrain step: Ray Train / plain, {threads} thread(s)", statistics.median(ratios), "<= 1.10", spread),
    ]


if __name__ == "__main__":
    print("STEP", statistics.median(plain_steps(tiny_recipe(*sys.argv[2:]), sys.argv[1])[1:]))
