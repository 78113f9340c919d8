"""How two versions differ, and why each shard was, or would be, made anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from e4t_core.storage import Store
from pipelines.shards.commit import Inputs, ShardRef
from pipelines.shards.cost import Cost, cost_of
from pipelines.shards.manifest import Manifest, load_index, load_manifest

Identity = Mapping[str, Any]
Change = Mapping[str, tuple[Any, Any]]
"""What was changed -> (before, after)."""


def diff(store: Store, a: int, b: int) -> dict[str, Any]:
    """What version ``b`` changed against version ``a``, why, and what that took.

    Returns:
        ``samples``: counts added, removed, newly quarantined, newly whole; ``stages``: stage -> its changed settings,
        per reason the shards remade, and their ``cost`` as committed; ``text``: the same as lines to read.
    """
    old, new = load_manifest(store, a), load_manifest(store, b)
    samples = _sample_changes(load_index(store, old), load_index(store, new))
    names = [*new.stages, *(name for name in old.stages if name not in new.stages)]
    stages = {name: _stage_changes(store, old, new, name) for name in names}
    text = [f"{store.uri}: version {a} -> {b}", "samples: " + ", ".join(f"{n} {what}" for what, n in samples.items())]
    for name, change in stages.items():
        lines = sentences(change["identity"])
        lines += [f"{len(shards)} shards {why}" for why, shards in change["shards"].items()]
        if change["cost"]:
            lines.append(f"took {Cost(**change['cost'])}")
        text.append(f"{name}: " + ("; ".join(lines) or "unchanged"))
    return {"samples": samples, "stages": stages, "text": text}


def identity_changes(before: Identity, after: Identity) -> dict[str, tuple[Any, Any]]:
    """What differs between two identities of one stage: ``version``, ``weights``, ``schema``, ``settings.NAME``."""
    found = {
        key: (before.get(key), after.get(key))
        for key in ("version", "weights", "schema")
        if before.get(key) != after.get(key)
    }
    was, now = before["settings"], after["settings"]
    return found | {f"settings.{k}": (was.get(k), now.get(k)) for k in sorted({*was, *now}) if was.get(k) != now.get(k)}


def sentences(changes: Change) -> list[str]:
    """``settings.size: 64 -> 128``, for each."""
    return [f"{key}: {before!r} -> {after!r}" for key, (before, after) in changes.items()]


def reasons(was: Inputs, now: Inputs, stage_changed: bool) -> list[str]:
    """Why a shard has another fingerprint than before; upstream stages that ``now`` lacks are yet to be made."""
    upstream = [name for name, sha in was.upstream.items() if now.upstream.get(name) != sha]
    upstream += [name for name in now.upstream if name not in was.upstream]
    found = [
        "stage changed" if stage_changed else "",
        "source items changed" if was.items != now.items else "",
        f"upstream {', '.join(upstream)} changed" if upstream else "",
        "quarantined samples retried" if was.retry != now.retry else "",
    ]
    return [reason for reason in found if reason]


def _sample_changes(old: pa.Table, new: pa.Table) -> dict[str, int]:
    before = dict(zip(old["id"].to_pylist(), old["status"].to_pylist(), strict=True))
    after = dict(zip(new["id"].to_pylist(), new["status"].to_pylist(), strict=True))
    kept = [(before[i], status) for i, status in after.items() if i in before]
    return {
        "added": len(after) - len(kept),
        "removed": len(before) - len(kept),
        "newly quarantined": kept.count(("ok", "quarantined")),
        "newly whole": kept.count(("quarantined", "ok")),
    }


def _stage_changes(store: Store, old: Manifest, new: Manifest, stage: str) -> dict[str, Any]:
    before, after = old.head["stages"].get(stage), new.head["stages"].get(stage)
    identity = identity_changes(before, after) if before and after else {}
    shards: dict[str, list[int]] = {}
    refs_before, refs_after = old.refs(stage), new.refs(stage)
    for number in sorted({*refs_before, *refs_after}):
        if why := _why(refs_before.get(number), refs_after.get(number), bool(identity)):
            shards.setdefault(why, []).append(number)
    made = [n for why, numbers in shards.items() if why != "removed" for n in numbers]
    cost = cost_of(store, stage, {n: refs_after[n] for n in made})
    return {"identity": identity, "shards": shards, "cost": cost.to_dict() if cost else {}}


def _why(old: ShardRef | None, new: ShardRef | None, stage_changed: bool) -> str:
    """Why a shard was remade, in words; empty if it was not."""
    if old is None or new is None:
        return "added" if old is None else "removed"
    if old.fingerprint == new.fingerprint:
        return ""
    same = ", same bytes" if old.sha256 == new.sha256 else ""
    return f"remade ({'; '.join(reasons(old.inputs, new.inputs, stage_changed))}{same})"
