"""Check everything a run needs before hours are spent, and say what to do about each failure."""

from __future__ import annotations

import argparse
import importlib
import platform
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from e4t_core.errors import UserError
from e4t_core.storage import Store
from jobs import _recipe
from jobs._job import Job

HELP = "check versions, devices, Ray, storage, MLflow and weights; say what to do about each failure"

_PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch", "ray", "pyarrow", "s3fs", "mlflow", "onnxruntime")


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis."""

    name: str
    ok: bool
    text: str
    advice: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """No flags of its own."""


def run(job: Job) -> dict[str, Any]:
    """Run every check, even after one failed."""
    checks = [_guarded(name, check, job) for name, check in _CHECKS.items()]
    for check in checks:
        job.say(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<9} {check.text}")
        if not check.ok:
            job.say(f"      {'':<9} -> {check.advice}")
    failed = [c.name for c in checks if not c.ok]
    return {
        "ok": not failed,
        "failed": failed,
        "checks": [asdict(c) for c in checks],
        "recipes": _recipe.names(),
        "methods": _recipe.METHODS.names(),
        "sources": _recipe.SOURCES.names(),
        "stages": _recipe.STAGES.names(),
        "metrics": _recipe.METRICS.names(),
        "exit_code": 1 if failed else 0,
    }


def _guarded(name: str, check: Callable[[Job], Check], job: Job) -> Check:
    """A check that raises has found something too: its exception is the finding."""
    try:
        return check(job)
    except UserError as error:
        return Check(name, False, str(error), _ADVICE[name])
    except Exception as error:  # noqa: BLE001 -- shown in full, and the other checks still run
        return Check(name, False, f"{type(error).__name__}: {error}", _ADVICE[name])


def _recipe_resolves(job: Job) -> Check:
    recipe = job.recipe
    stages = [s.name for s in recipe.build_stages()]
    recipe.build_source()
    recipe.build_method()
    return Check("recipe", True, f"'{recipe.name}' resolves (hash {recipe.hash}; stages {', '.join(stages)})")


def _versions(job: Job) -> Check:
    found = [f"{name} {metadata.version(name)}" for name in _PACKAGES]
    for name in ("torchvision", "open_clip", "diffusers"):
        importlib.import_module(name)  # a torchvision of another torch build fails here, not in hour three
    return Check("versions", True, f"python {platform.python_version()}, {', '.join(found)}")


def _devices(job: Job) -> Check:
    import torch

    recipe = job.recipe
    wanted = {recipe.workers.device, recipe.personalize.device, recipe.generate.device}
    wanted |= {stage.resources.device for stage in recipe.stages.values()}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    text = f"{', '.join(gpus) or 'no GPU'} on this machine; the recipe asks for {', '.join(sorted(wanted))}"
    missing = any(w.startswith("cuda") for w in wanted) and not gpus and job.recipe.ray.address is None
    return Check("devices", not missing, text, _ADVICE["devices"])


def _ray_runs(job: Job) -> Check:
    import ray

    start = time.monotonic()
    with job.ray():
        where = ray.get(ray.remote(platform.node).remote())
        resources = ray.cluster_resources()
        nodes = len([n for n in ray.nodes() if n["Alive"]])
    text = f"{nodes} node(s), {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs; a task ran on {where}"
    return Check("ray", True, f"{text} ({time.monotonic() - start:.1f} s)")


def _storage(job: Job) -> Check:
    store = Store(job.args.out or ".")
    key = f".doctor-{uuid.uuid4().hex}"
    try:
        first, second = store.create(key, b"e4t"), store.create(key, b"other")
        back = store.read(key)
    finally:
        store.delete(key)
    if (first, second, back) != (True, False, b"e4t"):
        return Check("storage", False, f"{store.uri} does not honour exclusive creation", _ADVICE["storage"])
    free = f", {shutil.disk_usage(store.root).free / 1e9:.0f} GB free" if store.local else ""
    return Check("storage", True, f"{store.uri}: writes, reads, exclusive creation and deletes{free}")


def _mlflow(job: Job) -> Check:
    from jobs._tracking import Tracker

    tracker = Tracker.open(job.recipe.mlflow, job.args.out, must_answer=True)
    return Check("mlflow", True, f"{tracker.uri} answers, experiment '{job.recipe.mlflow.experiment}'")


def _weights(job: Job) -> Check:
    from e4t_core.backbones import clip_weights_fingerprint, vae_weights_fingerprint

    backbone, clip = job.recipe.backbone, job.recipe.clip
    parts = [
        f"backbone {backbone.path} (VAE {vae_weights_fingerprint(backbone)}{_drawn(backbone.random_seed)})",
        f"CLIP {clip.path} ({clip_weights_fingerprint(clip)}{_drawn(clip.random_seed)})",
    ]
    return Check("weights", True, ", ".join(parts))


def _drawn(seed: int | None) -> str:
    return "" if seed is None else f", random weights of seed {seed}: runs, but has learned nothing"


_CHECKS: dict[str, Callable[[Job], Check]] = {
    "versions": _versions,
    "recipe": _recipe_resolves,
    "devices": _devices,
    "storage": _storage,
    "ray": _ray_runs,
    "mlflow": _mlflow,
    "weights": _weights,
}
_ADVICE = {
    "versions": "run `make setup`; torch and torchvision must be of the same release and build",
    "recipe": "correct the key or value named above",
    "devices": "run on a machine with a GPU, join a cluster with ray.address, or --set workers.device=cpu and the like",
    "storage": "give an --out that this user may write; for S3 set AWS_ENDPOINT_URL, keys, region; create the bucket",
    "ray": "stop the other Ray on this machine, unset RAY_ADDRESS, or give ray.address the head's address",
    "mlflow": "start the server, correct mlflow.uri, or unset MLFLOW_TRACKING_URI to log to sqlite beside --out",
    "weights": "download the model once into a folder or bucket and --set backbone.path / clip.path to it",
}
