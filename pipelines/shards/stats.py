"""What a version of a store holds, in numbers: columns and what they took, identities, labels, captions, quarantine.

Only captions are read out of tars, a shard at a time; the rest is in the manifest, its index and the commits.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from e4t_core.schema import decode_json
from e4t_core.storage import Store
from pipelines.loader import ShardDataset
from pipelines.shards._labels import labels, ranked
from pipelines.shards.commit import all_committed
from pipelines.shards.manifest import Manifest, load_index, load_manifest
from pipelines.shards.quality import Quality

SCHEMA = 1
_EXAMPLES = 5


def measure(
    store: Store, version: int | None = None, top: int = 20, on_shard: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """All numbers of one version, as JSON values.

    Args:
        top: most values of a histogram that are named; the others are counted together.
        on_shard: told of every shard whose captions were read.

    Returns:
        ``planned``, ``samples``, ``quarantined``, ``shards``, ``bytes``; ``columns`` (see :func:`_columns`);
        ``identities``, ``labels``, ``captions`` of the good samples; ``quarantine`` by stage and reason.

    Raises:
        DataError: nothing is committed there, or it is damaged.
        UsageError: no such version.
    """
    dataset = ShardDataset(store, version)
    manifest = load_manifest(store, dataset.version)
    head = manifest.head
    columns = _columns(store, manifest)
    return {
        "schema": SCHEMA,
        "uri": store.uri,
        "version": manifest.version,
        "created": head["created"],
        "index": head["index"]["sha256"],
        "recipe": {k: head["recipe"].get(k) for k in ("name", "hash")},
        "source": (head["recipe"].get("source") or {}).get("name"),
        "planned": head["planned"],
        "samples": head["samples"],
        "quarantined": head["quarantined"],
        "shards": len({n for stage in manifest.stages for n in manifest.refs(stage)}),
        "bytes": sum(column["bytes"] for column in columns.values()),
        "columns": columns,
        "identities": _identities(dataset.table["identity"], top),
        "labels": labels(dataset.table["labels_json"], top),
        "captions": _captions(dataset, top, on_shard) if "caption" in dataset.columns and len(dataset) else None,
        "quarantine": _quarantine(load_index(store, manifest), manifest.stages),
    }


# --- columns


def _columns(store: Store, manifest: Manifest) -> dict[str, Any]:
    """Stage -> ``shards``, ``samples``, ``quarantined``, ``bytes``; from the commits, ``seconds`` of computing per
    device, ``waited`` for inputs, ``samples_per_s`` of one worker while it computes, ``quality`` (see
    :meth:`Quality.summary`); ``version``, ``settings`` and ``weights`` of what made it."""
    return {stage: _column(store, manifest, stage) for stage in manifest.stages}


def _column(store: Store, manifest: Manifest, stage: str) -> dict[str, Any]:
    refs, about = manifest.refs(stage), manifest.head["stages"][stage]
    seconds, waited, found = dict[str, float](), 0.0, Quality()
    for commit in all_committed(store, stage, refs):
        for device, took in commit.seconds.items():
            seconds[device] = seconds.get(device, 0.0) + took
        waited += commit.waited
        found.add(commit)
    good, bad = sum(ref.n_ok for ref in refs.values()), sum(ref.n_bad for ref in refs.values())
    computed = sum(seconds.values())
    return {
        "shards": len(refs),
        "samples": good,
        "quarantined": bad,
        "bytes": sum(ref.bytes for ref in refs.values()),
        "seconds": dict(sorted(seconds.items())),
        "waited": waited,
        "samples_per_s": (good + bad) / computed if computed else None,
        "quality": found.summary(),
        **{name: about[name] for name in ("version", "settings", "weights")},
    }


# --- samples


def _identities(column: pa.ChunkedArray, top: int) -> dict[str, Any]:
    """``count`` of identities, samples ``without`` one, the ``largest``, and ``images``: ``[images, identities]``."""
    counts = {row["values"]: row["counts"] for row in pc.value_counts(column.drop_null()).to_pylist()}
    return {
        "count": len(counts),
        "without": column.null_count,
        **ranked(counts, top),
        "images": sorted([n, count] for n, count in Counter(counts.values()).items()),
    }


def _captions(dataset: ShardDataset, top: int, on_shard: Callable[[], object]) -> dict[str, Any]:
    """``distinct`` captions, the ``largest`` groups of equal ones, and their lengths: ``words`` and ``characters``,
    each ``[length, captions]``."""
    words, characters, hashes = Counter[int](), Counter[int](), list[np.ndarray]()
    for rows in dataset.shard_rows().values():
        texts = _texts(dataset, rows)
        words.update(len(text.split()) for text in texts)
        characters.update(len(text) for text in texts)
        hashes.append(np.array([_hash(text) for text in texts], np.uint64))
        on_shard()
    # eight bytes a caption instead of its text: a dataset may have as many captions as samples
    _, first, counts = np.unique(np.concatenate(hashes), return_index=True, return_counts=True)
    most = np.lexsort((first, -counts))[:top]
    texts = _texts(dataset, first[most].tolist())
    return {
        "samples": len(dataset),
        "distinct": len(counts),
        "largest": [[text, int(n)] for text, n in zip(texts, counts[most], strict=True)],
        "others": {"values": len(counts) - len(most), "samples": len(dataset) - int(counts[most].sum())},
        "words": sorted([n, count] for n, count in words.items()),
        "characters": sorted([n, count] for n, count in characters.items()),
    }


def _texts(dataset: ShardDataset, rows: Sequence[int]) -> list[str]:
    samples = dataset.samples(rows, ["caption"])
    return [decode_json(s["caption.json"], f"caption of '{s['__id__']}'")["text"] for s in samples]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


# --- quarantine


def _quarantine(index: pa.Table, stages: Sequence[str]) -> list[dict[str, Any]]:
    """``stage``, ``reason``, ``count`` and a few ``examples`` (``id``, ``message``); the most frequent first.

    The stage is the first that has no output for the sample: the index keeps the reason of that one.
    """
    names = ["id", "reason", "message", *(f"{stage}.offset" for stage in stages)]
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    counts = Counter[tuple[str, str]]()
    for row in index.filter(pc.equal(index["status"], "quarantined")).select(names).to_pylist():
        stage = next(s for s in stages if row[f"{s}.offset"] is None)
        counts[stage, row["reason"]] += 1
        examples = found.setdefault((stage, row["reason"]), [])
        if len(examples) < _EXAMPLES:
            examples.append({"id": row["id"], "message": row["message"]})
    return [
        {"stage": stage, "reason": reason, "count": n, "examples": found[stage, reason]}
        for (stage, reason), n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
