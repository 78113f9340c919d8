"""Generation in committed units: every prompt of every identity, with seeds that no method changes."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from e4t_core.errors import DataError, UsageError
from e4t_core.record import content_hash
from e4t_core.storage import Store
from jobs._people import image_seed
from jobs._recipe import load
from jobs._units import IMAGE_ROWS, ImageSet, Unit, committed, publish
from jobs.generate import Generator, Task
from tests.jobs.conftest import SMALL, everything, killing, start


def words(shards: str, checkpoint: str, adapters: str, out: str | Path) -> tuple[str, ...]:
    return ("--shards", shards, "--checkpoint", checkpoint, "--adapters", adapters, "--out", str(out))


def test_every_prompt_of_every_identity_is_drawn(
    generated: dict[str, Any], images: str, personalized: dict[str, Any]
) -> None:
    assert (generated["images"], generated["identities"], generated["units"]) == (6, 3, 2)
    found = ImageSet.open(images)
    assert found.table.schema.equals(IMAGE_ROWS)
    rows = found.table.to_pylist()
    people = [f"face-train-{n:06d}" for n in range(3)]
    assert [(r["identity"], r["prompt"], r["index"]) for r in rows] == [
        (who, prompt, 0) for who in people for prompt in ("photo", "snow")
    ]
    for row in rows:
        assert row["method"] == "e4t"
        assert row["seed"] == image_seed(0, row["identity"], row["prompt"], 0)
        assert (row["steps"], row["kind"]) == (2, "background" if row["prompt"] == "snow" else "plain")
        assert row["prompt_text"].count("{}") == 1
        assert row["bytes_adapter"] > 0
        assert row["seconds_generate"] > 0
        assert len(json.loads(row["embedding_norm_json"])) == 2, "one norm per denoising step"
    assert len({row["seed"] for row in rows}) == 6
    assert found.manifest["recipe"]["name"] == "tiny"
    assert found.manifest["inputs"]["adapters"] == f"{personalized['out']}#1"


def test_images_are_png_of_the_backbones_size_and_differ(images: str) -> None:
    found = ImageSet.open(images)
    data = found.read([5, 0, 3])
    for png in data:
        with Image.open(io.BytesIO(png)) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (64, 64), "RGB")
    assert len({content_hash(png) for png in data}) == 3
    assert found.read([0]) == [data[1]]


def test_tars_open_with_any_reader(images: str) -> None:
    found, store = ImageSet.open(images), Store(images)
    names = []
    for unit in found.manifest["units"]:
        data = store.read(unit["files"]["tar"]["key"])
        assert unit["files"]["tar"]["key"] == f"data/images/{unit['unit']:06d}-{content_hash(data, 16)}.tar"
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            names += tar.getnames()
    rows = found.table.to_pylist()
    assert names == [f"{r['identity']}/{r['prompt']}/{r['index']}.png" for r in rows]
    index = pq.read_table(io.BytesIO(store.read(found.manifest["index"]["key"])))
    assert index.equals(found.table)


def test_again_has_nothing_to_do(
    generated: dict[str, Any], shards: str, checkpoint: str, adapters: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(Path(generated["out"]))
    assert start("generate", *words(shards, checkpoint, adapters, generated["out"])) == generated
    assert everything(Path(generated["out"])) == before
    assert "nothing to do" in capsys.readouterr().err
    plan = start("generate", *words(shards, checkpoint, adapters, generated["out"]), "--dry-run")
    assert (plan["images"], plan["to_do"]) == (6, 0)


def test_a_lost_unit_is_drawn_again_the_same_though_a_worker_is_killed(
    images: str, shards: str, checkpoint: str, adapters: str, tmp_path: Path
) -> None:
    out = tmp_path / "images"
    shutil.copytree(images, out)
    for path in out.rglob("*"):
        if path.is_file() and path.name.startswith("000000-"):
            path.unlink()
    with killing("Generator", lambda: True) as killed:
        summary = start("generate", *words(shards, checkpoint, adapters, out))
    assert len(killed) == 1
    assert summary["images"] == 6
    old, new = ImageSet.open(images), ImageSet.open(str(out))
    assert new.read(range(6)) == old.read(range(6))
    assert len(list((out / "commits" / "images").iterdir())) == 2


class Told(list[int]):
    """A board that is read here."""

    tell = list.append


def test_more_images_of_a_prompt_keep_the_first(
    images: str, shards: str, checkpoint: str, adapters: str, tmp_path: Path
) -> None:
    """Another number and another batch size: image 0 of each prompt has its own seed still. In this process."""
    recipe = load("tiny", [*SMALL, "generate.images_per_prompt=2", "generate.batch_size=3"])
    task = Task(recipe, "e4t", shards, 1, adapters, 1, checkpoint, str(tmp_path), {})
    few = ImageSet.open(images)
    rows = [row for row in few.table.to_pylist() if row["unit"] == 0]
    unit = Unit("images", 0, "f" * 16, tuple(dict.fromkeys((row["identity"], (row["input_key"],)) for row in rows)))
    board = Told()
    assert Generator(task, board).run(unit) == 8  # type: ignore[arg-type]
    assert board == [3, 1, 3, 1]
    done = committed(Store(tmp_path), [unit])
    publish(Store(tmp_path), done, done[0]["rows"], IMAGE_ROWS, {"kind": "images"})
    many = ImageSet.open(str(tmp_path))
    at = {(r["identity"], r["prompt"], r["index"]): n for n, r in enumerate(many.table.to_pylist())}
    first = [at[row["identity"], row["prompt"], 0] for row in rows]
    for a, b in zip(few.read(range(4)), many.read(first), strict=True):
        with Image.open(io.BytesIO(a)) as old, Image.open(io.BytesIO(b)) as new:
            worst = max(abs(x - y) for x, y in zip(old.tobytes(), new.tobytes(), strict=True))
        assert worst <= 2, "only rounding differs between batch sizes"


def test_inputs_that_do_not_belong_together_are_refused(
    shards: str, checkpoint: str, adapters: str, images: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--adapters is required"):
        start("generate", "--shards", shards, "--checkpoint", checkpoint, "--out", str(tmp_path))
    with pytest.raises(UsageError, match=r"--shards is required: .*/shards#1 is what the adapters were made from"):
        start("generate", "--checkpoint", checkpoint, "--adapters", adapters, "--out", str(tmp_path))
    with pytest.raises(UsageError, match=r"--checkpoint is required: .*/checkpoint is what the adapters"):
        start("generate", "--shards", shards, "--adapters", adapters, "--out", str(tmp_path))
    with pytest.raises(DataError, match="holds images, not adapters"):
        start("generate", *words(shards, checkpoint, images, tmp_path))
    with pytest.raises(DataError, match="holds shards, not images"):
        ImageSet.open(shards)
    with pytest.raises(DataError, match="has no manifest"):
        ImageSet.open(str(tmp_path))
    assert not any(tmp_path.iterdir())


def test_damaged_images_are_refused(images: str, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "i")
    path = next((tmp_path / "i" / "data" / "images").glob("000000-*.tar"))
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    found = ImageSet.open(str(tmp_path / "i"))
    with pytest.raises(DataError, match="not what was committed"):
        found.read([0])
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        found.read([1])
