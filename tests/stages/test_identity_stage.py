"""``identity``: the metric's own embeddings, of unit length, nearer for one person than for two."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import Tensor

from e4t_core.config import validate
from e4t_core.errors import DataError, UsageError
from e4t_core.images import decode_image
from e4t_core.metrics.identity import IdentityConfig, IdentitySimilarity
from e4t_core.schema import Sample, decode_array, encode_array
from pipelines.collate import collate
from pipelines.shards.commit import stage_identity
from pipelines.sources import RawSample
from pipelines.sources.tiny_world import render
from pipelines.stages import STAGES, Bad
from pipelines.stages.identity import Identity, IdentityStageConfig
from tests.metrics.test_identity import NCHW, mean_colour, saved
from tests.stages.helpers import MODELS, ingested
from tests.support.corpus import encoded

TINY = "bundled:identity_tiny"


def build(path: str = TINY, **config: Any) -> Identity:
    return Identity(validate(IdentityStageConfig, {"path": path, **config}, "stages.identity"), MODELS)


def ready(path: str = TINY, **config: Any) -> Identity:
    stage = build(path, **config)
    stage.setup()
    return stage


def person(number: int, picture: int) -> Sample:
    """An ingested photo of a person that training never saw."""
    scene = ("plain", "beach", "snow", "night")[picture % 4]
    shown = ingested(RawSample(render("face", number, "photo", scene, picture, split="test").png()))
    return {"__key__": f"{number}-{picture}", **shown}


def flat(*colour: int) -> Sample:
    return {"__key__": str(colour), **ingested(RawSample(encoded(Image.new("RGB", (64, 64), colour), "PNG")))}


def embeddings(stage: Identity, batch: list[Sample]) -> np.ndarray:
    """(B, E), as stored."""
    results = stage(batch)
    assert [set(r) for r in results if not isinstance(r, Bad)] == [{"identity.npy"}] * len(batch)
    return np.stack([decode_array(dict(r)["identity.npy"], "identity.npy") for r in results])  # type: ignore[arg-type]


def test_it_is_found_by_its_name() -> None:
    assert STAGES.get("identity") is Identity


def test_embeddings_are_the_metrics_own() -> None:
    batch = [person(i, 0) for i in range(5)]
    metric = IdentitySimilarity(IdentityConfig(path=TINY), MODELS)
    metric.setup()
    images_B3HW: Tensor = torch.stack([decode_image(s["image.png"]) for s in batch])
    stored = embeddings(ready(), batch)
    assert stored.dtype == np.float16
    np.testing.assert_allclose(stored.astype(np.float32), metric.embed(images_B3HW).numpy(), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(stored.astype(np.float32), axis=1), 1, atol=1e-3)


def test_two_pictures_of_one_person_are_nearer_than_of_two() -> None:
    people, pictures = 12, 2
    stored = embeddings(ready(), [person(i, k) for i in range(people) for k in range(pictures)]).astype(np.float32)
    cosines = (stored @ stored.T).reshape(people, pictures, people, pictures)
    same = np.array([cosines[i, 0, i, 1] for i in range(people)])
    others = np.array([cosines[i, 0, j, 1] for i in range(people) for j in range(people) if i != j])
    assert (same[:, None] > others[None]).mean() > 0.98  # the chance that one pair is nearer than the other


def test_the_company_in_a_batch_changes_nothing() -> None:
    batch, stage = [person(i, 0) for i in range(5)], ready(resources={"batch_size": 2, "threads": 2})
    together = embeddings(stage, batch)
    assert stage(batch) == stage(batch)
    np.testing.assert_allclose(embeddings(stage, batch[::-1])[::-1], together, atol=2e-3)
    np.testing.assert_allclose(np.concatenate([embeddings(stage, [s]) for s in batch]), together, atol=2e-3)


@pytest.mark.parametrize(
    ("config", "want"),
    [
        ({"mean": [0, 0, 0], "std": [1, 1, 1]}, (200, 100, 50)),
        ({"mean": [0, 0, 0], "std": [1, 1, 1], "channels": "bgr"}, (50, 100, 200)),
        ({"mean": [0, 100, 0], "std": [1, 1, 2]}, (200, 0, 25)),
    ],
)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_embedder_is_fed_as_the_recipe_says(
    config: dict[str, Any], want: tuple[float, ...], layout: str, tmp_path: Path
) -> None:
    path = mean_colour(tmp_path / "m.onnx", ["N", 3, "H", "W"] if layout == "nchw" else ["N", "H", "W", 3])
    fed = {name: [float(v) for v in value] if isinstance(value, list) else value for name, value in config.items()}
    (got,) = embeddings(ready(path, layout=layout, size=[8, 8], **fed), [flat(200, 100, 50)])
    np.testing.assert_allclose(got, np.array(want) / np.linalg.norm(want), atol=2e-3)


def test_only_the_sample_with_a_value_that_is_not_finite_is_quarantined(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Log", ["mean"], ["embedding"]),
    ]
    ends = ([("image", TensorProto.FLOAT, NCHW)], [("embedding", TensorProto.FLOAT, ["N", 3])])
    stage = ready(saved(tmp_path / "log.onnx", nodes, *ends), mean=[0.0] * 3, std=[1.0] * 3)
    results = stage([flat(9, 9, 9), flat(0, 9, 9), flat(200, 9, 9)])
    assert [isinstance(r, Bad) for r in results] == [False, True, False]
    assert isinstance(results[1], Bad)
    assert results[1].reason == "not_finite"
    assert "stage 'identity': identity.npy has values that are not finite" in results[1].message


def test_what_changes_the_bytes_changes_the_fingerprint_and_nothing_else(tmp_path: Path) -> None:
    path = mean_colour(tmp_path / "m.onnx")
    base, others = stage_identity(build(path)), [
        build(),
        build(path, mean=[0.0, 0.0, 0.0]),
        build(path, std=[1.0, 1.0, 1.0]),
        build(path, channels="bgr"),
        build(path, layout="nhwc"),
        build(path, size=[8, 8]),
    ]  # fmt: skip
    assert all(stage_identity(other) != base for other in others)
    assert build(path).weights() == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(Path(path).read_bytes())
    assert stage_identity(build(str(copy), resources={"actors": 9, "batch_size": 1})) == base


def test_fingerprints_load_no_model_and_name_a_missing_one(tmp_path: Path) -> None:
    stage = build()
    assert stage.weights()
    assert not hasattr(stage, "embedder")
    with pytest.raises(UsageError, match=r"no ONNX file at '.*gone\.onnx'"):
        build(str(tmp_path / "gone.onnx")).weights()
    with pytest.raises(UsageError, match=r"takes any size"):
        ready(mean_colour(tmp_path / "m.onnx", ["N", 3, "H", "W"]))


def test_the_loader_reads_the_column() -> None:
    stored = [{**person(i, 0), "__id__": f"p{i}", "__identity__": f"p{i}", "__labels__": {}} for i in range(2)]
    for sample, result in zip(stored, ready()(stored), strict=True):
        assert not isinstance(result, Bad)
        sample |= result
    batch = collate(stored, ["identity"])
    assert set(batch) == {"keys", "ids", "identities", "parts", "identity_embeddings"}
    assert batch["identity_embeddings"].dtype == torch.float32
    torch.testing.assert_close(batch["identity_embeddings"].norm(dim=1), torch.ones(2), atol=1e-3, rtol=0)
    stored[1]["identity.npy"] = encode_array(np.zeros(3, np.float16))
    with pytest.raises(DataError, match=r"identity\.npy of 'p1' is \(3,\)"):
        collate(stored, ["identity"])
