"""``lidb``: weights that fit their own picture, whoever else is tuned; what fails says why."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from e4t_core.adapters.lidb import LiDBConfig, Space, lidb_projections
from e4t_core.adapters.low_rank import low_rank_per_sample
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig, ClipConfig, Models
from e4t_core.bundled import bundled_folder
from e4t_core.config import validate
from e4t_core.errors import UsageError
from e4t_core.losses import diffusion_loss
from e4t_core.schema import Sample, decode_array, decode_json, encode_array
from pipelines.shards.commit import stage_identity
from pipelines.sources import RawSample
from pipelines.sources.tiny_world import render
from pipelines.stages import STAGES, Bad, Measured, StageConfig
from pipelines.stages.latent import Latent
from pipelines.stages.lidb import Lidb, LidbStageConfig
from tests.stages.helpers import ingested

MODELS = Models(backbone=BackboneConfig(path="bundled:tiny", resolution=32), clip=ClipConfig(path="none"))
SPACE = {"a": 12, "b": 6, "seed": 4}
TUNE = {"steps": 3, "identities": 2, "lr": 0.02, "probe": 2}


def build(tune: dict[str, Any] | None = None, **config: Any) -> Lidb:
    section = {"lidb": SPACE, "tune": {**TUNE, **(tune or {})}, "prompt": "a sks person", **config}
    return Lidb(validate(LidbStageConfig, section, "stages.lidb"), MODELS)


def ready(first: Lidb, **tune: Any) -> Lidb:
    """The stage with another tuning, on the models that are loaded already."""
    stage = build(tune)
    for name in ("backbone", "tunable", "ids_1T", "fitting"):
        setattr(stage, name, getattr(first, name))
    return stage


@pytest.fixture(scope="module")
def stage() -> Lidb:
    found = build()
    found.setup()
    return found


@pytest.fixture(scope="module")
def batch() -> list[Sample]:
    """Three people's latents."""
    latent = Latent(StageConfig(), MODELS)
    latent.setup()
    people = [
        {
            "__key__": f"person{i}",
            **ingested(RawSample(render("face", i, "photo", "plain", 0, split="test").png()), size=32),
        }
        for i in range(3)
    ]
    return [{"__key__": s["__key__"], **dict(made)} for s, made in zip(people, latent(people), strict=True)]


@pytest.fixture(scope="module")
def together(stage: Lidb, batch: list[Sample]) -> list[Measured]:
    """All three in one call, two at a time."""
    return good(stage(batch))


def good(results: Sequence[Measured | Bad]) -> list[Measured]:
    assert [type(r) for r in results] == [Measured] * len(results), results
    return [r for r in results if isinstance(r, Measured)]


def weights(result: Measured) -> Tensor:
    return torch.from_numpy(decode_array(result.members["lidb.npy"], "lidb.npy"))


def loss(backbone: Backbone, space: Space, weights_P: Tensor, sample: Sample, prompt: str) -> float:
    """Of one picture under noise that tuning never saw."""
    n, rng = 16, torch.Generator().manual_seed(9)
    moments = torch.from_numpy(decode_array(sample["latent.npy"], "")).float().expand(n, -1, -1, -1)
    noise = torch.randn(n, *backbone.latent_shape, generator=rng)
    t = torch.linspace(20, 980, n).long()
    latents, which = backbone.to_latent(moments), torch.zeros(n, dtype=torch.int64)
    change = space.expand(space.unflat(weights_P.unsqueeze(0)))
    with torch.no_grad(), low_rank_per_sample(lidb_projections(backbone), change, which):
        text = backbone.encode_text(backbone.tokenize([prompt] * n))
        said = backbone.denoise(backbone.schedule.add_noise(latents, noise, t), t, text)
    return float(diffusion_loss(said, backbone.schedule.target(latents, noise, t)).mean())


def test_it_is_made_by_targets() -> None:
    assert STAGES.get("lidb") is Lidb
    assert Lidb.command == "targets"


def test_a_target_is_flat_float32_and_says_where_it_lives(stage: Lidb, together: list[Measured]) -> None:
    space = Space.of(stage.backbone, LiDBConfig(**SPACE))
    for result in together:
        assert set(result.members) == {"lidb.npy", "lidb.json"}
        assert (weights(result).dtype, tuple(weights(result).shape)) == (torch.float32, (space.numbers,))
        about = decode_json(result.members["lidb.json"], "lidb.json")
        losses = {name: about.pop(name) for name in ("loss_before", "loss_after")}
        assert about == {**SPACE, "checksum": space.checksum, "steps": 3}
        assert {name: result.facts[name] for name in losses} == losses
        assert losses["loss_after"] < losses["loss_before"]
        assert result.facts["steps"] == 3
        assert result.facts["seconds"] > 0
    assert not torch.equal(weights(together[0]), weights(together[1]))


def test_the_weights_fit_their_own_picture_under_noise_they_never_saw(
    stage: Lidb, batch: list[Sample], together: list[Measured]
) -> None:
    space = stage.tunable.space
    nothing = space.flat(space.initial(1))[0]
    before, after = (loss(stage.backbone, space, w, batch[0], "a sks person") for w in (nothing, weights(together[0])))
    assert after < before


def test_company_and_number_at_once_change_rounding_alone(
    stage: Lidb, batch: list[Sample], together: list[Measured]
) -> None:
    start = stage.tunable.space.flat(stage.tunable.space.initial(1))[0]
    moved = torch.stack([weights(r) for r in together]) - start
    for results in (good(ready(stage, identities=3)(batch[::-1]))[::-1], good(ready(stage, identities=1)(batch))):
        again = torch.stack([weights(r) for r in results]) - start
        assert (again - moved).norm() < 1e-3 * moved.norm()


def test_again_the_same_bytes_and_only_the_clock_differs(
    stage: Lidb, batch: list[Sample], together: list[Measured]
) -> None:
    again = good(stage(batch))
    assert [r.members for r in again] == [r.members for r in together]
    assert [r.facts["seconds"] for r in again] != [r.facts["seconds"] for r in together]


def test_who_diverges_is_told_and_the_others_go_on(stage: Lidb, batch: list[Sample], together: list[Measured]) -> None:
    latent = decode_array(batch[1]["latent.npy"], "").copy()
    latent[0, 0, 0] = np.nan
    results = stage([batch[0], {**batch[1], "latent.npy": encode_array(latent)}, batch[2]])
    bad = results[1]
    assert isinstance(bad, Bad)
    assert bad.reason == "diverged"
    assert "loss or gradient is not finite at step 0 of 3; lower stages.lidb.tune.lr (0.02)" in bad.message
    assert set(bad.facts) == {"steps", "seconds"}  # the losses are no numbers
    for at in (0, 2):
        (result,) = good([results[at]])
        torch.testing.assert_close(weights(result), weights(together[at]), atol=1e-4, rtol=1e-3)


def test_whose_loss_does_not_fall_is_told(stage: Lidb, batch: list[Sample]) -> None:
    twice = [batch[0], {**batch[0], "__key__": "another"}]
    bad, other = ready(stage, steps=1, lr=1e-30)(twice)
    assert isinstance(bad, Bad)
    assert bad.reason == "not_improved"
    assert "after 1 steps; change stages.lidb.tune.lr (1e-30)" in bad.message
    assert bad.facts["loss_after"] == bad.facts["loss_before"]
    assert other.facts["loss_before"] != bad.facts["loss_before"]  # the noise is the key's own


def test_latents_of_another_resolution_are_refused(stage: Lidb) -> None:
    sample = {"__key__": "small", "latent.npy": encode_array(np.zeros((8, 4, 4), np.float16))}
    with pytest.raises(UsageError, match=r"latent.npy of small is \(8, 4, 4\); backbone.resolution = 32 needs"):
        stage([sample])


def test_what_changes_the_targets_changes_the_fingerprint_and_nothing_else() -> None:
    base, others = stage_identity(build()), [
        build({"steps": 5}),
        build({"lr": 0.01}),
        build({"precision": "bf16"}),
        build(lidb={**SPACE, "seed": 5}),
        build(prompt="a sks face"),
        build(seed=1),
    ]  # fmt: skip
    assert all(stage_identity(other) != base for other in others)
    assert stage_identity(build({"identities": 64}, resources={"batch_size": 256, "device": "cuda"})) == base


def weights_of(path: str | Path, seed: int | None) -> str:
    backbone = BackboneConfig(path=str(path), random_seed=seed, resolution=32)
    return Lidb(build().config, Models(backbone=backbone, clip=MODELS.clip)).weights()


def test_the_fingerprint_is_of_the_whole_model(tmp_path: Path) -> None:
    drawn = weights_of("bundled:tiny", 1)
    assert len({build().weights(), drawn, weights_of("bundled:tiny", 2)}) == 3
    copy = tmp_path / "copy"
    shutil.copytree(bundled_folder("tiny"), copy, ignore=shutil.ignore_patterns("*.safetensors"))
    assert weights_of(copy, 1) == drawn
    for changed, old, new in (
        ("scheduler/scheduler_config.json", "0.0", "0.1"),
        ("tokenizer/merges.txt", "e", "o"),
        ("text_encoder/config.json", "quick_gelu", "gelu"),
    ):
        text = (copy / changed).read_text()
        assert old in text
        (copy / changed).write_text(text.replace(old, new))
        assert weights_of(copy, 1) != drawn
        (copy / changed).write_text(text)
