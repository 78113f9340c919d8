"""A driver to be killed: ``python -m tests.shards.drive SOURCE STORE SECONDS_PER_SAMPLE [RAY_ADDRESS [STAGES]]``.

RAY_ADDRESS ``local`` is a Ray of its own, ``none`` the same work in one process without Ray. STAGES is ``chain`` (one
worker for all), or ``apart``: two workers for the first two stages and two for the last.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from e4t_core.storage import Store
from pipelines.stages.base import Stage
from tests.conftest import ROOT
from tests.shards.fakes import CHAINS, folder_source
from tests.shards.support import build


def main(source: str, uri: str, seconds: str, address: str = "local", stages: str = "chain") -> None:
    made = CHAINS[stages](seconds=float(seconds))
    if address == "none":
        build(Store(uri), folder_source(Path(source)), made)
    else:
        _with_ray(source, uri, made, address)


def _with_ray(source: str, uri: str, stages: list[Stage], address: str) -> None:
    import ray

    from pipelines.executor import preprocess

    passed = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    own = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 << 20} if address == "local" else {}
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {**passed, "PYTHONPATH": str(ROOT)}},
        **own,
    )
    summary = preprocess(Store(uri), folder_source(Path(source)), stages, samples_per_shard=4, recipe={"name": "drive"})
    sys.stdout.write(json.dumps(asdict(summary)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
