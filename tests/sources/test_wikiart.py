"""WikiArt: a folder a style, and the lists that come with it."""

from __future__ import annotations

import logging
import pickle
import uuid
from functools import partial
from pathlib import Path

import pytest

from e4t_core.errors import DataError, UsageError
from e4t_core.storage import Store
from pipelines.sources import Source
from tests.support.sources import open_source

FILES = (
    "Abstract_Expressionism/aaron-siskind_acolman-1-1955.jpg",
    "Impressionism/claude-monet_water-lilies-1906.jpg",
    "Impressionism/claude-monet_water-lilies-1908.jpg",
    "Realism/untitled.jpg",
)


source = partial(open_source, "wikiart")


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    uri = str(tmp_path / "wikiart") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    for name in FILES:
        Store(uri).put(name, name.encode())
    Store(uri).put("LICENSE.txt", b"about")
    return uri


def listed(folder: Path, text: str) -> str:
    path = folder / "list.csv"
    path.write_text(text)
    return str(path)


def ids(wikiart: Source) -> list[str]:
    return [item.id for item in wikiart.items()]


def test_styles_and_artists(root: str) -> None:
    wikiart = source(root)
    items = {item.id: item for item in wikiart.items()}
    assert [f"{i}.jpg" for i in items] == list(FILES)
    monet = items["Impressionism/claude-monet_water-lilies-1906"]
    assert monet.labels == {"style": "Impressionism", "artist": "claude monet"}
    assert items["Abstract_Expressionism/aaron-siskind_acolman-1-1955"].labels["style"] == "Abstract Expressionism"
    assert items["Realism/untitled"].labels == {"style": "Realism"}
    sample = pickle.loads(pickle.dumps(wikiart)).read(monet)
    assert sample.image == FILES[1].encode()
    assert sample.caption == "a painting in the style of Impressionism by claude monet"
    assert sample.template == "a painting in the style of {} by claude monet"
    assert wikiart.read(items["Realism/untitled"]).template == "a painting in the style of {}"


def test_some_styles(root: str) -> None:
    assert ids(source(root, styles=["Realism"])) == ["Realism/untitled"]
    with pytest.raises(UsageError, match=r"has no style 'Impresionism'.*Impressionism"):
        ids(source(root, styles=["Impresionism"]))


def test_the_published_list(root: str, tmp_path: Path) -> None:
    chosen = listed(tmp_path, f"{FILES[2]},12\n{FILES[3]},21\n")
    assert ids(source(root, csv=chosen)) == [FILES[2][:-4], FILES[3][:-4]]


def test_a_list_with_a_header(root: str, tmp_path: Path) -> None:
    text = f'filename,artist,genre,width\n{FILES[1]},"monet, claude","a\npond",12\n{FILES[3]},,portrait,9\n'
    items = {item.id: item for item in source(root, csv=listed(tmp_path, text)).items()}
    assert items[FILES[1][:-4]].labels == {"style": "Impressionism", "artist": "monet, claude", "genre": "a\npond"}
    assert items[FILES[3][:-4]].labels == {"style": "Realism", "genre": "portrait"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("style,painter\n", "starts with 'style,painter'; it should start with 'Style/file.jpg,number'"),
        (f"path,genre\n{FILES[0]}\n", "line 2: 1 columns, and the header has 2"),
        ("\n", "is empty"),
    ],
)
def test_lists_that_are_none(root: str, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ids(source(root, csv=listed(tmp_path, text)))


def test_listed_and_missing(root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen = listed(tmp_path, f"{FILES[0]},0\nRealism/gone.jpg,21\n")
    with pytest.raises(DataError, match=r"lists 1 files that are not in .*: Realism/gone.jpg. .*on_mismatch=skip"):
        ids(source(root, csv=chosen))
    with caplog.at_level(logging.WARNING):
        assert ids(source(root, csv=chosen, on_mismatch="skip")) == [FILES[0][:-4]]
    assert "Realism/gone.jpg; skipped" in caplog.text


def test_images_without_styles(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"in no style's folder")
    with pytest.raises(DataError, match=r"no 'Style/artist_title.jpg'"):
        ids(source(str(tmp_path)))
