"""What each kind of bad input comes to, from the listing to the first column: quarantined by name, refused, or fine.

What one source or decoder alone must know is in its own tests; this table is what a user sees.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from e4t_core.errors import UserError
from pipelines.shards.plan import listing
from pipelines.stages import Bad
from pipelines.stages.ingest import Ingest, IngestConfig
from tests.stages.helpers import MODELS, batch_of
from tests.support.corpus import RED, encoded, heic, many_frames, text_bomb
from tests.support.sources import open_source
from tests.support.tars import odd, packed

Make = Callable[[Path], Mapping[str, Any]]
"""Writes into a folder; returns the source's fields beside ``path``."""

PHOTO = encoded(Image.new("RGB", (64, 64), RED), "PNG")
LONG = "x" * (10 << 20)


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        id: what it is.
        source: which source is given it.
        make: writes it.
        outcome: ``fine``, the reason of quarantine, or the class of the error that ends the listing.
        words: a pattern that the message must hold.
        good: samples beside it that must come through; with ``fine``, all of them.
    """

    id: str
    source: str
    make: Make
    outcome: str
    words: str = ""
    good: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)


def files(**contents: bytes) -> Make:
    """Files by name; ``__`` in a keyword is the dot."""
    return named({name.replace("__", "."): data for name, data in contents.items()})


def named(contents: Mapping[str | bytes, bytes]) -> Make:
    def make(folder: Path) -> Mapping[str, Any]:
        for name, data in contents.items():
            path = os.path.join(os.fsencode(folder), os.fsencode(name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
        return {}

    return make


def tar(*members: tuple[str, Any], name: str = "a.tar", format: int = tarfile.PAX_FORMAT) -> Make:
    return named({name: packed([*members, ("n01440764_9.jpg", PHOTO)], format)})


def table(**columns: Any) -> Make:
    def make(folder: Path) -> Mapping[str, Any]:
        pq.write_table(pa.table(columns), folder / "a.parquet")
        return {"image": "image"}

    return make


def environment(values: Mapping[bytes, bytes], keep: float = 1.0) -> Make:
    """An LMDB environment, cut to a share of its bytes."""

    def make(folder: Path) -> Mapping[str, Any]:
        with lmdb.open(str(folder), map_size=64 << 20) as opened, opened.begin(write=True) as transaction:
            for key, value in values.items():
                transaction.put(key, value)
        (folder / "lock.mdb").unlink()
        os.truncate(folder / "data.mdb", int((folder / "data.mdb").stat().st_size * keep))
        return {}

    return make


def beside(field: str, text: bytes, **contents: bytes) -> Make:
    """Files, and a list beside them that the recipe names."""

    def make(folder: Path) -> Mapping[str, Any]:
        named({name.replace("__", "."): data for name, data in contents.items()})(folder)
        (folder.parent / "list.csv").write_bytes(text)
        return {field: str(folder.parent / "list.csv")}

    return make


def wikiart(text: bytes) -> Make:
    def make(folder: Path) -> Mapping[str, Any]:
        named({"Realism/a_b.jpg": PHOTO, "Realism/c_d.jpg": PHOTO})(folder)
        return beside("csv", text)(folder)

    return make


def lfw(text: bytes) -> Make:
    def make(folder: Path) -> Mapping[str, Any]:
        named({"Al_Bo/Al_Bo_0001.jpg": PHOTO})(folder)
        return beside("list", text)(folder)

    return make


def celeba(field: str, text: bytes) -> Make:
    def make(folder: Path) -> Mapping[str, Any]:
        named({"CelebA-HQ-img/0.jpg": PHOTO})(folder)
        return beside(field, text)(folder)

    return make


ODD_NAMES = ("a\nb.jpg", "a'b\".jpg", "a b\t.jpg", "%41#?&.jpg", "-rf.jpg", "ñ😀.jpg", "$(x).jpg")

IMAGES = (
    Case("heic without a decoder", "image_folder", files(a__jpg=heic(), b__jpg=PHOTO), "not_an_image", "ftypheic", 1),
    Case("nothing but heic", "image_folder", files(a__heic=heic()), "DataError", r"no images in .* \(1 files are"),
    Case("text chunk bomb", "image_folder", files(a__png=text_bomb(), b__png=PHOTO), "corrupt", "too large", 1),
    Case("10 000 frames", "image_folder", files(a__gif=many_frames(10_000)), "fine", good=1),
    Case("a movie's extension", "image_folder", files(a__png=b"\0\0\0\x18ftypmp42"), "not_an_image", "ftypmp42"),
    Case("odd names", "image_folder", named(dict.fromkeys(ODD_NAMES, PHOTO)), "fine", good=len(ODD_NAMES)),
    Case("a name in Latin-1", "image_folder", named({b"caf\xe9.jpg": PHOTO}), "DataError", "not UTF-8.*rename it"),
    Case("caption of 10 MB", "image_folder", files(a__jpg=PHOTO, a__txt=LONG.encode(), b__jpg=PHOTO), "unreadable",
         "caption .*has 10485760 bytes; .* at most 1048576", 1, {"caption_ext": ".txt"}),
    Case("caption in UTF-16", "image_folder", files(a__jpg=PHOTO, a__txt="é".encode("utf-16")), "unreadable",
         "is not UTF-8 text", fields={"caption_ext": ".txt"}),
)  # fmt: skip
TARS = (
    *(
        Case(f"{name} in a tar of {source}", source, tar((member, content), name=path), "unreadable", words, 1)
        for source, path in (("webdataset", "a.tar"), ("imagenet", "n01440764.tar"))
        for name, member, content, words in (
            ("symlink", "n01440764_1.jpg", odd(tarfile.SYMTYPE, "/etc/passwd"), "is a symbolic link"),
            ("hardlink", "n01440764_1.jpg", odd(tarfile.LNKTYPE, "/etc/passwd"), "is a hard link"),
            ("device", "n01440764_1.jpg", odd(tarfile.CHRTYPE), "is a device"),
            ("pipe", "n01440764_1.jpg", odd(tarfile.FIFOTYPE), "is a named pipe"),
            ("..", "../../n01440764_1.jpg", PHOTO, "leads out of its folder"),
            ("absolute", "/etc/n01440764_1.jpg", PHOTO, "has an absolute name"),
        )
    ),
    Case("tar of no bytes", "webdataset", named({"a.tar": b""}), "DataError", "a.tar is truncated"),
    Case("class of no bytes", "imagenet", named({"n01440764.tar": b""}), "DataError", "n01440764.tar is truncated"),
    Case("tar of no members", "webdataset", named({"a.tar": packed([])}), "DataError", "has no items"),
    Case("empty image in a tar", "webdataset", tar(("a.jpg", b"")), "empty", "zero bytes", 1),
    Case("caption of 10 MB in a tar", "webdataset", tar(("a.jpg", PHOTO), ("a.txt", LONG.encode())), "unreadable",
         "has 10485760 bytes", 1),
    Case("odd names in a tar", "webdataset", tar(*((name, PHOTO) for name in ODD_NAMES)), "fine",
         good=len(ODD_NAMES) + 1),
    Case("Latin-1 in a tar", "webdataset", tar(("caf\udce9.jpg", PHOTO), format=tarfile.GNU_FORMAT), "DataError",
         "rename it"),
)  # fmt: skip
TABLES = (
    Case("caption of 10 MB in a column", "parquet", table(image=[PHOTO, PHOTO], text=[LONG, "short"]), "unreadable",
         "'text' .*has 10485760 bytes; .* at most 1048576", 1, {"caption": "text"}),
    Case("sentences for images", "parquet", table(image=["a cat\0on a mat", "b" * 5000]), "unreadable", "cannot be"),
    Case("numbers for images", "parquet", table(image=[[137, 80]]), "DataError", "is of type list.*must be binary"),
    Case("text for images", "parquet", table(image=[b"not an image", PHOTO]), "not_an_image", "not an image", 1),
    Case("no rows", "parquet", table(image=pa.array([], pa.binary())), "DataError", "has no items"),
)  # fmt: skip
ENVIRONMENTS = (
    Case("half an LMDB", "lsun", environment({b"k%d" % i: PHOTO * 99 for i in range(9)}, 0.5), "DataError", "cut off"),
    Case("LMDB of no bytes", "lsun", environment({b"a": PHOTO}, 0), "DataError", "is empty; copy it again"),
    Case("LMDB with an empty value", "lsun", environment({b"a": b"", b"b": PHOTO}), "empty", "zero bytes", 1),
    Case("LMDB of text", "lsun", environment({b"a": b"text", b"b": PHOTO}), "not_an_image", "b'text'", 1),
)
BOM, ONE, TWO = "\ufeff".encode(), b"Realism/a_b.jpg", b"Realism/c_d.jpg"
LISTS = (
    Case("wikiart: BOM", "wikiart", wikiart(BOM + ONE + b",1\n"), "fine", good=1),
    Case("wikiart: NUL", "wikiart", wikiart(ONE + b",1\nRealism/c\0_d.jpg,2\n"), "DataError", "1 files that are not"),
    Case("wikiart: other columns", "wikiart", wikiart(b"name,size\n" + ONE + b",1\n"), "DataError", "'name,size'; it"),
    Case("wikiart: a column more", "wikiart", wikiart(b"file,genre\n" + ONE + b",a,b\n"), "DataError", "3 columns"),
    Case("wikiart: a quote that never ends", "wikiart", wikiart(b'file\n"' + LONG.encode()), "DataError",
         "line .*field larger than"),
    Case("wikiart: UTF-16", "wikiart", wikiart((ONE + b",1").decode().encode("utf-16")), "DataError", "is not UTF-8"),
    Case("lfw: BOM", "lfw", lfw(BOM + b"name,images\nAl_Bo,1\n"), "fine", good=1),
    Case("lfw: NUL", "lfw", lfw(b"name\nAl\0_Bo\n"), "DataError", "no 'Name/Name_0001.jpg'.* of anybody on"),
    Case("lfw: a column more", "lfw", lfw(b"name,images\nAl_Bo,1,2\n"), "DataError", "should have 2 columns"),
    Case("lfw: a number that is none", "lfw", lfw("1\nAl_Bo\t²\n".encode()), "DataError", "'Al_Bo\t²' should be"),
    Case("lfw: a count that is none", "lfw", lfw("²\nAl_Bo\t1\n".encode()), "DataError", "starts with '²'"),
    Case("lfw: a quote that never ends", "lfw", lfw(b'name\n"' + LONG.encode()), "DataError", "field larger than"),
    Case("celeba: BOM", "celeba_hq", celeba("identities", BOM + b"0.jpg 7\n"), "fine", good=1),
    Case("celeba: NUL", "celeba_hq", celeba("identities", b"0\0.jpg 7\n"), "DataError", "has no '0.jpg'"),
    Case("celeba: a column more", "celeba_hq", celeba("identities", b"0.jpg 7 8\n"), "DataError", "should look like"),
    Case("celeba: a count that is none", "celeba_hq", celeba("attributes", "²\nBald\n0.jpg 1\n".encode()), "DataError",
         "announces '²' images and lists 1"),
)  # fmt: skip
CASES = (*IMAGES, *TARS, *TABLES, *ENVIRONMENTS, *LISTS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_bad_input_comes_to(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    try:
        fields = case.make(folder)
    except OSError as error:
        pytest.skip(f"this file system takes no such name: {error}")
    source = open_source(case.source, folder, **{**fields, **case.fields})
    if case.outcome.endswith("Error"):
        with pytest.raises(UserError, match=re.compile(case.words, re.DOTALL)) as error:
            listing(source, None)
        assert type(error.value).__name__ == case.outcome
        return
    assert listing(source, None).num_rows > 0
    results = Ingest(IngestConfig(size=64), MODELS)(batch_of(source))
    bad = [result for result in results if isinstance(result, Bad)]
    assert len(results) - len(bad) == case.good, bad
    assert {result.reason for result in bad} == ({case.outcome} if case.outcome != "fine" else set())
    assert all(re.search(case.words, result.message, re.DOTALL) for result in bad), bad
