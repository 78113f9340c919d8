"""Pre-trained methods to ship beside the stack: the ordinary ``preprocess`` and ``pretrain`` on its own weights."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from e4t_core.errors import UserError
from e4t_core.record import RECORD_KEY, Record
from e4t_core.storage import Store
from e4t_core.training.artifacts import load_tensors, save_tensors
from jobs.__main__ import start
from jobs._recipe import load
from jobs._run_folder import MODULE, RECORD, RunFolder
from jobs._tiny_stack.files import BACKBONE, CLIP, StackFolder
from jobs._tiny_stack.order import require_part
from jobs._tiny_stack.work import Work

NEEDED = ("vae", "clip", "diffusion")


def train_encoders(work: Work) -> None:
    """Pre-train every encoder of ``stack.encoders`` in ``OUT/encoders``; goes on where it was interrupted."""
    for part in NEEDED:
        require_part(work, part, "the encoders")
    for name, recipe in work.stack.encoders.items():
        folder = _folder(work, name)
        where = ("--recipe", recipe, *_models(work.trained), "--yes")
        start("preprocess", [*where, "--out", str(folder / "shards")])
        start("pretrain", [*where, "--shards", str(folder / "shards"), "--out", str(folder / "run")])


def ready_encoders(work: Work) -> list[str]:
    """Names of those that are trained to their end.

    Raises:
        UserError: they are too large to ship.
    """
    ready = [name for name in work.stack.encoders if _run(work, name).record() is not None]
    size = sum((_folder(work, name) / "run" / MODULE).stat().st_size for name in ready) / 2  # in half precision
    if size > work.stack.encoders_max_megabytes * 1e6:
        raise UserError(
            f"the encoders would take {size / 1e6:.1f} MB, over stack.encoders_max_megabytes = "
            f"{work.stack.encoders_max_megabytes:g}"
        )
    return ready


def install_encoder(work: Work, name: str, target: StackFolder) -> None:
    """Copy a trained encoder beside the stack, as a folder that ``--checkpoint bundled:NAME`` reads.

    Weights are stored in half precision; the record names the package's models instead of this run's folders.
    """
    run = _run(work, name)
    tensors, metadata = load_tensors(run.store, MODULE)
    record = _shipped(run.trained(), work.stack.encoders[name])
    facts = {k: v for k, v in record.facts.items() if k != "sha256"}
    inside = {**metadata, RECORD_KEY: replace(record, facts=facts).to_json()}
    store = Store(str(target.root / name))
    save_tensors(store, MODULE, {key: t.half() for key, t in tensors.items()}, inside)
    shipped = replace(record, facts={**facts, "sha256": RunFolder(store).sha256(MODULE)})
    store.write_json(RECORD, asdict(shipped))


def encoder_records(work: Work, target: StackFolder) -> dict[str, dict[str, Any]]:
    """Name -> recipe, facts and bytes of the encoders that lie beside a stack."""
    out = {}
    for name, recipe in work.stack.encoders.items():
        found = RunFolder(Store(str(target.root / name))).record()
        if found is not None:
            size = (target.root / name / MODULE).stat().st_size
            out[name] = {"recipe": recipe, "bytes": size, **found.facts}
    return out


def _folder(work: Work, name: str) -> Path:
    return work.out / "encoders" / name


def _run(work: Work, name: str) -> RunFolder:
    return RunFolder(Store(str(_folder(work, name) / "run")))


def _models(stack: StackFolder) -> tuple[str, ...]:
    """The run's own weights in place of the package's."""
    paths = {"backbone.path": stack.root / BACKBONE, "clip.path": stack.root / CLIP}
    return tuple(word for key, path in paths.items() for word in ("--set", f"{key}={path}"))


def _shipped(record: Record, recipe: str) -> Record:
    resolved = load(recipe)
    inputs = {**record.inputs, "shards": f"preprocess --recipe {resolved.name} ({resolved.source.name})"}
    return replace(record, recipe=resolved.dump(), recipe_hash=resolved.hash, inputs=inputs)
