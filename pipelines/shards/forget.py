"""Takes samples out of a store for good: their shards are written anew without them, and the versions that hold them
are withdrawn. Nothing is computed: the other samples' bytes are copied, and their commits are those that a run without
the forgotten samples would find.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import pyarrow as pa

from e4t_core.errors import UsageError
from e4t_core.storage import Store
from pipelines.shards import forgotten, layout
from pipelines.shards import plan as plans
from pipelines.shards.commit import Inputs, ShardRef, committed, shard_fingerprint
from pipelines.shards.manifest import Manifest, describe, load_index, load_manifest, propose, versions
from pipelines.shards.plan import Plan, PlannedShard
from pipelines.shards.reading import Located, read_samples
from pipelines.shards.tar import Writer
from pipelines.shards.work import publish_shard

_AT_ONCE = 64
_NAMED = 3


@dataclass(frozen=True)
class Forgetting:
    """What forgetting does, or would do.

    Attributes:
        samples: ids that a version still holds.
        shards: planned shards of the newest version that hold one.
        withdrawn: versions that no one may read any more.
        version: the one to read instead; None before it is published.
    """

    samples: int
    shards: int
    withdrawn: list[int]
    version: int | None = None


def would_forget(store: Store, ids: Iterable[str]) -> Forgetting:
    """What :func:`forget` would do; writes nothing.

    Raises:
        DataError: nothing is published there.
        UsageError: an id that the store has never held, or nothing would be left.
    """
    wanted = set(ids)
    newest, holding = load_manifest(store), _holding(store, {forgotten.digest(i) for i in wanted})
    _refuse_unknown(store, wanted, holding)
    going = holding[newest.version]["shard"].to_pylist() if newest.version in holding else []
    if len(going) == newest.head["planned"]:
        raise UsageError(f"these are all {len(going)} samples of {store.uri}: delete the whole store instead")
    held = {sample_id for rows in holding.values() for sample_id in rows["id"].to_pylist()}
    return Forgetting(len(held), len(set(going)), sorted(holding))


def forget(store: Store, ids: Iterable[str]) -> Forgetting:
    """Publish a version without ``ids`` and withdraw those that have them; ``gc`` then deletes the bytes.

    A run that lists the same source later leaves them out. Safe to kill and to repeat.

    Raises:
        DataError: nothing is published there, or a tar to be copied is damaged.
        UsageError: an id that the store has never held, or nothing would be left.
    """
    wanted = set(ids)
    found = would_forget(store, wanted)
    gone, published = forgotten.remember(store, wanted), None
    while published is None:
        newest = load_manifest(store)
        touched = set(_rows(store, newest, gone)["shard"].to_pylist())
        published = _republish(store, newest, gone, touched) if touched else newest
    newest_plan = plans.latest(store)
    if newest_plan is not None:  # a run that is under way plans more than is published
        plans.without(store, newest_plan.version, gone)
    for version, rows in _holding(store, gone).items():
        forgotten.withdraw(store, version, published.version, rows.num_rows)
    return replace(found, version=published.version)


# --- who is where


def _holding(store: Store, gone: forgotten.Digests) -> dict[int, pa.Table]:
    """Version -> its index rows of forgotten samples, for versions that have any."""
    found = {v: _rows(store, load_manifest(store, v), gone) for v in versions(store)}
    return {version: rows for version, rows in found.items() if rows.num_rows}


def _rows(store: Store, manifest: Manifest, gone: forgotten.Digests) -> pa.Table:
    index = load_index(store, manifest).select(["id", "shard"])
    return index.filter(pa.array(forgotten.among(index["id"], gone)))


def _refuse_unknown(store: Store, wanted: set[str], holding: Mapping[int, pa.Table]) -> None:
    gone = forgotten.digests(store)
    held = {sample_id for rows in holding.values() for sample_id in rows["id"].to_pylist()}
    unknown = sorted(i for i in wanted - held if forgotten.digest(i) not in gone)
    if not wanted or unknown:
        names = ", ".join(map(repr, unknown[:_NAMED])) + (", ..." if len(unknown) > _NAMED else "")
        what = f"{len(unknown)} of the ids are in no version of {store.uri}: {names}" if unknown else "no ids"
        raise UsageError(f"{what}; give sample ids as the column 'id' of the index has them; nothing was changed")


# --- the version without them


def _republish(store: Store, newest: Manifest, gone: forgotten.Digests, touched: Set[int]) -> Manifest | None:
    """The version that follows ``newest``, with the ``touched`` shards written anew; None if somebody else published
    one meanwhile."""
    plan = plans.without(store, newest.head["plan"]["version"], gone)
    planned = {shard.number: shard for shard in plan.shards()}
    refs: dict[str, dict[int, ShardRef]] = {stage: {} for stage in newest.stages}
    for stage in newest.stages:
        for number, ref in newest.refs(stage).items():
            if number not in touched:
                refs[stage][number] = ref
            elif number in planned:  # else all of it is forgotten
                refs[stage][number] = _rewritten(store, newest, stage, plan, planned[number], refs)
    return propose(store, newest, plan, describe(newest.head["stages"], refs), refs, newest.head["recipe"])


def _rewritten(
    store: Store,
    newest: Manifest,
    stage: str,
    plan: Plan,
    shard: PlannedShard,
    refs: Mapping[str, Mapping[int, ShardRef]],
) -> ShardRef:
    """One shard of one column, committed without the samples that ``plan`` has no more."""
    old = committed(store, stage, shard.number, newest.refs(stage)[shard.number])
    reads: Sequence[str] = newest.head["stages"][stage]["reads"]
    inputs = Inputs(
        items="" if reads else plan.inputs(shard),
        upstream={name: refs[name][shard.number].sha256 for name in reads},
        retry=old.ref.inputs.retry,
    )
    fingerprint = shard_fingerprint(old.stage, inputs)
    stay = set(plan.table["key"].slice(shard.start, shard.samples).to_pylist())
    keys = [key for key in old.samples if key in stay]
    writer = Writer()
    for at in range(0, len(keys), _AT_ONCE):
        part = keys[at : at + _AT_ONCE]
        wanted = [Located(key, old.ref.key, old.samples[key][1]) for key in part]
        for key, members in zip(part, read_samples(store, wanted), strict=True):
            writer.add(key, members)
    tar = writer.finish()
    bad = tuple(q for q in old.quarantined if q.key in stay)
    share = (len(keys) + len(bad)) / (old.ref.n_ok + old.ref.n_bad)
    data = layout.data_key(stage, shard.number, tar.sha256)
    commit = replace(
        old,
        ref=ShardRef(fingerprint, inputs, data, tar.sha256, len(tar.data), len(keys), len(bad)),
        samples={key: (old.samples[key][0], span) for key, span in tar.spans.items()},
        quarantined=bad,
        facts={key: figures for key, figures in old.facts.items() if key in stay},
        # what those that stay have cost, so that estimates hold
        seconds={device: seconds * share for device, seconds in old.seconds.items()},
        waited=old.waited * share,
        finished=old.started + (old.finished - old.started) * share,
    )
    return publish_shard(store, commit, tar)
