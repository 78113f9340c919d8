"""Personalized identities as LoRA files for diffusers, A1111, ComfyUI and peft."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from e4t_core.adapters.export import FORMATS, export_low_rank
from e4t_core.backbones import BackboneConfig, backbone_shape
from e4t_core.backbones.base import Backbone
from e4t_core.config import apply_overrides, validate
from e4t_core.errors import UsageError, nearest
from e4t_core.methods import METHODS, Method
from e4t_core.record import Record
from jobs._adapter_set import AdapterSet
from jobs._job import Job
from jobs._lineage import lineage
from pipelines.shards.keys import sample_key

HELP = "write personalized identities as LoRA files for diffusers, A1111 / ComfyUI (kohya) or peft, or as our own"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--adapters", metavar="URI", help="the --out of personalize")
    parser.add_argument(
        "--identity", action="append", metavar="ID", help="export this one; repeatable (default: all that succeeded)"
    )
    parser.add_argument(
        "--format", metavar="FORMAT", help=f"{', '.join(sorted(FORMATS))}; native or another of the method's own"
    )


def run(job: Job) -> dict[str, Any]:
    """Export identities under the recipe that the adapters were made with; ``--set`` may name the backbone's new
    place."""
    adapters = AdapterSet.open(job.required("adapters", "make them with `python -m jobs personalize`"))
    kind = METHODS.get(adapters.manifest["method"])
    known = [*sorted(FORMATS), *kind.formats]
    fmt = job.required("format", f"choose from {', '.join(known)}")
    if fmt not in known:
        raise UsageError(f"--format is '{fmt}', which method '{kind.name}' has not{nearest(fmt, known)}")
    identities = adapters.chosen(job.args.identity)
    made = f"{adapters.store.uri}#{adapters.manifest['version']}"
    summary = {"out": job.out, "method": adapters.manifest["method"], "format": fmt, "identities": len(identities)}
    job.say(f"export: {len(identities)} identities of {made} -> {job.out} for {fmt}")
    if job.dry_run:
        return {"dry_run": True, **summary}
    method, backbone = _models(job, adapters.manifest)
    files: dict[str, int] = {}
    with job.progress(len(identities), "export", "identity") as bar:
        for identity in identities:
            files |= _export(job, adapters, method, backbone, identity)
            bar.update()
    size = sum(files.values())
    job.say(f"export: {len(files)} files, {size / max(len(identities), 1) / 1e6:.2f} MB an identity")
    return {**summary, "adapters": made, "files": len(files), "bytes": size}


def _models(job: Job, manifest: Mapping[str, Any]) -> tuple[Method, Backbone]:
    """The method, and the backbone's shape, as the adapters' own recipe names them."""
    recipe = apply_overrides(manifest["recipe"], job.args.set)
    kind = METHODS.get(manifest["method"])
    method = kind(validate(kind.Config, recipe["method"], "method"))
    return method, backbone_shape(validate(BackboneConfig, recipe["backbone"], "backbone"))


def _export(job: Job, adapters: AdapterSet, method: Method, backbone: Backbone, identity: str) -> dict[str, int]:
    """Sizes of the files of one identity, by key."""
    manifest = adapters.manifest
    record = Record(
        "lora",
        manifest["recipe"],
        manifest["recipe_hash"],
        {**manifest["inputs"], "adapters": f"{adapters.store.uri}#{manifest['version']}"},
        {"identity": identity, "method": manifest["method"], **lineage("export", job.args)},
    )
    adapter, name = adapters.read(identity), sample_key(identity)
    if job.args.format in FORMATS:
        return export_low_rank(method.low_rank_layers(adapter, backbone), job.args.format, job.store, name, record)
    method.export(adapter, job.store.url(name), job.args.format, record, backbone)
    return {entry.key: entry.size for entry in job.store.list(f"{name}/")}
