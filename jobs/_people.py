"""Which identities a job works on, from which images of each, and with which seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import pyarrow.compute as pc

from e4t_core.errors import UsageError
from e4t_core.methods.base import Identity
from e4t_core.record import canonical_json
from e4t_core.schema import Sample
from jobs._sections import PersonalizeConfig
from pipelines.collate import collate
from pipelines.loader import ShardDataset
from pipelines.shards.manifest import load_index, load_manifest
from pipelines.sources.base import Source

T = TypeVar("T")


@dataclass(frozen=True)
class Chosen:
    """An identity and the images that it is learned from.

    Attributes:
        identity: its name.
        keys: sample keys of the images, in the order in which they were drawn.
        rows: their rows in the dataset.
        marks: of each image, CRC-32 of its sample in each column that is read: the content behind the key.
    """

    identity: str
    keys: tuple[str, ...]
    rows: tuple[int, ...]
    marks: tuple[tuple[int, ...], ...] = ()

    @property
    def content(self) -> list[str | int]:
        """What it is, for a fingerprint."""
        parts: list[str | int] = [self.identity]
        for key, marks in zip(self.keys, self.marks, strict=True):
            parts += [key, *marks]
        return parts


def stable_seed(*parts: str | int) -> int:
    """A seed in [0, 2^63) from what it is for; the same on every machine, unrelated between neighbours."""
    return int.from_bytes(hashlib.sha256(canonical_json(list(parts))).digest()[:8], "big") >> 1


def identity_seed(seed: int, identity: str) -> int:
    """What an identity's personalization draws from, whoever else is in its unit."""
    return stable_seed(seed, "identity", identity)


def image_seed(seed: int, identity: str, prompt: str, index: int) -> int:
    """What an image's initial noise is drawn from, whatever the method."""
    return stable_seed(seed, "image", identity, prompt, index)


def select(groups: Mapping[str, Sequence[T]], config: PersonalizeConfig, where: str) -> dict[str, Sequence[T]]:
    """The identities with ``min_images`` to ``max_images`` images, both included; the first ``max_identities`` of them.

    Raises:
        UsageError: there are none.
    """
    low, high = config.min_images, config.max_images
    fitting = {name: group for name, group in sorted(groups.items()) if low <= len(group) <= (high or len(group))}
    if not fitting:
        sizes = sorted({len(group) for group in groups.values()})
        has = f"{len(groups)} with {sizes[0]} to {sizes[-1]} images" if groups else "none: its samples have no identity"
        raise UsageError(
            f"no identity in {where} has {low} to {high or 'any number of'} images (identities there: {has}); set "
            "personalize.min_images and personalize.max_images, or a source that names identities"
        )
    return dict(list(fitting.items())[: config.max_identities])


def listed(source: Source, limit: int | None) -> dict[str, list[str]]:
    """Identity -> ids, from the source's listing alone; opens no image."""
    groups: dict[str, list[str]] = {}
    for item in source.items(limit):
        identity = item.labels.get("identity")
        if identity is not None:
            groups.setdefault(str(identity), []).append(item.id)
    return groups


def choose(dataset: ShardDataset, config: PersonalizeConfig, seed: int) -> list[Chosen]:
    """The selected identities, each with as many of its images as ``personalize.images`` says."""
    groups = select(dataset.identities(), config, f"{dataset.store.uri} version {dataset.version}")
    keys = dataset.table["key"].to_pylist()
    drawn = {
        identity: draw(identity, {keys[row]: row for row in group}, config, seed) for identity, group in groups.items()
    }
    marks = iter(_marks(dataset, [row for rows in drawn.values() for row in rows.values()]))
    return [
        Chosen(identity, tuple(rows), tuple(rows.values()), tuple(islice(marks, len(rows))))
        for identity, rows in drawn.items()
    ]


def draw(identity: str, images: Mapping[str, T], config: PersonalizeConfig, seed: int) -> dict[str, T]:
    """The images that an identity is learned from, by key. Their order depends on seed, identity and keys alone, so
    that fewer are the first of more."""
    ordered = sorted(images)
    first = ordered.pop(stable_seed(seed, "input", identity) % len(ordered))
    order = [first, *sorted(ordered, key=lambda key: stable_seed(seed, "input", identity, key))]
    shown = order[: len(order) - config.held_out]
    return {key: images[key] for key in (shown if config.images == "all" else shown[: config.images])}


def columns(dataset: ShardDataset) -> tuple[str, ...]:
    """The columns that a personalization reads; masks where there are any."""
    return ("ingest", "clip", *(c for c in ("mask",) if c in dataset.columns))


def _marks(dataset: ShardDataset, rows: Sequence[int]) -> list[tuple[int, ...]]:
    index = load_index(dataset.store, load_manifest(dataset.store, dataset.version))
    part = index.filter(pc.equal(index["status"], "ok")).take(rows)
    return list(zip(*(part[f"{column}.crc32"].to_pylist() for column in columns(dataset)), strict=True))


def load_identities(dataset: ShardDataset, chosen: Sequence[Chosen], seed: int) -> list[Identity]:
    """The identities with their images, masks and CLIP features."""
    wanted = columns(dataset)
    samples = iter(dataset.samples([row for one in chosen for row in one.rows], wanted))
    return [_identity(list(islice(samples, len(one.rows))), one, wanted, seed) for one in chosen]


def _identity(samples: Sequence[Sample], one: Chosen, wanted: Sequence[str], seed: int) -> Identity:
    batch = collate(samples, wanted)
    return Identity(
        id=one.identity,
        images_N3HW=batch["images"],
        clip_cls_NLD=batch["clip_cls"],
        masks_N1HW=batch.get("masks"),
        seed=identity_seed(seed, one.identity),
        clip_tokens_NTD=batch.get("clip_tokens"),
    )


def rows_of(dataset: ShardDataset, keys: Sequence[str]) -> dict[str, int]:
    """Key -> row.

    Raises:
        UsageError: a key is not there.
    """
    wanted = set(keys)
    found = {key: row for row, key in enumerate(dataset.table["key"].to_pylist()) if key in wanted}
    for key in keys:
        if key not in found:
            raise UsageError(
                f"{dataset.store.uri} version {dataset.version} has no sample '{key}', which an adapter was made from; "
                "give the --shards that personalize was given"
            )
    return found
