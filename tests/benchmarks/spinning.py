"""Which ``GOMP_SPINCOUNT`` serves best: a two-thread E4T step alone on two cores, and two processes of it at once.

    python -m tests.benchmarks.spinning

Every setting is a process of its own, because OpenMP reads it once.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from jobs import _ray
from jobs._sections import RayConfig
from tests.benchmarks.tiny_data import tiny_recipe, tiny_shards
from tests.benchmarks.train_step import SETTINGS, plain_steps

SPINS = (0, 1000, 2000, 4000, 10_000, 1_000_000_000)
SETS = ("train.steps=20", "workers.threads=2", *SETTINGS)


def main() -> None:
    """One line a setting."""
    if len(sys.argv) > 1:
        print("STEP", statistics.median(plain_steps(tiny_recipe(*SETS), sys.argv[1])[2:]))
        return
    with tempfile.TemporaryDirectory() as temp:
        with _ray.session(RayConfig(address="local", num_cpus=2)):
            shards = tiny_shards(Path(temp), tiny_recipe(*SETS)).uri
        for spin in SPINS:
            alone, two = max(_steps(shards, spin, 1)), max(_steps(shards, spin, 2))
            print(f"GOMP_SPINCOUNT={spin:<12} alone {alone:.3f} s a step, two at once {two:.3f} s", flush=True)


def _steps(shards: str, spin: int, at_once: int) -> list[float]:
    command = [sys.executable, "-m", "tests.benchmarks.spinning", shards]
    environment = {**os.environ, "GOMP_SPINCOUNT": str(spin)}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(at_once)]
    texts = [process.communicate()[0] for process in running]
    return [float(text.split("STEP ")[1]) for text in texts]


if __name__ == "__main__":
    main()
