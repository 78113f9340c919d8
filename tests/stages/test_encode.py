"""``clip`` and ``latent``: the model's own figures, stored in half precision, never a value that is not one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from e4t_core.errors import UsageError
from e4t_core.images import decode_image
from e4t_core.schema import Sample, decode_array
from pipelines.sources import RawSample
from pipelines.stages import Bad, Resources, Stage
from pipelines.stages.base import StageConfig
from pipelines.stages.clip import Clip, ClipStageConfig
from pipelines.stages.latent import Latent
from tests.stages.helpers import MODELS, ingested
from tests.support.corpus import encoded, noise, quadrants


def samples(size: int = 64) -> list[Sample]:
    pictures = [quadrants(), *(noise(seed=seed).resize((96, 96)) for seed in range(4))]
    found = []
    for i, picture in enumerate(pictures):
        members = ingested(RawSample(encoded(picture, "PNG")), size=size)
        assert not isinstance(members, Bad)
        found.append({"__key__": f"{i:03d}", **members})
    return found


def ready(stage: Stage) -> Stage:
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def clip() -> Clip:
    return ready(Clip(ClipStageConfig(tokens=True), MODELS))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def latent() -> Latent:
    return ready(Latent(StageConfig(), MODELS))  # type: ignore[return-value]


def arrays(results: list[Any], member: str) -> np.ndarray:
    assert not [r for r in results if isinstance(r, Bad)], results
    found = [decode_array(r[member], member) for r in results]
    assert {a.dtype for a in found} == {np.dtype(np.float16)}
    return np.stack(found).astype(np.float32)


def stacked(batch: list[Sample]) -> Tensor:
    return torch.stack([decode_image(s["image.png"]) for s in batch])


@torch.inference_mode()
def test_clip_stores_what_the_model_says(clip: Clip) -> None:
    batch = samples()
    results = clip(batch)
    cls_BLD, tokens_BTD = clip.model.image_features(stacked(batch), tokens=True)
    assert tokens_BTD is not None
    assert cls_BLD.shape[1:] == clip.model.dims
    np.testing.assert_allclose(arrays(results, "clip_cls.npy"), cls_BLD.numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(arrays(results, "clip_tokens.npy"), tokens_BTD.numpy(), rtol=1e-3, atol=1e-3)


def test_patch_tokens_are_left_out_unless_asked_for() -> None:
    plain = ready(Clip(ClipStageConfig(), MODELS))
    assert [set(r) for r in plain(samples()[:2])] == [{"clip_cls.npy"}] * 2  # type: ignore[arg-type]


@torch.inference_mode()
def test_latent_stores_the_moments(latent: Latent) -> None:
    batch = samples()
    want = latent.autoencoder.to_moments(stacked(batch))
    got = arrays(latent(batch), "latent.npy")
    side = 64 // latent.autoencoder.factor
    assert got.shape == (len(batch), 2 * latent.autoencoder.channels, side, side)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "member"), [("clip", "clip_cls.npy"), ("latent", "latent.npy")])
def test_the_company_in_a_batch_changes_nothing(name: str, member: str, request: pytest.FixtureRequest) -> None:
    stage: Stage = request.getfixturevalue(name)
    batch = samples()
    together = arrays(stage(batch), member)
    alone = np.concatenate([arrays(stage([s]), member) for s in batch])
    backwards = arrays(stage(batch[::-1]), member)[::-1]
    np.testing.assert_allclose(alone, together, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(backwards, together, rtol=2e-3, atol=2e-3)
    assert np.abs(together[0] - together[1]).max() > 0.01, "different images give different features"


@pytest.mark.parametrize(("name", "member"), [("clip", "clip_cls.npy"), ("latent", "latent.npy")])
def test_the_same_batch_gives_the_same_bytes(name: str, member: str, request: pytest.FixtureRequest) -> None:
    stage: Stage = request.getfixturevalue(name)
    assert stage(samples()) == stage(samples())


@pytest.mark.parametrize(
    ("value", "message"),
    [(torch.nan, "not finite"), (torch.inf, "not finite"), (1e5, "reaches 100000; float16 holds up to 65504")],
)
@pytest.mark.parametrize(("name", "network"), [("clip", "model.image_features"), ("latent", "autoencoder.to_moments")])
def test_only_the_sample_with_a_bad_value_is_quarantined(
    name: str,
    network: str,
    value: float,
    message: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage: Stage = request.getfixturevalue(name)
    owner, method = network.split(".")
    monkeypatch.setattr(getattr(stage, owner), method, spoiled(getattr(getattr(stage, owner), method), 2, value))
    results = stage(samples())
    assert [i for i, r in enumerate(results) if isinstance(r, Bad)] == [2]
    bad = results[2]
    assert isinstance(bad, Bad)
    assert bad.reason == "not_finite"
    assert message in bad.message
    assert bad.message.startswith(f"stage '{name}': {stage.writes[0]} ")


def spoiled(forward: Callable[..., Any], index: int, value: float) -> Callable[..., Any]:
    """``forward`` with one number of sample ``index`` replaced."""

    def changed(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        first = (out[0] if isinstance(out, tuple) else out).clone(memory_format=torch.contiguous_format)
        first[index].view(-1)[5] = value
        return (first, *out[1:]) if isinstance(out, tuple) else first

    return changed


def test_images_of_another_size_than_the_backbones_name_the_setting(latent: Latent) -> None:
    with pytest.raises(UsageError, match=r"32 x 32, backbone\.resolution is 64: set stages\.ingest\.size=64"):
        latent(samples(size=32))


def changed(section: str, **fields: Any) -> Any:
    return MODELS.model_copy(update={section: getattr(MODELS, section).model_copy(update=fields)})


def identity(stage: Stage) -> tuple[dict[str, Any], str]:
    return stage.settings(), stage.weights()


def test_what_changes_the_bytes_changes_the_fingerprint_and_nothing_else() -> None:
    config = ClipStageConfig()
    base = identity(Clip(config, MODELS))
    assert identity(Clip(config, changed("clip", random_seed=1))) != base
    assert identity(Clip(config, changed("clip", every=1))) != base
    assert identity(Clip(config, changed("clip", dtype="bfloat16"))) != base
    assert identity(Clip(ClipStageConfig(tokens=True), MODELS)) != base
    assert identity(Clip(ClipStageConfig(resources=Resources(actors=9)), changed("backbone", random_seed=1))) == base
    base = identity(Latent(StageConfig(), MODELS))
    assert identity(Latent(StageConfig(), changed("backbone", random_seed=1))) != base
    assert identity(Latent(StageConfig(), changed("backbone", dtype="bfloat16"))) != base
    assert identity(Latent(StageConfig(), changed("clip", random_seed=1))) == base


def test_fingerprints_need_no_model() -> None:
    stages = Clip(ClipStageConfig(), MODELS), Latent(StageConfig(), MODELS)
    assert all(stage.weights() for stage in stages)
    assert not any(hasattr(stage, name) for stage in stages for name in ("model", "autoencoder"))


@pytest.mark.parametrize("name", ["clip", "latent"])
def test_what_was_decoded_ahead_is_not_decoded_again(name: str, request: pytest.FixtureRequest) -> None:
    stage, batch = request.getfixturevalue(name), samples()
    plain = stage([dict(sample) for sample in batch])
    stage.prepare(batch)
    for sample in batch:
        sample["image.png"] = b"whoever decodes now fails"
    assert stage(batch) == plain
