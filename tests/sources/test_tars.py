"""Tars as every tool writes them, and as bad disks, bad links and bad people leave them."""

from __future__ import annotations

import gzip
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e4t_core.errors import DataError, StorageError
from e4t_core.storage import Store
from pipelines.sources._tars import REFUSED, Member, address, members, parse_address, read_parts
from tests.support.tars import LONG, odd, opening, packed

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.fixture(params=["local", "memory"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], Store]:
    """Stores bytes as ``a.tar``."""

    def store(data: bytes) -> Store:
        place = Store(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")
        place.put("a.tar", data)
        return place

    return store


def names(store: Store) -> list[str]:
    return [member.name for member in members(store, "a.tar")]


@pytest.mark.parametrize("format", FORMATS)
def test_members_in_order_with_their_bytes(put: Callable[[bytes], Store], format: str) -> None:
    files = [("b.jpg", b"1" * 700), ("empty.txt", b""), ("d/a.jpg", b"2" * 512), ("b.jpg", b"again")]
    store = put(packed([("d", odd(tarfile.DIRTYPE)), *files], FORMATS[format]))
    folder, *found = members(store, "a.tar")
    assert (folder.name, folder.kind) == ("d", "folder")
    assert [(m.name, m.size, m.kind) for m in found] == [(name, len(data), "file") for name, data in files]
    for member, (_, data) in zip(found, files, strict=True):
        assert read_parts(store, "a.tar", {"x": member}) == {"x": data}


@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_long_names(put: Callable[[bytes], Store], format: str) -> None:
    store = put(packed([("é.jpg", b"0"), (LONG, b"first"), ("z.jpg", b"last")], FORMATS[format]))
    assert names(store) == ["é.jpg", LONG, "z.jpg"]
    assert read_parts(store, "a.tar", {"jpg": list(members(store, "a.tar"))[1]}) == {"jpg": b"first"}


def test_sizes_in_pax_headers(put: Callable[[bytes], Store]) -> None:
    """As writers do beyond 8 GB; the header itself says 0."""
    info = tarfile.TarInfo("big.jpg")
    info.pax_headers = {"size": "600"}
    data = info.tobuf(tarfile.PAX_FORMAT) + b"x" * 600 + bytes(424) + packed([("next.jpg", b"n")])
    big, after = members(put(data), "a.tar")
    assert (big.size, after.name) == (600, "next.jpg")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jpg", odd(tarfile.SYMTYPE, "/etc/passwd"), "symlink"),
        ("a.jpg", odd(tarfile.LNKTYPE, "b.jpg"), "hardlink"),
        ("a.jpg", odd(tarfile.CHRTYPE), "device"),
        ("a.jpg", odd(tarfile.BLKTYPE), "device"),
        ("a.jpg", odd(tarfile.FIFOTYPE), "pipe"),
        ("a.jpg", odd(b"V"), "other"),
        ("../a.jpg", b"bytes", "outside"),
        ("x/../../a.jpg", b"bytes", "outside"),
        ("/etc/a&b#c=d.jpg", b"bytes", "absolute"),
    ],
)
def test_what_is_never_read(put: Callable[[bytes], Store], name: str, content: Any, kind: str) -> None:
    store = put(packed([(name, content), ("b.jpg", b"good")]))
    bad, good = members(store, "a.tar")
    assert (bad.name, bad.kind) == (name, kind)
    key, parts = parse_address(address("a.tar", {"txt": good, "jpg": bad}))
    with pytest.raises(OSError, match=r"\.jpg' (is|has|leads)") as error:
        read_parts(store, key, parts)
    assert str(error.value) == f"{name!r} {REFUSED[kind]}"
    assert read_parts(store, "a.tar", {"jpg": good}) == {"jpg": b"good"}


def test_two_dots_in_a_name_are_no_way_out(put: Callable[[bytes], Store]) -> None:
    assert [m.kind for m in members(put(packed([("a..b/..c.jpg", b"x")])), "a.tar")] == ["file"]


def test_sparse_files_are_not_read(put: Callable[[bytes], Store]) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999"}
    info.size = 512
    data = info.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n5\n".ljust(512, b"\0") + packed([("next.jpg", b"n")])
    assert [(m.name, m.kind) for m in members(put(data), "a.tar")] == [("a.jpg", "sparse"), ("next.jpg", "file")]


@pytest.mark.parametrize("format", FORMATS)
def test_every_cut_is_noticed(tmp_path: Path, format: str) -> None:
    """The end of a tar is a block of zeros, so a tar cut between two members is told from a whole one."""
    name = "1.jpg" if format == "ustar" else LONG
    data = packed([("0.jpg", b"x" * 700), (name, b"y" * 100), ("2.jpg", b"")], FORMATS[format])
    stop = len(data.rstrip(b"\0")) // 512 * 512 + 512  # of the last header; it is followed by the zeros
    for cut in [*range(0, stop + 512, 128), stop + 511]:
        (tmp_path / "a.tar").write_bytes(data[:cut])
        with pytest.raises(DataError, match=r"a\.tar is truncated: .* copy or pack it again"):
            list(members(Store(tmp_path), "a.tar"))
    (tmp_path / "a.tar").write_bytes(data[: stop + 512])
    assert len(names(Store(tmp_path))) == 3


def test_a_cut_is_named(put: Callable[[bytes], Store]) -> None:
    data = packed([("0.jpg", b"x" * 100), ("d/1.jpg", b"y" * 5000)])
    found = members(put(data[:4096]), "a.tar")
    assert next(found).name == "0.jpg"
    with pytest.raises(DataError, match=r"its member 'd/1\.jpg' needs the bytes up to 6656, and the file has 4096;"):
        next(found)
    with pytest.raises(DataError, match=r"byte 6656 should start a header, or the zeros that end a tar, .* has 6656 b"):
        names(put(data[:6656]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(packed([("a.jpg", b"x")])), "a.tar is gzipped, .*; unpack it to a plain .tar first"),
        (b"\xff\xd8\xff" * 400, r"a.tar is no tar \(.*\); give plain tars"),
        (b"", "a.tar is truncated: byte 0 .* has 0 bytes"),
    ],
    ids=["gzip", "jpeg", "empty"],  # not the bytes: gzip's hold the second in which a process collected the test
)
def test_no_tars(put: Callable[[bytes], Store], data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        names(put(data))


def test_damage_in_the_middle_is_no_end(put: Callable[[bytes], Store]) -> None:
    data = bytearray(packed([("0.jpg", b"x"), ("1.jpg", b"y"), ("2.jpg", b"z")]))
    data[1024:1030] = b"broken"
    with pytest.raises(DataError, match=r"a.tar is damaged: byte 1024 should start a header"):
        names(put(bytes(data)))


@pytest.mark.parametrize("type", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
@pytest.mark.parametrize("size", [b"\xff" * 12, b"\xff" * 11 + b"\x00", b"\x80" + b"\x00" * 6 + b"\x7f" * 5])
def test_sizes_that_lie(
    put: Callable[[bytes], Store], monkeypatch: pytest.MonkeyPatch, type: bytes, size: bytes
) -> None:
    opened = opening(monkeypatch)
    header = bytearray(odd(type).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    store = put(packed([("0.jpg", b"x")])[:1024] + bytes(header) + bytes(4 << 20))
    with pytest.raises(DataError, match=r"a.tar is (damaged|truncated): "):
        names(store)
    assert opened[0].bytes <= 2 << 20


def test_names_that_are_not_unicode(put: Callable[[bytes], Store]) -> None:
    data = packed([("caf\udce9.jpg", odd(tarfile.SYMTYPE, "x"))], tarfile.GNU_FORMAT)
    store = put(data)
    (member,) = members(store, "a.tar")
    _, parts = parse_address(address("a.tar", {"jpg": member}))
    with pytest.raises(OSError, match=r"'caf\\udce9\.jpg' is a symbolic link"):
        read_parts(store, "a.tar", parts)


def test_addresses_keep_ranges_and_end_like_the_file() -> None:
    parts = {"txt": Member("a.txt", 3072, 9, "file"), "seg.png": Member("a.seg.png", 1536, 1234, "file")}
    text = address("s3://bucket/a#b/00.tar", parts)
    assert text == "s3://bucket/a#b/00.tar#3072+9.txt&1536+1234.seg.png"
    uri, again = parse_address(text)
    assert uri == "s3://bucket/a#b/00.tar"
    assert {ext: (m.offset, m.size, m.kind) for ext, m in again.items()} == {
        "txt": (3072, 9, "file"),
        "seg.png": (1536, 1234, "file"),
    }
    assert parse_address(address("a.tar", {})) == ("a.tar", {})


def test_a_tar_that_became_shorter(put: Callable[[bytes], Store]) -> None:
    store = put(packed([("0.jpg", b"x" * 20_000)]))
    (member,) = members(store, "a.tar")
    store.put("a.tar", store.read("a.tar")[:2048])
    with pytest.raises(OSError, match="1536 of 20000 bytes are at byte 512; the tar was changed, list it again"):
        read_parts(store, "a.tar", {"jpg": member})


@pytest.mark.parametrize(("number", "kind"), [(22, OSError), (13, StorageError)])
def test_what_s3_says_of_ranges_beyond_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(store: Store, ranges: Any) -> Any:
        raise StorageError("cannot read") from OSError(number, "The requested range is not satisfiable")

    monkeypatch.setattr(Store, "read_ranges", refuse)
    with pytest.raises(kind, match=r"0 of 9 bytes are at byte 512|cannot read"):
        read_parts(Store(tmp_path), "a.tar", {"jpg": Member("0.jpg", 512, 9, "file")})


def test_a_tar_that_is_gone(put: Callable[[bytes], Store]) -> None:
    store = put(packed([("0.jpg", b"x")]))
    (member,) = members(store, "a.tar")
    store.delete("a.tar")
    with pytest.raises(FileNotFoundError):
        read_parts(store, "a.tar", {"jpg": member})
    with pytest.raises(DataError, match=r"a\.tar was listed but is gone"):
        names(store)


def test_small_members_share_requests(put: Callable[[bytes], Store], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opening(monkeypatch)
    store = put(packed([(f"{i:03d}.jpg", b"x" * 2000) for i in range(200)]))
    assert len(names(store)) == 200
    assert len(opened) == 1
    if not store.local:
        assert opened[0].requests <= 2


def test_large_members_are_skipped(put: Callable[[bytes], Store], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opening(monkeypatch)
    store = put(packed([(f"{i}.jpg", bytes(5 << 20)) for i in range(4)]))
    assert len(names(store)) == 4
    assert opened[0].bytes <= (64 << 10 if store.local else 6 << 20)


def test_members_are_not_kept(put: Callable[[bytes], Store], monkeypatch: pytest.MonkeyPatch) -> None:
    tars: list[Any] = []
    real = tarfile.TarFile.next
    monkeypatch.setattr(tarfile.TarFile, "next", lambda tar: tars.append(tar) or real(tar))
    for _ in members(put(packed([(f"{i}.jpg", b"") for i in range(50)])), "a.tar"):
        assert len(tars[-1].members) <= 1
