"""LFW's published layout in miniature: lists, bounds, disagreements."""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from e4t_core.errors import DataError, UsageError
from e4t_core.storage import Store
from pipelines.sources import Source
from tests.support.sources import open_source

PEOPLE = {"Ann_Two": 2, "Bo_Three": 3, "Cy_Five": 5, "Di_Ten": 10, "Ed_Eleven": 11, "Flo_One": 1}
DEV_TEST = ("Ann_Two", "Bo_Three", "Di_Ten", "Ed_Eleven")


source = partial(open_source, "lfw")


def counts(lfw: Source) -> dict[str, int]:
    return dict(Counter(item.labels["identity"] for item in lfw.items()))


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    uri = str(tmp_path / "lfw") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    store = Store(uri)
    for name, n in PEOPLE.items():
        for i in range(1, n + 1):
            store.put(f"{name}/{name}_{i:04d}.jpg", f"{name} {i}".encode())
    store.put("README.txt", b"about")
    return uri


@pytest.fixture
def dev_test(tmp_path: Path) -> Path:
    path = tmp_path / "peopleDevTest.txt"
    path.write_text(f"{len(DEV_TEST)}\n" + "".join(f"{name}\t{PEOPLE[name]}\n" for name in DEV_TEST))
    return path


def test_published_layout(root: str) -> None:
    lfw = source(root)
    assert counts(lfw) == PEOPLE
    items = {item.id: item for item in lfw.items()}
    assert items["Cy_Five/Cy_Five_0004"].labels == {"identity": "Cy_Five"}
    assert lfw.read(items["Cy_Five/Cy_Five_0004"]).image == b"Cy_Five 4"


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [(3, 10, {"Bo_Three", "Cy_Five", "Di_Ten"}), (4, 9, {"Cy_Five"}), (10, None, {"Di_Ten", "Ed_Eleven"})],
)
def test_both_bounds_are_included(root: str, low: int, high: int | None, names: set[str]) -> None:
    assert set(counts(source(root, min_images=low, max_images=high))) == names


def test_list_and_bounds_together(root: str, dev_test: Path) -> None:
    assert set(counts(source(root, list=dev_test))) == set(DEV_TEST)
    chosen = counts(source(root, list=dev_test, min_images=3, max_images=10))
    assert chosen == {"Bo_Three": 3, "Di_Ten": 10}


@pytest.mark.parametrize(
    "text",
    [
        "name,images\nBo_Three,3\nCy_Five,5\n",
        "Name, Images\r\nBo_Three,3\r\nCy_Five,5\r\n",
        "\ufeffname\nBo_Three\nCy_Five\n",
        "2\nBo_Three\t3\nCy_Five\t5\n\n",
    ],
)
def test_forms_of_a_list(root: str, tmp_path: Path, text: str) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(text.encode())
    assert counts(source(root, list=path)) == {"Bo_Three": 3, "Cy_Five": 5}


def test_a_list_may_lie_elsewhere(root: str) -> None:
    uri = f"memory://{uuid.uuid4().hex}"
    Store(uri).put("people.csv", b"name\nCy_Five\n")
    assert counts(source(root, list=f"{uri}/people.csv")) == {"Cy_Five": 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("3\nBo_Three\t3\n", "announces 3 people and lists 1"),
        ("2\nBo_Three\t3\nBo_Three\t3\n", "names 'Bo_Three' twice, again in line 3"),
        ("name,images\nBo_Three,3\nCy_Five,5\nBo_Three,3\n", "names 'Bo_Three' twice, again in line 4"),
        ("1\nBo_Three three\n", "line 2: 'Bo_Three three' should be a name and its number"),
        ("name,images\nBo_Three\n", r"line 2: \['Bo_Three'\] should have 2 columns"),
        ("Bo_Three\t3\n", "it should start with the number of people"),
        ("\xff\xfe", "is not UTF-8"),
    ],
)
def test_wrong_lists(root: str, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        list(source(root, list=path).items())


def test_a_missing_list(root: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source\.list '.*none\.txt' does not exist"):
        list(source(root, list=tmp_path / "none.txt").items())


@pytest.fixture
def disagreeing(tmp_path: Path) -> Path:
    path = tmp_path / "wrong.txt"
    people = {"Bo_Three": 4, "Cy_Five": 5, **{f"Gone_{i}": 1 for i in range(7)}}
    path.write_text(f"{len(people)}\n" + "".join(f"{name}\t{n}\n" for name, n in people.items()))
    return path


def test_disagreements_are_counted_and_the_first_named(root: str, disagreeing: Path) -> None:
    with pytest.raises(DataError) as error:
        list(source(root, list=disagreeing).items())
    text = str(error.value)
    assert "8 people disagree with" in text
    assert "Bo_Three is listed with 4 images and has 3" in text
    assert "Gone_0 is listed but has no images" in text
    assert "Gone_6" not in text
    assert "and 3 more" in text
    assert error.value.facts == {"mismatches": 8}


def test_limit_does_not_hide_disagreements(root: str, disagreeing: Path) -> None:
    with pytest.raises(DataError, match="8 people disagree"):
        list(source(root, list=disagreeing).items(1))


def test_skipping_is_reported(root: str, disagreeing: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert counts(source(root, list=disagreeing, on_mismatch="skip")) == {"Cy_Five": 5}
    assert "8 people disagree" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Bo_Three/holiday.jpg", "Bo_Three/holiday is not named like Bo_Three_0001"),
        ("Bo_Three/Bo_Three_0002.png", "Bo_Three has Bo_Three_0002 in two formats"),
    ],
)
def test_strange_files(root: str, name: str, message: str) -> None:
    Store(root).put(name, b"x")
    with pytest.raises(DataError, match=message):
        list(source(root).items())
    assert "Bo_Three" not in counts(source(root, on_mismatch="skip"))


def test_nobody_fits(root: str) -> None:
    with pytest.raises(DataError, match=r"none of the 6 people .* has from 12 to 20 images"):
        list(source(root, min_images=12, max_images=20).items())


def test_wrong_folder(root: str, tmp_path: Path) -> None:
    Store(f"{tmp_path}/flat").put("a.jpg", b"x")
    with pytest.raises(DataError, match=r"no 'Name/Name_0001\.jpg'.*must be the folder that holds the people"):
        list(source(f"{tmp_path}/flat").items())
    with pytest.raises(DataError, match="nowhere' does not exist"):
        list(source(tmp_path / "nowhere").items())
    with pytest.raises(UsageError, match=r"source\.path"):
        list(source(None).items())


def test_bounds_in_the_wrong_order() -> None:
    with pytest.raises(UsageError, match="max_images 3 is below min_images 10"):
        source("x", min_images=10, max_images=3)


def test_real_photographs_in_this_layout(real_data: Path) -> None:
    found = counts(source(real_data / "lfw_like"))
    assert len(found) >= 6
    some = counts(source(real_data / "lfw_like", min_images=3, max_images=4))
    assert some == {name: n for name, n in found.items() if 3 <= n <= 4}
