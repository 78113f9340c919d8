"""A set of personalized identities as one version of a model in MLflow's registry."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e4t_core.config import apply_overrides
from e4t_core.errors import DataError, UsageError
from e4t_core.methods import METHODS
from e4t_core.record import Record, fingerprint
from e4t_core.storage import Store
from jobs import _recipe
from jobs._adapter_set import AdapterSet
from jobs._job import Job
from jobs._lineage import lineage
from jobs._models import absolute
from jobs._run_folder import RunFolder
from jobs._serving import bundle, registry
from jobs._tracking import Tracker
from pipelines.loader import ShardDataset

HELP = "personalized identities as a registered MLflow model that draws from a prompt; one version for the whole set"
_VERSION = 1
"""Raised when what is registered of the same inputs changes."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--adapters", metavar="URI", help="the --out of personalize")
    parser.add_argument("--name", metavar="NAME", help="the registered model; a version is added if it is there")
    parser.add_argument(
        "--identity", action="append", metavar="ID", help="only this one; repeatable (default: all that succeeded)"
    )
    parser.add_argument("--shards", metavar="URI", help="the shards that personalize was given, if they moved")
    parser.add_argument("--checkpoint", metavar="URI", help="the checkpoint that personalize was given, if it moved")


def run(job: Job) -> dict[str, Any]:
    """Register the set under the recipe that it was made with; ``--set`` may name the backbone's new place. A set that
    is registered under this name already is left alone."""
    adapters = AdapterSet.open(absolute(job.required("adapters", "make them with `python -m jobs personalize`")))
    name = job.required("name", "what the model is to be called in the registry")
    identities = adapters.chosen(job.args.identity)
    record = _record(job, adapters, identities)
    content = fingerprint({"version": _VERSION, "recipe": record.recipe, **record.inputs, "of": identities})
    size = sum(adapters.facts(identity)["bytes"] for identity in identities)
    plan = {"name": name, "method": adapters.manifest["method"], "identities": len(identities), "bytes_adapters": size}
    job.say(f"register: {len(identities)} identities of {record.inputs['adapters']} as '{name}', {size / 1e6:.1f} MB")
    if job.dry_run:
        return {"dry_run": True, **plan}
    tracker = Tracker.open(_mlflow(job), job.args.out, must_answer=True)
    version = registry.registered(tracker.uri, name, content)
    if version is None:
        version = _register(job, tracker, adapters, identities, record, content)
    else:
        job.say(f"register: nothing to do, version {version.version} of '{name}' holds the same")
    model = f"models:/{name}/{version.version}"
    job.say(f"register: {model} at {tracker.uri}; draw with `mlflow models predict -m {model} --env-manager local`")
    return {**plan, "version": int(version.version), "model": model, "run": version.run_id}


def _mlflow(job: Job) -> Any:
    """Of the recipe that was named, not that of the adapters: overrides of their method would not fit it."""
    return _recipe.load(job.args.recipe, [text for text in job.args.set if text.startswith("mlflow.")]).mlflow


def _record(job: Job, adapters: AdapterSet, identities: list[str]) -> Record:
    made = adapters.manifest
    recipe = apply_overrides(made["recipe"], [text for text in job.args.set if not text.startswith("mlflow.")])
    recipe["mlflow"] = {}  # where it was logged is nothing to draw with
    inputs = {**made["inputs"], "adapters": f"{adapters.store.uri}#{made['version']}"}
    facts = {"method": made["method"], "identities": len(identities), **lineage("register", job.args)}
    return Record("model", recipe, made["recipe_hash"], inputs, facts)


def _register(
    job: Job, tracker: Tracker, adapters: AdapterSet, identities: list[str], record: Record, content: str
) -> registry.ModelVersion:
    """Gather the files and log them as a model of a run of its own."""
    dataset, checkpoint = _dataset(job, adapters), _checkpoint(job, adapters)
    about = {"inputs": record.inputs, "method": adapters.manifest["method"], "recipe_hash": record.recipe_hash}
    with (
        tempfile.TemporaryDirectory(prefix="e4t-") as folder,
        tracker.start(f"register {job.args.name}", {**about, "identities": len(identities)}) as run,
    ):
        with job.progress(len(identities), "register", "identity") as bar:
            for count in bundle.write(Store(folder), adapters, identities, dataset, checkpoint, record):
                bar.update(count)
        facts = {f"e4t.{key}": about[key] for key in ("method", "recipe_hash")}
        facts |= {"e4t.identities": len(identities), "e4t.adapters": record.inputs["adapters"]}
        return registry.register(run, job.args.name, Path(folder), content, facts, _description(record, identities))


def _description(record: Record, identities: Sequence[str]) -> str:
    """What it is and how to ask it, in Markdown."""
    prompt = record.recipe["generate"]["prompts"][0]["template"]
    rows = {"columns": ["prompt", "identity", "seed", "images"], "data": [[prompt, identities[0], 1, 1]]}
    return (
        f"{len(identities)} identities personalized by {record.facts['method']} "
        f"({record.inputs['adapters']}). `{{}}` in a prompt stands for the identity; images come back as base64 "
        f"PNG.\n\n```json\n{json.dumps({'dataframe_split': rows})}\n```\n"
    )


def _dataset(job: Job, adapters: AdapterSet) -> ShardDataset:
    """The shards, in the version that the adapters were made from unless another place is named."""
    uri, _, version = adapters.manifest["inputs"]["shards"].rpartition("#")
    return ShardDataset.open(absolute(job.args.shards)) if job.args.shards else ShardDataset.open(uri, int(version))


def _checkpoint(job: Job, adapters: AdapterSet) -> Store | None:
    """The pre-trained module; None for methods without.

    Raises:
        DataError: it is another one than the adapters were made with.
    """
    inputs = adapters.manifest["inputs"]
    if not METHODS.get(adapters.manifest["method"]).pretrains:
        return None
    uri = job.args.checkpoint or inputs.get("checkpoint")
    if not uri:
        raise UsageError("--checkpoint is required: the adapters do not say which they were made with")
    store = Store(absolute(uri))
    sha256 = RunFolder(store).trained().facts["sha256"]
    if sha256 != inputs["checkpoint_sha256"]:
        raise DataError(
            f"{store.uri} holds another module ({sha256[:16]}) than the adapters were made with "
            f"({inputs['checkpoint_sha256'][:16]})"
        )
    return store
