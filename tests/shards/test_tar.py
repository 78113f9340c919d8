"""Keys and tars: what WebDataset readers see, and bytes that never change."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e4t_core.errors import DataError
from pipelines.shards.keys import MAX_KEY, sample_key
from pipelines.shards.tar import Span, Tar, Writer, members

AWKWARD = ["a.b", "a~b", "a~2Eb", "_meta", "__x__/y", "/abs", "dir/", "a//b", "ä ö", "a\nb", "..", "x" * 200, "é" * 60]


def build(samples: dict[str, dict[str, bytes]]) -> Tar:
    writer = Writer()
    for key in sorted(samples):
        writer.add(key, samples[key])
    return writer.finish()


@given(st.lists(st.text(min_size=1, max_size=120), min_size=2, max_size=2, unique=True))
def test_keys_are_injective_and_safe(ids: list[str]) -> None:
    keys = [sample_key(i) for i in ids]
    assert keys[0] != keys[1]
    for key in keys:
        assert key.isascii()
        assert key.isprintable()
        assert len(key) <= MAX_KEY
        assert "." not in key
        assert not key.startswith(("/", "_"))
        assert not key.endswith("/")
        assert "//" not in key


def test_awkward_ids_stay_apart() -> None:
    assert len({sample_key(i) for i in AWKWARD}) == len(AWKWARD)
    assert sample_key("plain/name-1") == "plain/name-1"
    assert sample_key("a.b") == "a~2Eb"


def test_plain_webdataset_reads_them(tmp_path: Path) -> None:
    import webdataset

    samples = {sample_key(i): {"image.png": i.encode(), "meta.json": b"{}"} for i in AWKWARD}
    (tmp_path / "s.tar").write_bytes(build(samples).data)
    read = list(webdataset.WebDataset(str(tmp_path / "s.tar"), shardshuffle=False))
    assert [s["__key__"] for s in read] == sorted(samples)
    for sample in read:
        assert sample["image.png"] == samples[sample["__key__"]]["image.png"]
        assert sample["meta.json"] == b"{}"


def test_headers_hold_nothing_of_this_machine() -> None:
    with tarfile.open(fileobj=io.BytesIO(build({"b": {"x": b"1"}, "a": {"y": b"2", "x": b"3"}}).data)) as tar:
        infos = tar.getmembers()
    assert [i.name for i in infos] == ["a.x", "a.y", "b.x"]
    for info in infos:
        assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)


def test_bytes_are_fixed_for_all_time() -> None:
    tar = build({"b/c": {"x.txt": b"one"}, "a": {"y.npy": bytes(1000), "x.json": b"{}"}})
    assert tar.sha256 == "38ba7068e1d414f5538b47b4cbfc10503379fa8ecc55aafa6b89f63fb212e145"


@given(st.dictionaries(st.text("abc/", min_size=1, max_size=5), st.binary(max_size=2000), min_size=1, max_size=5))
def test_a_span_is_one_sample(bodies: dict[str, bytes]) -> None:
    samples = {sample_key(i): {"a.bin": body, "b.bin": body[::-1]} for i, body in bodies.items()}
    tar = build(samples)
    assert list(tar.spans) == sorted(samples)
    for key, span in tar.spans.items():
        assert members(tar.data[span.offset : span.offset + span.size], span, key) == samples[key]


@pytest.mark.parametrize("damage", ["flip", "cut", "wrong place"])
def test_damage_is_named(damage: str) -> None:
    tar = build({"a": {"x": b"hello"}, "b": {"x": b"world"}})
    span = tar.spans["a"]
    data = bytearray(tar.data[span.offset : span.offset + span.size])
    if damage == "flip":
        data[512] ^= 1
    elif damage == "cut":
        del data[-1]
    else:
        data = bytearray(tar.data[tar.spans["b"].offset :][: span.size])
    with pytest.raises(DataError, match=r"sample 'a'.*CRC-32.*shards verify"):
        members(bytes(data), span, "sample 'a'")


def test_samples_that_cannot_be_written_are_refused() -> None:
    writer = Writer()
    writer.add("b", {"x": b""})
    for key, body in (("a", {"x": b""}), ("b", {"x": b""}), ("c", {})):
        with pytest.raises(ValueError, match=f"sample '{key}'"):
            writer.add(key, body)
    with pytest.raises(ValueError, match="too long"):
        writer.add("k" * MAX_KEY, {"m" * 40: b""})
    assert Span(0, 0, 0) not in writer.finish().spans.values()
