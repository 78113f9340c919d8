"""Which ``GOMP_SPINCOUNT`` serves best: a two-thread E4T step alone on two cores, and two processes of it at once.

    python -m tests.benchmarks.spinning

Jobs set 2,000, and 30,000 for a training that has its cores to itself; OpenMP has 300,000 where nobody sets it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from jobs import _ray
from jobs._sections import RayConfig
from tests.benchmarks.tiny_data import tiny_recipe, tiny_shards
from tests.benchmarks.train_step import SETTINGS, plain_alone

SPINS = (0, 1000, 2000, 5000, 10_000, 30_000, 300_000)
SETS = ("train.steps=30", "workers.threads=2", *SETTINGS)


def main() -> None:
    """One line a setting."""
    with tempfile.TemporaryDirectory() as temp:
        with _ray.session(RayConfig(address="local", num_cpus=2)):
            shards = tiny_shards(Path(temp), tiny_recipe(*SETS)).uri
        for spin in SPINS:
            alone, two = (max(plain_alone(SETS, shards, str(spin), at_once)) for at_once in (1, 2))
            print(f"GOMP_SPINCOUNT={spin:<12} alone {alone:.3f} s a step, two at once {two:.3f} s", flush=True)


if __name__ == "__main__":
    main()
