"""A driver to be killed: ``python -m tests.shards.drive SOURCE STORE SECONDS_PER_SAMPLE [RAY_ADDRESS]``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import ray

from e4t_core.storage import Store
from pipelines.executor import preprocess
from tests.conftest import ROOT
from tests.shards.fakes import chain, folder_source


def main(source: str, uri: str, seconds: str, address: str = "local") -> None:
    passed = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
    own = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 << 20} if address == "local" else {}
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {**passed, "PYTHONPATH": str(ROOT)}},
        **own,
    )
    stages = chain(seconds=float(seconds))
    summary = preprocess(Store(uri), folder_source(Path(source)), stages, samples_per_shard=4, recipe={"name": "drive"})
    sys.stdout.write(json.dumps(asdict(summary)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
