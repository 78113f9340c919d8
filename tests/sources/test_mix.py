"""A mix: several datasets as one, each with its share of what training draws."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from e4t_core.errors import CheckpointMismatch, DataError, UsageError
from e4t_core.storage import Store
from jobs import _recipe
from pipelines.loader import ShardDataset, ShardLoader
from pipelines.sources import Source
from pipelines.stages.ingest import Ingest
from tests.shards.fakes import MODELS
from tests.shards.support import build
from tests.support.corpus import encoded, quadrants
from tests.support.sources import open_source


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Two datasets that use the same names for other people."""
    found = {}
    for part, people in {"faces": ("ann", "bob"), "general": ("ann", "tree", "sea")}.items():
        for name in people:
            for i in range(2):
                path = tmp_path / part / name / f"{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded(quadrants(width=40 + i, height=40), "JPEG"))
        found[part] = tmp_path / part
    return found


def mixed(folders: dict[str, Path], shares: dict[str, float] | None = None, **fields: Any) -> Source:
    parts = {part: {"name": "image_folder", "path": str(path)} for part, path in folders.items()}
    return open_source("mix", parts=parts, shares=shares or dict.fromkeys(parts, 0.5), **fields)


def test_ids_and_identities_carry_their_part(folders: dict[str, Path]) -> None:
    items = {item.id: item for item in mixed(folders).items()}
    assert len(items) == 10
    ann = [items[f"{part}/ann/0.jpg"] for part in folders]
    assert [i.labels["part"] for i in ann] == ["faces", "general"]
    assert len({i.labels["identity"] for i in ann}) == 2


def test_each_part_reads_its_own_item(folders: dict[str, Path]) -> None:
    source = mixed(folders)
    for item in source.items():
        part, _, rest = item.id.partition("/")
        assert source.read(item).image == (folders[part] / rest).read_bytes()


def test_limits_hold_for_a_part_and_for_the_whole(folders: dict[str, Path]) -> None:
    parts = {"a": {"name": "image_folder", "path": str(folders["faces"]), "limit": 1}}
    parts["b"] = {"name": "image_folder", "path": str(folders["general"])}
    source = open_source("mix", parts=parts, shares={"a": 1, "b": 1})
    assert Counter(item.labels["part"] for item in source.items()) == {"a": 1, "b": 6}
    assert [item.id for item in source.items(2)] == ["a/ann/0.jpg", "b/ann/0.jpg"]


def test_an_empty_part_is_named(folders: dict[str, Path]) -> None:
    parts = {part: {"name": "image_folder", "path": str(path)} for part, path in folders.items()}
    parts["faces"]["limit"] = 0  # type: ignore[assignment]
    with pytest.raises(DataError, match="part 'faces' of the mix has no items"):
        list(open_source("mix", parts=parts, shares={"faces": 1, "general": 1}).items())


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"parts": {}, "shares": {}}, "parts"),
        ({"parts": {"a": {"name": "tiny_world"}}, "shares": {}}, "shares name no part; the parts are a"),
        ({"parts": {"a": {"name": "tiny_world"}}, "shares": {"a": 0}}, "all 0"),
        ({"parts": {"a": {"name": "tiny_world"}}, "shares": {"a": -1}}, "shares.a"),
        ({"parts": {"a/b": {"name": "tiny_world"}}, "shares": {"a/b": 1}}, "without '/'"),
        ({"parts": {"a": {"name": "mix"}}, "shares": {"a": 1}}, "part 'a' needs a section with the name of its source"),
        ({"parts": {"a": {"name": "tiny_word"}}, "shares": {"a": 1}}, "did you mean 'tiny_world'"),
        ({"parts": {"a": {"name": "lfw", "min_imags": 1}}, "shares": {"a": 1}}, "did you mean 'min_images'"),
        ({"path": "/x", "parts": {"a": {"name": "tiny_world"}}, "shares": {"a": 1}}, "no path of its own"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_source("mix", **section)


def test_a_recipe_has_it_and_a_share_can_be_set(folders: dict[str, Path], tmp_path: Path) -> None:
    text = "extends: tiny\nname: joint\nsource:\n  name: mix\n  parts:\n"
    text += "".join(f"    {part}: {{name: image_folder, path: {path}}}\n" for part, path in folders.items())
    (tmp_path / "joint.yaml").write_text(text + "  shares: {faces: 0.7, general: 0.3}\n")
    recipe = _recipe.load(str(tmp_path / "joint.yaml"), ["source.shares.general=0"])
    assert recipe.dump()["source"]["shares"] == {"faces": 0.7, "general": 0}
    assert recipe.dump()["source"]["parts"]["faces"]["path"] == str(folders["faces"])
    assert len(list(recipe.build_source().items())) == 10


def test_training_draws_by_share_from_one_store_and_a_new_share_remakes_nothing(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    stages = [Ingest(Ingest.Config(size=32), MODELS)]
    build(store, mixed(folders), stages)
    manifest, made = build(store, mixed(folders, {"faces": 0.9, "general": 0.1}), stages)
    assert (manifest.version, made) == (1, [])
    dataset = ShardDataset.open(store.uri)
    assert {part: len(rows) for part, rows in dataset.parts().items()} == {"faces": 4, "general": 6}
    loader = ShardLoader(dataset, ("ingest",), 10, 0, shares={"faces": 0.9, "general": 0.1})
    ids = [i for batch in islice(iter(loader), 100) for i in batch["ids"]]
    assert Counter(i.split("/")[0] for i in ids) == {"faces": 900, "general": 100}


def test_a_checkpoint_of_other_shares_is_refused_and_so_is_a_store_without_parts(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    stages = [Ingest(Ingest.Config(size=32), MODELS)]
    build(Store(tmp_path / "mix"), mixed(folders), stages)
    build(Store(tmp_path / "plain"), open_source("image_folder", folders["faces"]), stages)
    dataset = ShardDataset.open(str(tmp_path / "mix"))
    state = ShardLoader(dataset, ("ingest",), 2, 0, shares={"faces": 1, "general": 1}).state_dict()
    other = ShardLoader(dataset, ("ingest",), 2, 0, shares={"faces": 1, "general": 0})
    with pytest.raises(CheckpointMismatch, match="shares"):
        other.load_state_dict(state)
    with pytest.raises(UsageError, match="has no parts to share out"):
        ShardLoader(ShardDataset.open(str(tmp_path / "plain")), ("ingest",), 2, 0, shares={"faces": 1})
