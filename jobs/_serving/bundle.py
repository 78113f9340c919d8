"""The files of a registered model: everything beyond code and backbone that drawing its identities needs.

==============================  ======================================================================================
``recipe.yaml``                 the recipe that the adapters were made with, resolved
``adapters/``                   a set as ``personalize`` writes it, of these identities alone
``inputs/<unit>.safetensors``   what conditioning may read of each identity: its photos as PNG, CLIP features, masks
``module/module.safetensors``   the pre-trained module, for methods that have one
``record.json``                 what made it; written last
==============================  ======================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property

import torch
from safetensors import safe_open
from torch import Tensor

from e4t_core.errors import UsageError, nearest
from e4t_core.images import decode_image, encode_png
from e4t_core.methods.base import Adapter, Identity
from e4t_core.record import RECORD_KEY, Record
from e4t_core.storage import Store
from e4t_core.training.artifacts import save_tensors
from jobs._adapter_set import AdapterSet, pack, photos_of
from jobs._people import Chosen, identity_seed, load_identities, rows_of
from jobs._run_folder import MODULE
from jobs._units import Unit, commit, publish
from pipelines.loader import ShardDataset
from pipelines.shards.keys import sample_key

RECIPE, RECORD, ADAPTERS, INPUTS, CHECKPOINT = "recipe.yaml", "record.json", "adapters", "inputs", "module"


def write(
    store: Store,
    adapters: AdapterSet,
    identities: Sequence[str],
    dataset: ShardDataset,
    checkpoint: Store | None,
    record: Record,
) -> Iterator[int]:
    """Write a bundle, a unit of adapters at a time; yields the number of identities in each.

    Args:
        identities: those that it can draw.
        dataset: the shards that they were personalized from.
        checkpoint: of the pre-trained module; None for methods without.
        record: with the recipe that the model loads.

    Raises:
        UsageError: an identity's personalization failed, or the shards are not those that it was made from.
        DataError: something is missing or damaged.
    """
    store.write_json(RECIPE, record.recipe)
    if checkpoint is not None:
        store.put(f"{CHECKPOINT}/{MODULE}", checkpoint.read(MODULE))
    place, commits, rows = store / ADAPTERS, {}, []
    for number, names in sorted(_by_unit(adapters, identities).items()):
        made = {name: adapters.read(name) for name in names}
        data, sizes = pack(made, record)
        unit = Unit("adapters", number, record.recipe_hash, tuple(names))
        commits[number] = commit(place, unit, {"safetensors": data}, {})
        rows += [{**adapters.facts(name), **sizes[name]} for name in names]
        _write_inputs(store, number, _identities(adapters, names, dataset), record)
        yield len(names)
    about = {"kind": "adapters", "method": adapters.manifest["method"], "recipe": record.recipe}
    about |= {"recipe_hash": record.recipe_hash, "inputs": record.inputs, "identities": len(rows), "failed": {}}
    publish(place, commits, rows, adapters.table.schema, about)
    store.write_json(RECORD, asdict(record))


def _by_unit(adapters: AdapterSet, identities: Sequence[str]) -> dict[int, list[str]]:
    units: dict[int, list[str]] = {}
    for identity in identities:
        units.setdefault(adapters.facts(identity)["unit"], []).append(identity)
    return units


def _identities(adapters: AdapterSet, names: Sequence[str], dataset: ShardDataset) -> list[Identity]:
    """As ``generate`` gives them to conditioning."""
    photos = {name: tuple(photos_of(adapters.facts(name))) for name in names}
    rows = rows_of(dataset, [key for keys in photos.values() for key in keys])
    chosen = [Chosen(name, keys, tuple(rows[key] for key in keys)) for name, keys in photos.items()]
    return load_identities(dataset, chosen, seed=0)  # the bundle's recipe has the seed


def _write_inputs(store: Store, unit: int, identities: Sequence[Identity], record: Record) -> None:
    tensors = {
        f"{sample_key(identity.id)}/{name}": tensor
        for identity in identities
        for name, tensor in _stored(identity).items()
    }
    save_tensors(store, f"{INPUTS}/{unit:06d}.safetensors", tensors, {RECORD_KEY: record.to_json()})


def _stored(identity: Identity) -> dict[str, Tensor]:
    """An identity's tensors in the exact widths that shards have them in."""
    out = {"clip_cls": identity.clip_cls_NLD.half()}
    if identity.clip_tokens_NTD is not None:
        out["clip_tokens"] = identity.clip_tokens_NTD.half()
    if identity.masks_N1HW is not None:
        out["masks"] = identity.masks_N1HW.mul(255).round().to(torch.uint8)
    for number, image_3HW in enumerate(identity.images_N3HW):
        out[f"images/{number}"] = torch.frombuffer(bytearray(encode_png(image_3HW)), dtype=torch.uint8)
    return out


class Bundle:
    """A bundle in a local folder, for reading. Identities are read one at a time.

    Attributes:
        adapters: of its identities.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.adapters = AdapterSet.open(store.url(ADAPTERS))

    @cached_property
    def identities(self) -> list[str]:
        """Names of those it can draw."""
        return self.adapters.chosen(None)

    @property
    def recipe(self) -> str:
        """URI of its recipe."""
        return self.store.url(RECIPE)

    @property
    def checkpoint(self) -> str | None:
        """Folder of its pre-trained module; None for methods without."""
        return self.store.url(CHECKPOINT) if self.store.exists(f"{CHECKPOINT}/{MODULE}") else None

    def clip_dims(self) -> tuple[int, int]:
        """(levels, width) of the CLIP features."""
        _, levels, width = self.identity(self.identities[0], 0).clip_cls_NLD.shape
        return levels, width

    def read(self, identity: str, seed: int) -> tuple[Adapter, Identity]:
        """An identity's adapter and inputs.

        Args:
            seed: the recipe's.

        Raises:
            UsageError: it is not in this model; the nearest is named.
            DataError: damaged.
        """
        if identity not in self.identities:
            raise UsageError(f"this model has no identity '{identity}'{nearest(identity, self.identities[:50])}")
        return self.adapters.read(identity), self.identity(identity, seed)

    def identity(self, identity: str, seed: int) -> Identity:
        """An identity's inputs."""
        unit, prefix = self.adapters.facts(identity)["unit"], f"{sample_key(identity)}/"
        with (
            self.store.as_local(f"{INPUTS}/{unit:06d}.safetensors") as path,
            safe_open(path, framework="pt") as file,
        ):
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            stored = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        return _restored(identity, stored, identity_seed(seed, identity))


def _restored(identity: str, stored: Mapping[str, Tensor], seed: int) -> Identity:
    pictures = sum(name.startswith("images/") for name in stored)
    images = [decode_image(stored[f"images/{n}"].numpy().tobytes()) for n in range(pictures)]
    masks, tokens = stored.get("masks"), stored.get("clip_tokens")
    return Identity(
        id=identity,
        images_N3HW=torch.stack(images),
        clip_cls_NLD=stored["clip_cls"].float(),
        masks_N1HW=None if masks is None else masks.float().div(255.0),
        seed=seed,
        clip_tokens_NTD=None if tokens is None else tokens.float(),
    )
