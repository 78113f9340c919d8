"""Start or join Ray with an environment that workers can work in."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from e4t_core.errors import UsageError
from jobs._sections import RayConfig

_PASSED_ON = ("AWS_", "MLFLOW_", "E4T_", "OMP_", "GOMP_", "HF_", "NO_PROXY")
QUIET = {
    # Ray's C++ layer reports harmless states of Data and Train as errors, and every process announces its log level;
    # what goes wrong in a worker reaches the driver as an exception, and the log files keep the rest
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody takes this machine away
    # nobody is shown the workers' logs, so nothing need list their folder ten times a second
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    # nor their tasks, times and metrics: there is no dashboard
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_prestart_worker_first_driver": "0",  # such workers have another environment than ours, and wait in vain
}
"""What a local Ray need not do: it shares its cores with the work."""
_OBJECT_STORE_BYTES = 256 << 20
"""Rows carry descriptions, never images: a local object store can be small."""


def environment() -> dict[str, str]:
    """Variables that workers on other nodes need: storage, tracking and thread settings."""
    passed = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
    quiet = {"RAY_DATA_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return quiet | passed


@contextmanager
def session(config: RayConfig) -> Iterator[None]:
    """Ray is initialised inside; a Ray that was already there stays.

    Raises:
        UsageError: the named cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tells nobody, and is a process less to start
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    runtime_env = {"env_vars": environment()}
    if address == "local":
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        ray.init(
            address="local",
            num_cpus=config.num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            runtime_env=runtime_env,
            logging_level=logging.ERROR,
            # unix sockets live below it, and their paths may not be long
            _temp_dir=os.path.join(tempfile.gettempdir(), "e4t-ray"),
        )
    else:
        # a submitted job has variables of its own already; ours join them instead of being refused as a conflict
        os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
        try:
            ray.init(address=address, runtime_env=runtime_env, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError) as error:
            raise UsageError(
                f"no Ray cluster answers at '{address}' ({error}); start one with `ray start --head`, or unset "
                "RAY_ADDRESS and ray.address to run locally"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()
