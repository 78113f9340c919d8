"""LiDB weights on disk: small, exact, and refused where their numbers would mean something else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from e4t_core.adapters.lidb import LiDBConfig, Space, lidb_projections
from e4t_core.adapters.lidb_file import load_lidb, pack_layers, save_lidb, unpack_layers
from e4t_core.adapters.low_rank import low_rank_per_sample, merged
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.errors import CheckpointMismatch, DataError
from e4t_core.record import RECORD_KEY, Record
from e4t_core.storage import Store
from jobs._recipe import load

CONFIG = LiDBConfig(a=12, b=6, seed=4)
KEY = "people/ann.safetensors"
RECORD = Record.of("lidb", {"seed": 0}, facts={"identity": "ann"})
MOST_BYTES = 130_000
"""Of one identity at the size of Stable Diffusion 1.5."""


@pytest.fixture
def space(backbone: Backbone) -> Space:
    return Space.of(backbone, CONFIG)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def weights(space: Space) -> Tensor:
    return torch.randn(space.numbers, generator=torch.Generator().manual_seed(1))


def metadata_of(store: Store) -> dict[str, str]:
    with store.as_local(KEY) as path, safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def test_numbers_come_back_bit_for_bit(space: Space, store: Store) -> None:
    size = save_lidb(store, KEY, weights(space), space, RECORD)
    assert size == store.size(KEY)
    loaded_P, record = load_lidb(store, KEY, space)
    assert torch.equal(loaded_P, weights(space))
    assert record == RECORD
    about = metadata_of(store)
    assert (about["seed"], about["a"], about["b"]) == ("4", "12", "6")
    assert list(unpack_layers(about["layers"]).items()) == list(space.shapes.items())


def test_a_stored_identity_is_merged_and_taken_out_again(backbone: Backbone, space: Space, store: Store) -> None:
    save_lidb(store, KEY, weights(space), space, RECORD)
    loaded_P, _ = load_lidb(store, KEY, space)
    layers, projections = space.expand(space.unflat(loaded_P[None])), lidb_projections(backbone)
    ids = backbone.tokenize(["a photo of a person"])

    def text() -> Tensor:
        return backbone.encode_text(ids)

    plain = text()
    with low_rank_per_sample(projections, layers, torch.tensor([0])):
        beside = text()
    with merged(projections, layers):
        inside = text()
    torch.testing.assert_close(inside, beside, atol=2e-5, rtol=1e-4)
    assert (inside - plain).abs().max() > 0.1
    assert torch.equal(text(), plain)


def test_an_identity_of_stable_diffusion_15_is_under_130_kb(store: Store) -> None:
    space = Space.of(StableDiffusionBackbone.from_config("sd15"), LiDBConfig())
    vars(space)["checksum"] = -12345.678901  # in place of ten seconds of bases; it is one number of this length
    recipe = load("sd15").dump()
    inputs = dict.fromkeys(("shards", "checkpoint", "targets"), "s3://a-bucket/with/a/rather/long/prefix/of/a/run#12")
    record = Record.of("lidb", recipe, inputs=inputs, facts={"identity": "x" * 80, "seconds": 12.3456789012})
    size = save_lidb(store, KEY, torch.zeros(28_800), space, record)
    assert (len(space.shapes), space.numbers) == (192, 28_800)
    assert 4 * 28_800 < size <= MOST_BYTES
    loaded_P, stored = load_lidb(store, KEY, space)
    assert loaded_P.shape == (28_800,)
    assert stored.recipe == recipe


def test_layer_names_are_packed_without_loss_or_another_order() -> None:
    shapes = {"unet.b.1.q": (3, 4), "unet.b.1.k": (3, 5), "unet.b.1": (1, 2), "text.q": (7, 7), "unet.b.1.k.x": (9, 1)}
    text = pack_layers(shapes)
    assert text == "0 unet.b.1.q 3x4;3 k 3x5;2 1 1x2;0 text.q 7x7;0 unet.b.1.k.x 9x1"
    assert list(unpack_layers(text).items()) == list(shapes.items())


def test_other_bases_are_refused(backbone: Backbone, space: Space, store: Store) -> None:
    save_lidb(store, KEY, weights(space), space, RECORD)
    with pytest.raises(CheckpointMismatch, match=r"ann\.safetensors was made in other LiDB bases .* than seed 5 gives"):
        load_lidb(store, KEY, Space.of(backbone, CONFIG.model_copy(update={"seed": 5})))
    with pytest.raises(CheckpointMismatch, match=r"other sizes: a is 12 there and 10 here; b is 6 there and 6 here"):
        load_lidb(store, KEY, Space.of(backbone, CONFIG.model_copy(update={"a": 10})))


def test_other_layers_are_refused_by_name(space: Space, store: Store) -> None:
    save_lidb(store, KEY, weights(space), space, RECORD)
    first, *_, last = space.shapes
    fewer = {name: shape for name, shape in space.shapes.items() if name != last}
    with pytest.raises(CheckpointMismatch, match=rf"{last} is \(\d+, \d+\) there and absent here$"):
        load_lidb(store, KEY, Space(fewer, CONFIG))
    with pytest.raises(CheckpointMismatch, match=rf"{first} is \(\d+, \d+\) there and \(3, 3\) here$"):
        load_lidb(store, KEY, Space({**space.shapes, first: (3, 3)}, CONFIG))
    with pytest.raises(CheckpointMismatch, match="another order"):
        load_lidb(store, KEY, Space(dict(reversed(space.shapes.items())), CONFIG))
    with pytest.raises(CheckpointMismatch, match=rf"and {2 * len(space.shapes) - 3} more"):
        load_lidb(store, KEY, Space({f"{name}_": shape for name, shape in space.shapes.items()}, CONFIG))


def test_what_is_no_identity_is_not_written(space: Space, store: Store) -> None:
    with pytest.raises(ValueError, match=rf"are \(3,\); the space has \({space.numbers},\)"):
        save_lidb(store, KEY, torch.zeros(3), space, RECORD)
    diverged = weights(space)
    diverged[5] = float("nan")
    with pytest.raises(ValueError, match="1 numbers that are not finite"):
        save_lidb(store, KEY, diverged, space, RECORD)
    assert store.size(KEY) is None


def test_damaged_foreign_and_newer_files_are_refused(space: Space, store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*ann\.safetensors"):
        load_lidb(store, KEY, space)
    save_lidb(store, KEY, weights(space), space, RECORD)
    path, about, tensors = tmp_path / KEY, metadata_of(store), {"lidb": weights(space)}
    for change, message in rewritten(path, about, tensors):
        with pytest.raises(DataError, match=message):
            load_lidb(store, KEY, space)
        assert change


def rewritten(path: Path, about: dict[str, str], tensors: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Puts one bad file after the other in place; yields what is bad and what should be said of it."""
    save_file(tensors, path, {RECORD_KEY: about[RECORD_KEY]})
    yield "no LiDB weights", "holds no LiDB weights"
    save_file(tensors, path, {**about, "e4t_lidb": "2"})
    yield "a newer format", "has LiDB format 2; this e4t reads up to 1: upgrade e4t"
    save_file({"lidb": tensors["lidb"][:-1].clone()}, path, about)
    yield "a number missing", "is damaged: it holds"
    save_file({"lidb": tensors["lidb"].half()}, path, about)
    yield "another type", r"is damaged: it holds .* torch\.float16"
    path.write_bytes(path.read_bytes()[:-10])
    yield "cut off", "is not a whole safetensors file"
