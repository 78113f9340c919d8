"""Samples out of committed tars by range reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from e4t_core.errors import DataError
from e4t_core.schema import Sample
from e4t_core.storage import Store
from pipelines.shards import tar
from pipelines.shards.commit import Commit, ShardRef, committed
from pipelines.shards.plan import read_items
from pipelines.shards.tar import Span
from pipelines.sources.base import Source

_MAX_READ = 32 << 20
"""Neighbours are read together up to so many bytes."""


class Located(NamedTuple):
    """One sample of one column: its key, the tar it is in, and where."""

    key: str
    tar: str
    span: Span


@dataclass(frozen=True)
class Batch:
    """Samples as a stage takes them, and their ids."""

    ids: list[str]
    samples: list[Sample]


def read_samples(store: Store, wanted: Sequence[Located]) -> list[dict[str, bytes]]:
    """Members of each sample, in the order asked; samples that lie side by side are fetched in one read.

    Raises:
        DataError: a tar is missing, or its bytes are not those that were committed.
    """
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i].tar, wanted[i].span.offset))
    runs: list[list[int]] = []
    for i in order:
        if runs and _adjoins(wanted[runs[-1][0]], wanted[runs[-1][-1]], wanted[i]):
            runs[-1].append(i)
        else:
            runs.append([i])
    ranges = [
        (wanted[r[0]].tar, wanted[r[0]].span.offset, wanted[r[-1]].span.offset + wanted[r[-1]].span.size) for r in runs
    ]
    try:
        fetched = store.read_ranges(ranges)
    except FileNotFoundError as error:
        raise DataError(
            f"{store.uri}: a committed tar is missing ({error}); `python -m jobs shards verify {store.uri}` says what "
            "to do"
        ) from error
    out: list[dict[str, bytes]] = [{} for _ in wanted]
    for run, (_, start, _), data in zip(runs, ranges, fetched, strict=True):
        for i in run:
            at = wanted[i].span.offset - start
            part = data[at : at + wanted[i].span.size]
            out[i] = tar.members(part, wanted[i].span, f"sample '{wanted[i].key}' in {store.url(wanted[i].tar)}")
    return out


def _adjoins(first: Located, last: Located, new: Located) -> bool:
    end = new.span.offset + new.span.size
    return (
        new.tar == last.tar
        and new.span.offset == last.span.offset + last.span.size
        and end - first.span.offset <= _MAX_READ
    )


def source_batches(store: Store, source: Source, items_key: str, group: int, size: int) -> Iterator[Batch]:
    """A planned shard's items as samples for a stage that reads the source, in key order."""
    items = read_items(store, items_key, group)
    for at in range(0, len(items), size):
        part = items[at : at + size]
        samples = [{"__key__": key, "__item__": item, "__source__": source} for key, item in part]
        yield Batch([item.id for _, item in part], samples)


def column_batches(store: Store, shard: int, upstream: dict[str, ShardRef], size: int) -> Iterator[Batch]:
    """Samples that every stage in ``upstream`` has, with all their members, in key order.

    Raises:
        DataError: an upstream commit or tar is gone or damaged.
    """
    commits = [committed(store, stage, shard, ref) for stage, ref in upstream.items()]
    keys = sorted(set.intersection(*(set(commit.samples) for commit in commits)))
    for at in range(0, len(keys), size):
        yield _joined(store, commits, keys[at : at + size])


def ahead(batches: Iterator[Batch], prepare: Callable[[Sequence[Sample]], None]) -> Iterator[Batch]:
    """The same batches, each read and prepared in a thread while the one before it is in use.

    What ``prepare`` raises is left to the stage, which meets it again when it is called with what was not prepared: its
    error is told with the sample's name.
    """

    def following() -> Batch | None:
        batch = next(batches, None)
        if batch is not None:
            with contextlib.suppress(Exception):
                prepare(batch.samples)
        return batch

    with ThreadPoolExecutor(1, thread_name_prefix="shard-reader") as reader:
        pending = reader.submit(following)
        while batch := pending.result():
            pending = reader.submit(following)
            yield batch


def _joined(store: Store, commits: Sequence[Commit], keys: Sequence[str]) -> Batch:
    wanted = [Located(key, c.ref.key, c.samples[key][1]) for c in commits for key in keys]
    found = read_samples(store, wanted)
    samples: list[Sample] = [{"__key__": key} for key in keys]
    for i, members in enumerate(found):
        samples[i % len(keys)].update(members)
    return Batch([commits[0].samples[key][0] for key in keys], samples)
