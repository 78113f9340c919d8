"""``mask`` with a segmenter: what is written, what is refused, and that stores made without one stay as they are."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from PIL import Image

from e4t_core.backbones.segmenters import ClipSegConfig, SaliencyConfig, SegformerConfig, load_segmenter
from e4t_core.config import validate
from e4t_core.errors import UsageError
from e4t_core.images import decode_image
from e4t_core.losses import latent_mask
from e4t_core.schema import Sample
from pipelines.collate import collate
from pipelines.sources import RawSample
from pipelines.stages import Bad, Resources
from pipelines.stages.mask import Mask, MaskConfig
from tests.stages.helpers import MODELS, ingested, pixels
from tests.support.corpus import encoded
from tests.support.segmenters import PLAIN, clipseg_folder, onnx_folder, saliency, segformer_folder

SIDE = 32
SEGMENTERS = ("clipseg", "segformer", "saliency")


@pytest.fixture(scope="module")
def brightness(tmp_path_factory: pytest.TempPathFactory) -> SaliencyConfig:
    """Its probabilities are the pixels' brightness: the tests can say what they must be."""
    folder = onnx_folder(tmp_path_factory.mktemp("brightness"), shape=["N", 3, SIDE, SIDE])
    return saliency(folder, **PLAIN)


@pytest.fixture(scope="module")
def sections(brightness: SaliencyConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("models")
    return {
        "clipseg": ClipSegConfig(path=str(clipseg_folder(root / "clipseg")), prompts=("a cat", "the dog")),
        "segformer": SegformerConfig(path=str(segformer_folder(root / "segformer")), labels=("skin", "hair")),
        "saliency": brightness,
    }


def sample(levels: NDArray[Any], mask: NDArray[Any] | None = None, key: str = "0") -> Sample:
    """An ingested grey picture of these levels from 0 to 255."""
    grey = Image.fromarray(np.repeat(levels.astype(np.uint8)[..., None], 3, axis=-1))
    kept = None if mask is None else encoded(Image.fromarray(mask.astype(np.uint8)), "PNG")
    members = ingested(RawSample(encoded(grey, "PNG"), mask=kept), size=SIDE)
    assert not isinstance(members, Bad)
    return {"__key__": key, **members}


def ramp() -> NDArray[Any]:
    """Brighter from left to right, 0 to 248."""
    return np.tile(np.arange(SIDE) * 8, (SIDE, 1))


def share(count: int) -> NDArray[Any]:
    """``count`` white pixels on black."""
    levels = np.zeros(SIDE * SIDE)
    levels[:count] = 255
    return levels.reshape(SIDE, SIDE)


def colourful(seed: int) -> Sample:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    members = ingested(RawSample(encoded(picture, "PNG")), size=SIDE)
    return {"__key__": str(seed), **members}


def stage(**config: Any) -> Mask:
    made = Mask(MaskConfig(**config), MODELS)
    made.setup()
    return made


def bright(model: SaliencyConfig, **config: Any) -> Mask:
    return stage(mode="saliency", saliency=model, **config)


# --- what is written


@pytest.mark.parametrize("mode", SEGMENTERS)
def test_each_segmenter_writes_its_own_probabilities_soft_and_binary(mode: str, sections: dict[str, Any]) -> None:
    samples = [colourful(seed) for seed in range(3)]
    made = stage(mode=mode, **{mode: sections[mode]}, min_share=0.0, max_share=1.0)
    results = made(samples)
    want = load_segmenter(sections[mode])(torch.stack([decode_image(s["image.png"]) for s in samples]))
    for result, probabilities in zip(results, want.numpy(), strict=True):
        assert not isinstance(result, Bad)
        assert set(result) == {"mask.png", "mask_soft.png"} == set(made.writes)
        assert np.abs(pixels(result["mask_soft.png"]) / 255 - probabilities).max() <= 0.51 / 255
        assert np.array_equal(pixels(result["mask.png"]), np.where(probabilities >= 0.5, 255, 0))


def test_from_the_threshold_on_a_pixel_is_foreground(brightness: SaliencyConfig) -> None:
    for threshold in (0.25, 0.5, 200 / 255):
        (result,) = bright(brightness, threshold=threshold)([sample(ramp())])
        assert not isinstance(result, Bad)
        assert np.array_equal(pixels(result["mask.png"]), np.where(ramp() >= threshold * 255, 255, 0))
        assert np.array_equal(pixels(result["mask_soft.png"]), ramp())


def test_training_reads_the_binary_mask(brightness: SaliencyConfig) -> None:
    (result,) = bright(brightness)([sample(ramp())])
    assert not isinstance(result, Bad)
    batch = collate([{"__key__": "0", "__id__": "0", "__identity__": None, "__labels__": {}, **result}], ["mask"])
    assert batch["masks"].shape == (1, 1, SIDE, SIDE)
    assert batch["masks"].unique().tolist() == [0, 1]
    assert latent_mask(batch["masks"], (4, 4))[0, 0, 0].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("mode", SEGMENTERS)
def test_the_same_batch_gives_the_same_bytes(mode: str, sections: dict[str, Any]) -> None:
    samples = [colourful(seed) for seed in range(3)]
    config = {"mode": mode, mode: sections[mode], "min_share": 0.0, "max_share": 1.0}
    assert stage(**config)(samples) == stage(**config)(samples)


def test_the_company_in_a_batch_changes_nothing(brightness: SaliencyConfig) -> None:
    samples = [sample(ramp()), sample(share(0)), sample(ramp().T), sample(share(300))]
    made = bright(brightness)
    together = made(samples)
    assert together == [made([s])[0] for s in samples] == made(samples[::-1])[::-1]
    assert [isinstance(result, Bad) for result in together] == [False, True, False, False]
    assert made([]) == []


def test_the_model_is_loaded_on_the_stages_device(sections: dict[str, Any]) -> None:
    made = stage(mode="segformer", segformer=sections["segformer"], resources=Resources(device="meta"))
    assert {p.device.type for p in made.segmenter.parameters()} == {"meta"}


def test_it_moves_to_another_process_with_what_it_writes(brightness: SaliencyConfig) -> None:
    moved = pickle.loads(pickle.dumps(Mask(MaskConfig(mode="saliency", saliency=brightness), MODELS)))
    moved.setup()
    assert set(moved([sample(ramp())])[0]) == set(moved.writes)


# --- what is refused


@pytest.mark.parametrize(("count", "reason"), [(0, "empty_mask"), (10, "empty_mask"), (11, None), (512, None)])
def test_a_mask_with_hardly_any_foreground_is_quarantined(
    count: int, reason: str | None, brightness: SaliencyConfig
) -> None:
    """0.01 of 32 x 32 pixels is 10.24."""
    (result,) = bright(brightness)([sample(share(count))])
    assert (result.reason if isinstance(result, Bad) else None) == reason
    if isinstance(result, Bad):
        assert f"foreground on {count / 1024:.4g} of the image; 0.01 (stages.mask.min_share)" in result.message


@pytest.mark.parametrize(("count", "reason"), [(1024, "full_mask"), (1014, "full_mask"), (1013, None)])
def test_a_mask_of_all_the_image_is_quarantined(count: int, reason: str | None, brightness: SaliencyConfig) -> None:
    (result,) = bright(brightness)([sample(share(count))])
    assert (result.reason if isinstance(result, Bad) else None) == reason
    if isinstance(result, Bad):
        assert f"foreground on {count / 1024:.4g} of the image; 0.99 (stages.mask.max_share)" in result.message


def test_the_shares_are_the_recipes(brightness: SaliencyConfig) -> None:
    strict = bright(brightness, min_share=0.4, max_share=0.6)
    found = strict([sample(share(count)) for count in (300, 512, 700)])
    assert [r.reason if isinstance(r, Bad) else None for r in found] == ["empty_mask", None, "full_mask"]
    lenient = bright(brightness, min_share=0.0, max_share=1.0)
    kept = lenient([sample(share(0)), sample(share(1024))])
    assert [pixels(r["mask.png"]).mean() for r in kept if not isinstance(r, Bad)] == [0, 255]


def test_only_the_sample_with_a_bad_value_is_quarantined(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["mean"], ["map"]),  # of what is darker than the mean of 0.2: no number
    ]
    model = saliency(onnx_folder(tmp_path, nodes), **{**PLAIN, "mean": (0.2, 0.2, 0.2)})
    grey = sample(share(512) / 2 + 64)
    results = bright(model)([grey, sample(share(512)), grey])
    assert [isinstance(result, Bad) for result in results] == [False, True, False]
    assert results[1] == Bad(
        "not_finite",
        "stage 'mask': the map of saliency has values that are not finite; run the model in float32, or look at the "
        "image",
    )


# --- beside the source's masks


def test_the_segmenter_fills_in_only_what_the_source_lacks(brightness: SaliencyConfig) -> None:
    made = stage(missing="segment", saliency=brightness)
    with_mask, without = sample(ramp(), share(300)), sample(ramp())
    empty = sample(ramp(), share(0))
    results = made([without, with_mask, empty, sample(share(0)), without])
    assert [set(r) if not isinstance(r, Bad) else r.reason for r in results] == [
        {"mask.png", "mask_soft.png"},
        {"mask.png"},
        "empty_mask",
        "empty_mask",
        {"mask.png", "mask_soft.png"},
    ]
    assert results[1] == {"mask.png": with_mask["source_mask.png"]}
    assert results[0] == results[4] == bright(brightness)([without])[0]
    assert "highest level is 0" in results[2].message  # type: ignore[union-attr]


def test_a_mode_that_names_a_segmenter_leaves_the_sources_masks_aside(brightness: SaliencyConfig) -> None:
    made = bright(brightness)
    assert made([sample(ramp(), share(300))]) == made([sample(ramp())])


# --- stores that were made without a segmenter


@pytest.mark.parametrize("missing", ["quarantine", "full"])
def test_without_a_segmenter_the_stage_is_what_it_was(missing: str, sections: dict[str, Any]) -> None:
    """These facts are in the fingerprints and manifests of existing stores: changing one would remake them."""
    for extra in ({}, sections, {"threshold": 0.7, "min_share": 0.2, "max_share": 0.8}):
        made = Mask(MaskConfig(missing=missing, **extra), MODELS)  # type: ignore[arg-type]
        assert made.settings() == {"mode": "source", "missing": missing}
        assert list(made.settings()) == ["mode", "missing"]
        assert made.weights() == ""
        assert (made.version, made.reads, made.writes) == (1, ("ingest",), ("mask.png",))
    assert made([sample(ramp(), share(300))])[0] == {"mask.png": sample(ramp(), share(300))["source_mask.png"]}


def test_without_a_segmenter_no_model_is_loaded(sections: dict[str, Any]) -> None:
    gone = sections["segformer"].model_copy(update={"path": "/nowhere/at/all"})
    assert not hasattr(stage(segformer=gone), "segmenter")


# --- what the fingerprint holds


def identity(**config: Any) -> tuple[dict[str, Any], str]:
    made = Mask(MaskConfig(**config), MODELS)
    return made.settings(), made.weights()


@pytest.mark.parametrize(
    ("mode", "fields"),
    [
        ("clipseg", {"prompts": ("a cat",)}),
        ("segformer", {"labels": ("skin",)}),
        ("saliency", {"normalization": "minmax"}),
        ("saliency", {"output": "map"}),
        ("saliency", {"std": (1.0, 1.0, 2.0)}),
    ],
)
def test_what_changes_the_bytes_changes_the_fingerprint(
    mode: str, fields: dict[str, Any], sections: dict[str, Any]
) -> None:
    config = {"mode": mode, mode: sections[mode]}
    base = identity(**config)
    assert identity(**{**config, mode: sections[mode].model_copy(update=fields)}) != base
    for name, value in {"threshold": 0.6, "min_share": 0.1, "max_share": 0.9}.items():
        assert identity(**config, **{name: value}) != base
    assert identity(**{**config, "mode": "source", "missing": "segment"}) != base


def test_what_changes_no_byte_does_not(sections: dict[str, Any]) -> None:
    for mode in SEGMENTERS:
        config = {"mode": mode, mode: sections[mode]}
        base = identity(**config)
        assert identity(**config, missing="full", resources=Resources(actors=9)) == base
        assert identity(mode=mode, **sections) == base


def test_where_the_model_lies_is_not_what_it_is(brightness: SaliencyConfig, tmp_path: Path) -> None:
    base = identity(mode="saliency", saliency=brightness)
    data = (Path(brightness.path) / "model.onnx").read_bytes()
    (tmp_path / "other.onnx").write_bytes(data)
    moved = brightness.model_copy(update={"path": str(tmp_path), "file": "other.onnx"})
    assert identity(mode="saliency", saliency=moved) == base
    assert base[1]
    onnx_folder(tmp_path, shape=["N", 3, SIDE, None])
    other = brightness.model_copy(update={"path": str(tmp_path)})
    assert identity(mode="saliency", saliency=other)[1] != base[1]


# --- the recipe


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"mode": "clipseg"}, "mode 'clipseg' needs a section 'clipseg'"),
        ({"mode": "saliency", "clipseg": {"path": "a/b", "prompts": ["x"]}}, "needs a section 'saliency'"),
        ({"missing": "segment"}, "needs exactly one of the sections clipseg, segformer, saliency; it has none"),
        (
            {"missing": "segment", "saliency": {"path": "a/b"}, "segformer": {"path": "a/b", "labels": [1]}},
            "it has segformer and saliency",
        ),
        ({"min_share": 0.5, "max_share": 0.4}, r"min_share 0\.5 is above max_share 0\.4"),
        ({"threshold": 0}, r"stages\.mask\.threshold: 0 does not fit"),
        ({"max_share": 99}, r"stages\.mask\.max_share: 99 does not fit"),
        ({"clipseg": {"path": "a/b", "prompt": "a cat"}}, r"stages\.mask\.clipseg\.prompts: required"),
        ({"mode": "sourse"}, r"stages\.mask\.mode: 'sourse' does not fit"),
    ],
)
def test_a_recipe_that_does_not_fit_is_explained(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validate(MaskConfig, tree, "stages.mask")


def test_recipes_of_each_kind_are_read() -> None:
    for tree in (
        {"mode": "clipseg", "clipseg": {"path": "CIDAS/clipseg-rd64-refined", "prompts": ["a cat"]}},
        {"mode": "segformer", "segformer": {"path": "jonathandinu/face-parsing", "labels": ["skin", 10]}},
        {"mode": "saliency", "saliency": {"path": "s3://bucket/models", "file": "u2net.onnx", "output": "d0"}},
    ):
        config = validate(MaskConfig, tree, "stages.mask")
        assert config.kind == tree["mode"]
        assert config.segmenter == getattr(config, str(tree["mode"]))
