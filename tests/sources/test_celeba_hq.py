"""CelebA-HQ's published layout in miniature."""

from __future__ import annotations

import pickle
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from e4t_core.errors import DataError
from e4t_core.storage import Store
from pipelines.sources import Source
from tests.support.sources import open_source

ATTRIBUTES = "3\n5_o_Clock_Shadow Eyeglasses Young\n0.jpg  -1  1 -1\n1.jpg  -1 -1 -1\n2.jpg   1 -1  1\n"
MAPPING = (
    "idx\torig_idx\torig_file\n0       119613  119614.jpg\n1       99094   099095.jpg\n2       200121  200122.jpg\n"
)
IDENTITIES = "099095.jpg 2880\n119614.jpg 17\n200122.jpg 17\n000001.jpg 5\n"
LISTS = {
    "CelebAMask-HQ-attribute-anno.txt": ATTRIBUTES,
    "CelebA-HQ-to-CelebA-mapping.txt": MAPPING,
    "identity_CelebA.txt": IDENTITIES,
}


source = partial(open_source, "celeba_hq")


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    uri = str(tmp_path / "CelebAMask-HQ") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    for number in range(3):
        Store(uri).put(f"CelebA-HQ-img/{number}.jpg", f"image {number}".encode())
    Store(uri).put("CelebAMask-HQ-mask-anno/0/00000_hair.png", b"a mask, no image")
    return uri


def add(root: str, **changed: str) -> None:
    for name, text in LISTS.items():
        Store(root).put(name, changed.get(name.partition("-")[0].partition("_")[0], text).encode())


def labels(celeba: Source) -> dict[str, Any]:
    return {item.id: dict(item.labels) for item in celeba.items()}


def test_images_alone(root: str) -> None:
    celeba = source(root)
    items = {item.id: item for item in celeba.items()}
    assert list(items) == ["0", "1", "2"]
    assert not any(item.labels for item in items.values())
    assert pickle.loads(pickle.dumps(celeba)).read(items["1"]).image == b"image 1"


@pytest.mark.parametrize("below", ["", "/CelebA-HQ-img"])
def test_published_lists_are_found(root: str, below: str) -> None:
    add(root)
    assert labels(source(root + below)) == {
        "0": {"identity": "17", "attributes": ["Eyeglasses"]},
        "1": {"identity": "2880", "attributes": []},
        "2": {"identity": "17", "attributes": ["5_o_Clock_Shadow", "Young"]},
    }


def test_a_list_of_its_own_files(root: str, tmp_path: Path) -> None:
    given = tmp_path / "people.txt"
    given.write_text("0.jpg 8\n1.jpg 8\n2.jpg 9\n")
    assert [found["identity"] for found in labels(source(root, identities=str(given))).values()] == ["8", "8", "9"]


def test_identities_of_celeba_need_the_mapping(root: str) -> None:
    Store(root).put("identity_CelebA.txt", IDENTITIES.encode())
    with pytest.raises(DataError, match=r"image 0: the identity list has no '0.jpg'.*CelebA-HQ-to-CelebA-mapping.txt"):
        labels(source(root))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ATTRIBUTES.replace("3\n", "30000\n", 1), "announces '30000' images and lists 3"),
        (ATTRIBUTES.replace("1.jpg  -1 -1 -1", "1.jpg  -1 -1"), "line 4: '1.jpg  -1 -1' should be a file and 3 values"),
        (ATTRIBUTES.replace("1.jpg  -1", "1.jpg  0"), "line 4.*each 1 or -1"),
        (ATTRIBUTES.replace("2.jpg", "7.jpg"), r"image 2: the attribute list has no '2.jpg'"),
        ("0.jpg", "announces '0.jpg'"),
        (" \n", "is empty"),
    ],
)
def test_attribute_lists_that_are_none(root: str, tmp_path: Path, text: str, message: str) -> None:
    given = tmp_path / "attributes.txt"
    given.write_text(text)
    with pytest.raises(DataError, match=message):
        labels(source(root, attributes=str(given)))


def test_a_mapping_with_wrong_columns(root: str, tmp_path: Path) -> None:
    add(root)
    given = tmp_path / "mapping.txt"
    given.write_text("idx orig_idx orig_file\n0 119614.jpg\n")
    with pytest.raises(DataError, match=r"line 2: '0 119614.jpg' should look like '0 119613 119614.jpg'"):
        labels(source(root, mapping=str(given)))


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="CelebA-HQ-img' does not exist"):
        labels(source(str(tmp_path)))
    (tmp_path / "CelebA-HQ-img").mkdir()
    (tmp_path / "CelebA-HQ-img/readme.txt").write_text("about")
    with pytest.raises(DataError, match=r"no 'CelebA-HQ-img/0.jpg'"):
        labels(source(str(tmp_path)))
    with pytest.raises(DataError, match=r"source.identities '.*none.txt' does not exist"):
        labels(source(str(tmp_path), identities=str(tmp_path / "none.txt")))
