"""Looking after a store: what is in it, whether it is whole, what can go."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from e4t_core.errors import DataError
from e4t_core.storage import Entry, Store
from pipelines.shards import layout
from pipelines.shards import plan as plans
from pipelines.shards.commit import ShardRef, load_commit
from pipelines.shards.manifest import Manifest, load_manifest, versions

_PIECE = 16 << 20


def ls(store: Store) -> dict[str, Any]:
    """Sum up the newest version, as JSON values.

    Raises:
        DataError: nothing is published there.
    """
    manifest = load_manifest(store)
    head = manifest.head
    stages = {}
    for stage in manifest.stages:
        refs = manifest.refs(stage).values()
        stages[stage] = {
            "shards": len(refs),
            "samples": sum(ref.n_ok for ref in refs),
            "quarantined": sum(ref.n_bad for ref in refs),
            "bytes": sum(ref.bytes for ref in refs),
        }
    return {
        "uri": store.uri,
        "version": manifest.version,
        "versions": versions(store),
        "planned": head["planned"],
        "samples": head["samples"],
        "quarantined": head["quarantined"],
        "reasons": head["reasons"],
        "shards": max((s["shards"] for s in stages.values()), default=0),
        "bytes": sum(s["bytes"] for s in stages.values()),
        "stages": stages,
    }


# --- verify


def verify(store: Store) -> dict[str, Any]:
    """Hash every object that a manifest or commit names.

    Returns:
        ``problems`` (sentences), ``objects`` and ``bytes`` that were hashed, ``orphans`` (keys that nothing names).
    """
    problems: list[str] = []
    named = _named(store, problems)
    present = {entry.key: entry for entry in store.list(layout.DATA)}
    hashed = 0
    for key, (size, sha256, cure) in sorted(named.items()):
        entry = present.get(key)
        if entry is None and store.size(key) is None:
            problems.append(f"{store.url(key)} is missing; {cure}")
            continue
        length, digest = _hash(store, key)
        hashed += length
        if size is not None and length != size:
            problems.append(f"{store.url(key)} has {length} bytes, {size} were committed; {cure}")
        elif digest != sha256:
            problems.append(f"{store.url(key)} is damaged: SHA-256 {digest[:16]}..., not {sha256[:16]}...; {cure}")
    return {
        "problems": problems,
        "objects": len(named),
        "bytes": hashed,
        "orphans": sorted(set(present) - set(named)),
    }


def _named(store: Store, problems: list[str]) -> dict[str, tuple[int | None, str, str]]:
    """Key -> (bytes, SHA-256, what to do if it is not so) of all that manifests and commits name."""
    named: dict[str, tuple[int | None, str, str]] = {}
    for entry in store.list(layout.COMMITS):
        try:
            commit = load_commit(store, entry.key)
        except DataError as error:
            problems.append(str(error))
            continue
        if commit is not None:
            cure = f"delete {store.url(entry.key)} and run preprocess again to remake it"
            named[commit.ref.key] = (commit.ref.bytes, commit.ref.sha256, cure)
    for manifest in _manifests(store):
        index = manifest.head["index"]
        cure = f"delete {store.url(layout.numbered_key(layout.MANIFESTS, manifest.version))} and run preprocess again"
        named[index["key"]] = (None, index["sha256"], cure)
        for stage in manifest.stages:
            for shard, ref in manifest.refs(stage).items():
                if store_key := _uncommitted(named, stage, shard, ref):
                    problems.append(f"{store.url(store_key)}, which version {manifest.version} names, is gone; {cure}")
                    named[ref.key] = (ref.bytes, ref.sha256, cure)
    return named


def _uncommitted(named: Mapping[str, Any], stage: str, shard: int, ref: ShardRef) -> str:
    return "" if ref.key in named else layout.commit_key(stage, shard, ref.fingerprint)


def _manifests(store: Store) -> Iterator[Manifest]:
    for version in versions(store):
        yield load_manifest(store, version)


def _hash(store: Store, key: str) -> tuple[int, str]:
    digest, length = hashlib.sha256(), 0
    with store.open(key) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            length += len(piece)
    return length, digest.hexdigest()


# --- gc


def gc(store: Store, grace_s: float, dry_run: bool = False) -> dict[str, Any]:
    """Delete what no version needs and no run may be about to need.

    Kept: manifests and all they name; the newest plan; anything younger than ``grace_s``; and every commit newer than
    the newest manifest while any such commit or attempt is younger than ``grace_s``, since a run is then under way.

    Returns:
        ``objects`` and ``bytes`` deleted (or that would be), and their ``keys``.
    """
    now = time.time()
    entries = [e for folder in _COLLECTED for e in store.list(folder, unfinished=True)]
    kept = _referenced(store) | _under_way(store, entries, now - grace_s)
    gone = [e for e in entries if e.key not in kept and e.modified < now - grace_s]
    if not dry_run:
        for entry in gone:
            _delete_if_unchanged(store, entry)
    return {"objects": len(gone), "bytes": sum(e.size for e in gone), "keys": [e.key for e in gone]}


_COLLECTED = (layout.COMMITS, layout.DATA, layout.ATTEMPTS, layout.INDEXES, layout.PLANS, layout.MANIFESTS)


def _delete_if_unchanged(store: Store, entry: Entry) -> None:
    """A writer may have made the object young again since it was listed."""
    now = store.entry(entry.key)
    if now is not None and now.modified == entry.modified:
        store.delete(entry.key)


def _referenced(store: Store) -> set[str]:
    kept: set[str] = set()
    for manifest in _manifests(store):
        plan = manifest.head["plan"]
        kept |= {layout.numbered_key(layout.MANIFESTS, manifest.version), manifest.head["index"]["key"]}
        kept |= {plan["items"], layout.numbered_key(layout.PLANS, plan["version"])}
        for stage in manifest.stages:
            for shard, ref in manifest.refs(stage).items():
                kept |= {ref.key, layout.commit_key(stage, shard, ref.fingerprint)}
    newest = plans.latest(store)
    if newest is not None:
        kept |= {newest.items_key, layout.numbered_key(layout.PLANS, newest.version)}
    return kept


def _under_way(store: Store, entries: list[Entry], horizon: float) -> set[str]:
    """Commits and tars of a run that has not published yet."""
    versions = [e.modified for e in entries if e.key.startswith(layout.MANIFESTS)]
    published = max(versions, default=0.0)
    commits = [e for e in entries if e.key.startswith(layout.COMMITS) and e.modified >= published]
    attempts = [e for e in entries if e.key.startswith(layout.ATTEMPTS)]
    kept: set[str] = set()
    if any(e.modified >= horizon for e in [*commits, *attempts]):
        for entry in commits:
            commit = load_commit(store, entry.key)
            kept |= {entry.key, commit.ref.key} if commit else set()
    return kept
