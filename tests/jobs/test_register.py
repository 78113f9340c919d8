"""A set of adapters as one registered model that draws from a prompt."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray

from e4t_core.errors import DataError, UsageError
from e4t_core.images import decode_image
from e4t_core.record import Record
from e4t_core.storage import Store
from jobs import __main__ as jobs_main
from jobs._serving.bundle import Bundle
from jobs._serving.predictor import MOST_IMAGES, wishes_of
from jobs._tracking import TrackingError
from jobs._units import ImageSet
from pipelines.loader import ShardDataset
from tests.support.mlflow_server import MlflowServer
from tests.support.processes import environment, free_port, tool


@pytest.fixture(autouse=True, scope="module")
def _no_server_from_outside() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


def register(uri: str, *words: str) -> dict[str, Any]:
    return jobs_main.start("register", ["--set", f"mlflow.uri={uri}", *words])


def downloaded(model: str, uri: str, folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        return Path(mlflow.artifacts.download_artifacts(model, dst_path=str(folder)))


@pytest.fixture(scope="module")
def made(adapters: str, tracking: str) -> dict[str, Any]:
    """The summary of registering the session's three identities."""
    return register(tracking, "--adapters", adapters, "--name", "people")


@pytest.fixture(scope="module")
def folder(made: dict[str, Any], tracking: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's files, as a server gives them out."""
    return downloaded(made["model"], tracking, tmp_path_factory.mktemp("model"))


def test_the_whole_set_is_one_version(made: dict[str, Any], tracking: str, adapters: str) -> None:
    assert (made["version"], made["model"], made["identities"], made["method"]) == (1, "models:/people/1", 3, "e4t")
    client = MlflowClient(tracking_uri=tracking, registry_uri=tracking)
    (version,) = client.search_model_versions("name = 'people'")
    assert version.tags["e4t.adapters"] == f"{adapters}#1"
    assert (version.tags["e4t.identities"], version.tags["e4t.method"]) == ("3", "e4t")
    run = client.get_run(made["run"])
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe_hash"] == version.tags["e4t.recipe_hash"]
    assert run.data.params["inputs.adapters"] == f"{adapters}#1"


def test_registering_it_again_makes_no_second_version(made: dict[str, Any], tracking: str, adapters: str) -> None:
    assert register(tracking, "--adapters", adapters, "--name", "people") == made
    client = MlflowClient(tracking_uri=tracking, registry_uri=tracking)
    assert len(client.search_model_versions("name = 'people'")) == 1
    assert "MLFLOW_TRACKING_URI" not in os.environ, "nothing that follows is led there"


def test_it_holds_its_files_its_code_and_no_pickle(folder: Path, made: dict[str, Any]) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".bin", ".pyc"))]
    data = {name.removeprefix("artifacts/") for name in names if name.startswith("artifacts/")}
    (root,) = {name.split("/")[0] for name in data}
    kinds = {name.rsplit(".", 1)[-1] for name in data}
    assert kinds == {"safetensors", "json", "parquet", "yaml"}
    assert {f"{root}/recipe.yaml", f"{root}/record.json", f"{root}/module/module.safetensors"} <= data
    assert {"code/jobs/_serving/predictor.py", "code/e4t_core/record.py", "model.py"} <= names
    record = Record.from_json((folder / "artifacts" / root / "record.json").read_text(), "record")
    assert (record.kind, record.facts["identities"]) == ("model", 3)
    assert {"adapters", "shards", "checkpoint_sha256"} <= record.inputs.keys()
    requirements = (folder / "requirements.txt").read_text()
    assert re.search(r"^torch==", requirements, re.MULTILINE)


def pixels(png: bytes) -> NDArray[np.float32]:
    return (decode_image(png).numpy() + 1) * 127.5


def test_it_draws_what_generate_draws(
    made: dict[str, Any], tracking: str, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded by MLflow, and given a prompt and a seed of the benchmark."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    model = mlflow.pyfunc.load_model(made["model"])
    drawn = ImageSet.open(images)
    rows = drawn.table.to_pylist()[:3]
    asked = pd.DataFrame(
        [{"prompt": row["prompt_text"], "identity": row["identity"], "seed": row["seed"], "images": 1} for row in rows]
    )
    answer = model.predict(asked)
    assert answer["identity"].tolist() == [row["identity"] for row in rows]
    for image, expected in zip(answer["image"], drawn.read([0, 1, 2]), strict=True):
        # another batch size rounds differently, by a level here and there
        assert np.abs(pixels(base64.b64decode(image)) - pixels(expected)).max() <= 2
    more = model.predict(pd.DataFrame([{"prompt": "{} asleep", "identity": rows[0]["identity"], "images": 2}]))
    assert (more["row"].tolist(), more["seed"].tolist()) == ([0, 0], [0, 1])
    assert more["image"][0] != more["image"][1]
    with pytest.raises(UsageError, match="this model has no identity 'nobody'"):
        model.predict(pd.DataFrame([{"prompt": "{}", "identity": "nobody"}]))


@pytest.mark.full
@pytest.mark.cluster
def test_mlflows_own_command_predicts_from_a_server(
    mlflow_server: MlflowServer, adapters: str, folder: Path, tmp_path: Path
) -> None:
    made = register(mlflow_server.uri, "--adapters", adapters, "--name", "people")
    (root,) = (folder / "artifacts").iterdir()
    name = Bundle(Store(root)).identities[1]
    asked = {"dataframe_split": {"columns": ["prompt", "identity", "seed", "images"], "data": [["{}", name, 7, 2]]}}
    (tmp_path / "in.json").write_text(json.dumps(asked))
    command = [tool("mlflow"), "models", "predict", "-m", made["model"], "--env-manager", "local"]
    command += ["-i", str(tmp_path / "in.json"), "-o", str(tmp_path / "out.json")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment({"MLFLOW_TRACKING_URI": mlflow_server.uri, "PYTHONPATH": ""}),
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads((tmp_path / "out.json").read_text())["predictions"]
    assert [(row["identity"], row["seed"]) for row in answer] == [(name, 7), (name, 8)]
    assert all(base64.b64decode(row["image"]).startswith(b"\x89PNG") for row in answer)


def test_one_identity_by_name_and_nobody_else(
    tracking: str, adapters: str, folder: Path, tmp_path: Path, shards: str
) -> None:
    (whole,) = (folder / "artifacts").iterdir()
    names = Bundle(Store(whole)).identities
    summary = register(tracking, "--adapters", adapters, "--name", "one", "--identity", names[1])
    assert (summary["identities"], summary["version"]) == (1, 1)
    (root,) = (downloaded("models:/one/1", tracking, tmp_path) / "artifacts").iterdir()
    single, full = Bundle(Store(root)), Bundle(Store(whole))
    assert single.identities == [names[1]]
    held = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    assert not [name for name in names if name != names[1] and name.encode() in held]
    for mine, theirs in zip(single.read(names[1], 3), full.read(names[1], 3), strict=True):
        for key, value in vars(theirs).items():
            assert _same(vars(mine)[key], value), key
    dataset = ShardDataset.open(shards)
    key = full.adapters.facts(names[1])["input_key"]
    (row,) = [n for n, found in enumerate(dataset.table["key"].to_pylist()) if found == key]
    (sample,) = dataset.samples([row], ["ingest"])
    stored = full.identity(names[1], 0).images_N3HW[0]
    assert (decode_image(sample["image.png"]) == stored).all()


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool((a == b).all()) if hasattr(a, "all") else bool(a == b)


# --- what is refused


def test_wrong_requests_are_refused_before_anything_is_drawn() -> None:
    def asked(**row: Any) -> list[tuple[str, int]]:
        frame = pd.DataFrame([{"prompt": "a photo of {}", "identity": "ann", **row}])
        return [(wish.prompt, wish.seed) for wish in wishes_of(frame, seed=11)]

    assert asked() == [("a photo of {}", 11)]
    assert asked(seed=None, images=float("nan")) == [("a photo of {}", 11)]
    assert [seed for _, seed in asked(seed=5, images=3)] == [5, 6, 7]
    with pytest.raises(UsageError, match=r"row 0: prompt 'a photo' needs one \{\} where 'ann' is to be"):
        asked(prompt="a photo")
    with pytest.raises(UsageError, match=rf"images is 1000; it is a whole number from 1 to {MOST_IMAGES}"):
        asked(images=1000)
    with pytest.raises(UsageError, match=r"seed is 0\.5"):
        asked(seed=0.5)


def test_what_cannot_be_registered_is_refused(adapters: str, tracking: str, tmp_path: Path, shards: str) -> None:
    with pytest.raises(UsageError, match="--adapters is required"):
        register(tracking, "--name", "x")
    with pytest.raises(UsageError, match="--name is required"):
        register(tracking, "--adapters", adapters)
    with pytest.raises(UsageError, match="no adapter of 'nobody'"):
        register(tracking, "--adapters", adapters, "--name", "x", "--identity", "nobody")
    with pytest.raises(DataError, match="holds no finished pre-training"):
        register(tracking, "--adapters", adapters, "--name", "x", "--checkpoint", str(tmp_path))
    with pytest.raises(TrackingError, match="does not serve"):
        register(f"http://127.0.0.1:{free_port()}", "--adapters", adapters, "--name", "x")
    client = MlflowClient(tracking_uri=tracking, registry_uri=tracking)
    assert client.search_model_versions("name = 'x'") == []


def test_a_dry_run_registers_nothing(adapters: str, tracking: str) -> None:
    plan = register(tracking, "--adapters", adapters, "--name", "y", "--dry-run")
    assert (plan["dry_run"], plan["identities"], plan["bytes_adapters"] > 0) == (True, 3, True)
    assert MlflowClient(tracking_uri=tracking, registry_uri=tracking).search_model_versions("name = 'y'") == []
