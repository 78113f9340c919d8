"""ILSVRC's published layout in miniature: folders, tars, words."""

from __future__ import annotations

import io
import pickle
import tarfile
import uuid
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from e4t_core.errors import DataError, UsageError
from e4t_core.storage import Store
from pipelines.sources import Source
from tests.support.sources import open_source
from tests.support.tars import odd, opening, packed

WORDS = (
    "n01440764 tench, Tinca tinca\n"
    "n02504013 Indian elephant, Elephas maximus\n"
    "n03028079 church, church building\n"
    "n07742313 Granny Smith\n"
)
FOLDERS = {
    "n01440764": ("n01440764_10026", "n01440764_18", "n01440764_2708"),
    "n02504013": ("n02504013_1", "n02504013_2"),
}
TAR = ("n03028079_9", "n03028079_1", "n03028079_30")


source = partial(open_source, "imagenet")


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Two classes as folders, one as a tar as published, and things that are neither."""
    place = str(tmp_path / "ILSVRC") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    uri = f"{place}/train"
    for wnid, names in FOLDERS.items():
        for name in names:
            Store(uri).put(f"{wnid}/{name}.JPEG", name.encode())
    Store(uri).put("n03028079.tar", packed([(f"{name}.JPEG", name.encode()) for name in TAR]))
    for other in ("n0144/x.JPEG", "n01440764/deeper/x.JPEG", "n01440764/notes.txt", "val/x.JPEG", "x.JPEG", "n1.tar"):
        Store(uri).put(other, b"other")
    return uri


def ids(imagenet: Source, limit: int | None = None) -> list[str]:
    return [item.id for item in imagenet.items(limit)]


def test_folders_and_tars(root: str) -> None:
    imagenet = source(root)
    items = {item.id: item for item in imagenet.items()}
    expected = [f"{wnid}/{name}" for wnid, names in FOLDERS.items() for name in names]
    assert list(items) == [*expected, *(f"n03028079/{name}" for name in TAR)]
    again = pickle.loads(pickle.dumps(imagenet))
    for key, item in items.items():
        wnid, name = key.split("/")
        assert item.labels == {"wnid": wnid}
        assert item.uri.endswith(".JPEG")
        sample = again.read(item)
        assert (sample.image, sample.caption, sample.template) == (name.encode(), None, "a photo of {}")
    assert len({item.etag for item in items.values() if ".tar#" in item.uri}) == len(TAR)


def test_tars_with_folders_in_them(tmp_path: Path) -> None:
    files = [("n07742313", odd(tarfile.DIRTYPE)), ("n07742313/n07742313_1.JPEG", b"1"), ("./n07742313_2.jpg", b"2")]
    strange = [("._n07742313_1.JPEG", b"fork"), ("readme.txt", b"about")]
    Store(tmp_path).put("n07742313.tar", packed([*files, *strange]))
    imagenet = source(tmp_path)
    found = {item.id: imagenet.read(item).image for item in imagenet.items()}
    assert found == {"n07742313/n07742313_1": b"1", "n07742313/n07742313_2": b"2"}


@pytest.mark.parametrize("name", ["train/LOC_synset_mapping.txt", "LOC_synset_mapping.txt", "synset_words.txt"])
def test_words_are_found(root: str, name: str) -> None:
    Store(root.removesuffix("/train")).put(name, WORDS.encode())
    imagenet = source(root)
    items = {item.id: item for item in imagenet.items()}
    tench = items["n01440764/n01440764_18"]
    assert tench.labels == {"wnid": "n01440764", "class": "tench", "synonyms": ["tench", "Tinca tinca"]}
    assert pickle.loads(pickle.dumps(imagenet)).read(tench).caption == "a photo of a tench"
    elephant, church = items["n02504013/n02504013_1"], items["n03028079/n03028079_9"]
    assert imagenet.read(elephant).caption == "a photo of an Indian elephant"
    assert imagenet.read(church).caption == "a photo of a church"
    assert imagenet.read(church).template == "a photo of {}"


def test_words_may_lie_elsewhere_and_miss_classes(root: str) -> None:
    elsewhere = f"memory://{uuid.uuid4().hex}"
    Store(elsewhere).put("mine.txt", "\ufeffn01440764\tapple\r\n\r\n".encode())
    Store(root).put("synset_words.txt", WORDS.encode())
    imagenet = source(root, synset_words=f"{elsewhere}/mine.txt")
    first, *_, last = imagenet.items()
    assert first.labels == {"wnid": "n01440764", "class": "apple", "synonyms": ["apple"]}
    assert imagenet.read(first).caption == "a photo of an apple"
    assert last.labels == {"wnid": "n03028079"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n01440764 tench\nn0144 carp\n", "line 2: 'n0144 carp' should look like 'n01440764 tench, Tinca tinca'"),
        ("n01440764\n", "line 1: 'n01440764' should look like"),
        ("n01440764 tench,, carp\n", "line 1: 'n01440764 tench,, carp' should look like"),
        ("n01440764 tench\n\nn01440764 carp\n", "names n01440764 twice, again in line 3"),
        ("tench\n", "line 1: 'tench' should"),
        ("", "is empty"),
        ("n01440764 caf\udce9\n", "is not UTF-8"),
    ],
)
def test_wrong_words(root: str, text: str, message: str) -> None:
    Store(root).put("synset_words.txt", text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        ids(source(root))


def test_missing_words(root: str) -> None:
    with pytest.raises(DataError, match=r"source\.synset_words '.*none\.txt' does not exist"):
        ids(source(root, synset_words=f"{root}/none.txt"))


def test_some_classes(root: str) -> None:
    chosen = source(root, classes=["n03028079", "n02504013"])
    assert Counter(key.split("/")[0] for key in ids(chosen)) == {"n02504013": 2, "n03028079": 3}
    with pytest.raises(UsageError, match=r"has no class 'n0302807'; of its 3, 'n03028079' is nearest"):
        ids(source(root, classes=["n01440764", "n0302807"]))
    with pytest.raises(UsageError, match=r"source\.classes"):
        source(root, classes=[])


def test_some_of_each_class(root: str) -> None:
    assert ids(source(root, per_class=2)) == [
        "n01440764/n01440764_10026",
        "n01440764/n01440764_18",
        "n02504013/n02504013_1",
        "n02504013/n02504013_2",
        "n03028079/n03028079_1",
        "n03028079/n03028079_30",
    ]
    assert ids(source(root, per_class=1, classes=["n02504013"])) == ["n02504013/n02504013_1"]


def test_limit_takes_the_first_ids(root: str) -> None:
    Store(root).put("n00000001.tar", packed([("b.JPEG", b"b"), ("a.JPEG", b"a")]))
    assert ids(source(root), 3) == ["n00000001/a", "n00000001/b", "n01440764/n01440764_10026"]
    assert ids(source(root, limit=1), 3) == ["n00000001/a"]
    assert ids(source(root, per_class=1), 2) == ["n00000001/a", "n01440764/n01440764_10026"]


def test_a_class_that_is_there_twice(root: str) -> None:
    Store(root).put("n01440764.tar", packed([("n01440764_1.JPEG", b"x")]))
    with pytest.raises(DataError, match=r"has n01440764/ and n01440764\.tar \(1 classes are there twice\); remove one"):
        ids(source(root), 1)


def test_an_empty_folder_beside_its_tar(root: str) -> None:
    Store(root).put("n03028079/n03028079.txt", b"unpacked nothing")
    assert sum(key.startswith("n03028079/") for key in ids(source(root))) == 3


def test_members_that_are_never_read(tmp_path: Path) -> None:
    bad = [
        ("n07742313_1.JPEG", odd(tarfile.SYMTYPE, "/etc/passwd"), "is a symbolic link"),
        ("../n07742313_2.JPEG", b"x", "leads out of its folder"),
        ("/n07742313_3.JPEG", b"x", "has an absolute name"),
    ]
    files = [(name, content) for name, content, _ in bad]
    Store(tmp_path).put("n07742313.tar", packed([*files, ("n07742313_4.JPEG", b"good")]))
    imagenet = source(tmp_path)
    *refused, good = imagenet.items()
    assert [item.id for item in refused] == [f"n07742313/n07742313_{i}" for i in (1, 2, 3)]
    for item, (name, _, why) in zip(refused, bad, strict=True):
        with pytest.raises(OSError, match=rf"'{name}' {why}"):
            imagenet.read(item)
    assert imagenet.read(good).image == b"good"


def test_a_truncated_tar(root: str) -> None:
    store = Store(root)
    store.put("n03028079.tar", store.read("n03028079.tar")[:1536])
    with pytest.raises(DataError, match=r"n03028079\.tar is truncated"):
        ids(source(root), 1)


def test_images_that_vanished(root: str) -> None:
    imagenet = source(root)
    first, *_, last = imagenet.items()
    Store(root).delete("n01440764/n01440764_10026.JPEG")
    Store(root).delete("n03028079.tar")
    for item in (first, last):
        with pytest.raises(FileNotFoundError):
            imagenet.read(item)


def test_a_listing_reads_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opening(monkeypatch)
    for wnid in ("n00000001", "n00000002"):
        Store(tmp_path).put(f"{wnid}.tar", packed([(f"{wnid}_{i}.JPEG", bytes(1 << 20)) for i in range(4)]))
    Store(tmp_path).put("n00000000/n00000000_1.JPEG", b"x")
    monkeypatch.setattr(Store, "read", None)
    items = source(tmp_path).items()
    assert next(items).id == "n00000000/n00000000_1"
    assert not opened
    assert next(items).id == "n00000001/n00000001_0"
    assert len(opened) == 1
    assert len(list(items)) == 7
    assert sum(file.bytes for file in opened) < 200_000


def test_wrong_places(tmp_path: Path) -> None:
    Store(tmp_path).put("ILSVRC2012_img_train.tar", packed([("n01440764.tar", b"x")]))
    Store(tmp_path).put("tench/a.JPEG", b"x")
    message = (
        r"no 'n01440764/n01440764_10026\.JPEG' and no 'n01440764\.tar' in '.*unpack ILSVRC2012_img_train\.tar once"
    )
    with pytest.raises(DataError, match=message):
        ids(source(tmp_path))
    with pytest.raises(DataError, match="nowhere' does not exist"):
        ids(source(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"source\.path"):
        ids(source(None))


def test_real_images_in_this_layout(real_data: Path, tmp_path: Path) -> None:
    """One image of each class, named ``n01440764/n01440764_tench.JPEG``."""
    path = real_data / "imagenet"
    if not path.is_dir():
        pytest.skip(f"no ImageNet images at {path}")
    found = {item.labels["wnid"]: item for item in source(path).items()}
    assert set(found) == {folder.name for folder in path.iterdir()}
    some = sorted(found)[:3]
    words = tmp_path / "synset_words.txt"
    words.write_text("".join(f"{wnid} {found[wnid].id.split('_', 1)[1].replace('_', ' ')}, x\n" for wnid in some))
    imagenet = source(path, classes=some, per_class=1, synset_words=str(words))
    for item in imagenet.items():
        sample = imagenet.read(item)
        assert Image.open(io.BytesIO(sample.image)).width > 0
        assert item.labels["class"] in (sample.caption or "")
    assert ids(imagenet) == [found[wnid].id for wnid in some]
