"""For each sample another image of its identity: which one, the same for any reader, and resumed exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import ClassVar

import numpy as np
import pytest

from e4t_core.errors import UsageError
from e4t_core.methods import References
from e4t_core.schema import Sample, encode_array
from e4t_core.storage import Store
from pipelines.loader import ShardDataset, ShardLoader
from pipelines.references import Partners
from pipelines.sources.base import PART, SourceItem
from tests.shards.fakes import FakeStage, FolderSource, Result, folder_source, make, people
from tests.shards.support import build
from tests.shards.test_loader import Caption, Clip, Column, Ingest

COUNT = 23
"""p00 to p06 have three images each, p07 has two."""
CLIP = References(("clip",))


class Faces(Column):
    """An embedding on the unit circle, at an angle of an eighth of the number in the file."""

    name: ClassVar[str] = "identity"
    writes: ClassVar[tuple[str, ...]] = ("identity.npy",)
    reads: ClassVar[tuple[str, ...]] = ("ingest",)

    def one(self, sample: Sample) -> Result:
        angle = json.loads(sample["meta.json"])["level"] / 8
        return {"identity.npy": encode_array(np.array([np.cos(angle), np.sin(angle)], np.float16))}


class Unlabelled(FolderSource):
    """Without identities, as two parts of a mix."""

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        for item in super().items(limit):
            yield replace(item, labels={PART: "faces" if item.id < "p04" else "general"})


def stages(*more: type[FakeStage]) -> list[FakeStage]:
    return [make(cls) for cls in (Ingest, Caption, Clip, *more)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    folder = tmp_path_factory.mktemp("references")
    people(folder / "src", COUNT)
    build(Store(folder / "store"), folder_source(folder / "src"), stages(), samples_per_shard=5)
    return ShardDataset.open(str(folder / "store"))


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    folder = tmp_path_factory.mktemp("unlabelled")
    people(folder / "src", COUNT)
    build(Store(folder / "store"), Unlabelled(folder_source(folder / "src").config), stages(Faces), samples_per_shard=5)
    return ShardDataset.open(str(folder / "store"))


def pairs(loader: ShardLoader, count: int) -> list[tuple[str, str]]:
    """(id, id of its partner), in order."""
    return [
        pair for batch in islice(iter(loader), count) for pair in zip(batch["ids"], batch["reference_ids"], strict=True)
    ]


def test_partners_are_others_of_the_same_identity(dataset: ShardDataset) -> None:
    loader = ShardLoader(dataset, ("caption",), 5, seed=3, references=CLIP)
    found = pairs(loader, 40)
    assert all(one[:3] == other[:3] and one != other for one, other in found)
    of_one = {other for one, other in found if one == "p00-000.txt"}
    assert of_one == {"p00-001.txt", "p00-002.txt"}  # either, as it is drawn
    batch = next(iter(loader))
    assert batch["reference_clip_cls"].shape == (5, 3, 4)
    assert "clip_cls" not in batch


def test_an_identity_with_one_image_is_its_own_partner(dataset: ShardDataset) -> None:
    partners = Partners(dataset, seed=0)
    partners._groups = {**partners._groups, "p00": [0]}
    assert {partners(at, 0) for at in range(20)} == {0}


def test_draws_are_even_and_decided_by_seed_and_position(dataset: ShardDataset) -> None:
    draws = [Partners(dataset, seed=0)(at, 0) for at in range(400)]
    assert set(draws) == {1, 2}
    assert 150 < draws.count(1) < 250
    assert draws == [Partners(dataset, seed=0)(at, 0) for at in range(400)]
    assert draws != [Partners(dataset, seed=1)(at, 0) for at in range(400)]


@pytest.mark.parametrize(("world", "size", "workers"), [(1, 4, 0), (2, 2, 2), (4, 1, 1)])
def test_ranks_and_threads_change_no_pair(dataset: ShardDataset, world: int, size: int, workers: int) -> None:
    alone = pairs(ShardLoader(dataset, ("caption",), 1, seed=5, workers=0, references=CLIP), 48)
    ranks = [
        pairs(ShardLoader(dataset, ("caption",), size, 5, rank, world, workers, references=CLIP), 48 // world // size)
        for rank in range(world)
    ]
    joined: list[tuple[str, str]] = []
    for step in range(48 // world // size):
        for rank in ranks:
            joined += rank[step * size : (step + 1) * size]
    assert joined == alone


def test_a_run_resumes_with_the_exact_pairs_and_other_workers(dataset: ShardDataset) -> None:
    whole = pairs(ShardLoader(dataset, ("caption",), 2, seed=5, references=CLIP), 20)
    first = ShardLoader(dataset, ("caption",), 2, seed=5, references=CLIP)
    begun = pairs(first, 7)
    state = json.loads(json.dumps(first.state_dict()))
    ranks = [ShardLoader(dataset, ("caption",), 1, 5, rank, 2, references=CLIP) for rank in (0, 1)]
    for rank in ranks:
        rank.load_state_dict(state)
    rest = [pairs(rank, 13) for rank in ranks]
    assert begun + [pair for both in zip(*rest, strict=True) for pair in both] == whole


def test_without_references_nothing_more_is_read(dataset: ShardDataset) -> None:
    batch = next(iter(ShardLoader(dataset, ("caption",), 2, seed=0)))
    assert not any(name.startswith("reference_") for name in batch)
    assert batch["parts"] == [None, None]
    with pytest.raises(UsageError, match="no column 'latent'"):
        ShardLoader(dataset, ("caption",), 2, seed=0, references=References(("latent",)))


def levels(dataset: ShardDataset, rows: Sequence[int]) -> list[int]:
    return [json.loads(s["meta.json"])["level"] for s in dataset.samples(rows, ["ingest"])]


def test_without_labels_the_nearest_face_is_the_partner(unlabelled: ShardDataset) -> None:
    everybody = range(len(unlabelled))
    angle = dict(zip(everybody, levels(unlabelled, everybody), strict=True))
    partners = Partners(unlabelled, seed=0, nearest=-1.0)
    for row in everybody:
        other = partners(7, row)
        gap = min(abs(angle[row] - angle[r]) for r in everybody if r != row)
        assert other != row
        assert abs(angle[row] - angle[other]) == gap
    assert {Partners(unlabelled, 0, nearest=0.999999)(0, row) == row for row in everybody} == {True}
    assert [Partners(unlabelled, 0)(0, row) for row in everybody] == list(everybody)


def test_parts_of_a_mix_are_in_the_batch(unlabelled: ShardDataset) -> None:
    batch = next(iter(ShardLoader(unlabelled, ("caption",), COUNT, seed=0)))
    assert batch["parts"] == ["faces" if name < "p04" else "general" for name in batch["ids"]]


def test_nearest_faces_need_their_column(dataset: ShardDataset) -> None:
    with pytest.raises(UsageError, match="no column 'identity'"):
        ShardLoader(dataset, ("caption",), 2, seed=0, references=References(("clip",), nearest=0.5))
