"""Segmenters, through the real loading path: small random models of the published classes, saved as they are published.

Nothing is downloaded. The preprocessing is checked against transformers' own image processors.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoImageProcessor,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    ViTImageProcessor,
)
from transformers import SegformerConfig as SegformerModelConfig

from e4t_core.backbones.image_input import InputFormat, Size
from e4t_core.backbones.segmenters import (
    ClipSegConfig,
    SaliencyConfig,
    SegformerConfig,
    SegmenterConfig,
    load_segmenter,
    segmenter_weights_fingerprint,
)
from e4t_core.backbones.segmenters.base import Segmenter
from e4t_core.backbones.segmenters.clipseg import ClipSeg
from e4t_core.backbones.segmenters.segformer import Segformer
from e4t_core.bundled import bundled_folder
from e4t_core.config import validate
from e4t_core.errors import CheckpointMismatch, StorageError, UsageError, UserError
from e4t_core.storage import Store
from tests.support.segmenters import (
    CAT,
    DOG,
    LEVEL,
    MEAN,
    PLAIN,
    STD,
    Shape,
    clipseg_folder,
    onnx_folder,
    photos,
    pictures,
    saliency,
    segformer_folder,
    tiny_clipseg,
    tiny_segformer,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("segmenters")
    return {
        "clipseg": clipseg_folder(root / "clipseg"),
        "segformer": segformer_folder(root / "segformer"),
        "saliency": onnx_folder(root / "saliency"),
    }


@pytest.fixture(scope="module")
def configs(folders: dict[str, Path]) -> dict[str, SegmenterConfig]:
    return {
        "clipseg": ClipSegConfig(path=str(folders["clipseg"]), prompts=(CAT, DOG)),
        "segformer": SegformerConfig(path=str(folders["segformer"]), labels=("skin", "nose")),
        "saliency": saliency(folders["saliency"]),
    }


@pytest.fixture(scope="module")
def segmenters(configs: dict[str, SegmenterConfig]) -> dict[str, Segmenter]:
    return {kind: load_segmenter(config) for kind, config in configs.items()}


KINDS = ("clipseg", "segformer", "saliency")
HUB_KINDS = KINDS[:2]


def at(config: SegmenterConfig, path: object) -> SegmenterConfig:
    return config.model_copy(update={"path": str(path)})


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file; None removes one."""
    values = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


# --- every kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(48, 48), (20, 20), (100, 60)])
def test_maps_are_probabilities_at_image_size(
    kind: str, height: int, width: int, segmenters: dict[str, Segmenter]
) -> None:
    maps = segmenters[kind](photos(2, side=height, width=width))
    assert (maps.shape, maps.dtype) == ((2, height, width), torch.float32)
    assert 0 <= maps.min() < maps.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_company_in_a_batch_changes_nothing(kind: str, segmenters: dict[str, Segmenter]) -> None:
    images = photos(4)
    together = segmenters[kind](images)
    alone = torch.cat([segmenters[kind](image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert (together[0] - together[1]).abs().max() > 0.05, "different images have different maps"


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_images_give_the_same_maps(
    kind: str, segmenters: dict[str, Segmenter], configs: dict[str, SegmenterConfig]
) -> None:
    before = torch.get_rng_state()
    again = load_segmenter(configs[kind])
    assert torch.equal(again(photos()), segmenters[kind](photos()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", HUB_KINDS)
def test_everything_is_frozen_and_on_its_device(kind: str, configs: dict[str, SegmenterConfig]) -> None:
    loaded = load_segmenter(configs[kind], "meta")
    assert {t.device.type for t in (*loaded.parameters(), *loaded.buffers())} == {"meta"}
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not any(m.training for m in loaded.model.modules())
    assert loaded(photos().to("meta")).shape == (3, 48, 48)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bucket_holds_the_same_model(
    kind: str, folders: dict[str, Path], configs: dict[str, SegmenterConfig], segmenters: dict[str, Segmenter]
) -> None:
    store = Store(f"memory://segmenters/{kind}")
    store.put_folder(folders[kind])
    store.put("onnx/model.safetensors", b"another precision")
    remote = at(configs[kind], store.uri)
    assert torch.equal(load_segmenter(remote)(photos()), segmenters[kind](photos()))
    assert segmenter_weights_fingerprint(remote) == segmenter_weights_fingerprint(configs[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_hub_id_is_fetched_without_what_is_not_needed(
    kind: str,
    folders: dict[str, Path],
    configs: dict[str, SegmenterConfig],
    segmenters: dict[str, Segmenter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        assert name == "owner/model"
        asked.extend(allow_patterns)
        return str(folders[kind])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert torch.equal(load_segmenter(at(configs[kind], "owner/model"))(photos()), segmenters[kind](photos()))
    assert ("model.onnx" if kind == "saliency" else "model.safetensors") in asked
    assert not any(pattern.startswith("*") or "bin" in pattern for pattern in asked)


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_without_a_model_is_named(kind: str, configs: dict[str, SegmenterConfig]) -> None:
    wrong: dict[str, tuple[type[Exception], str]] = {
        "/nowhere/at/all": (UsageError, "no model folder '/nowhere/at/all'"),
        "bundled:tinny": (UsageError, "did you mean 'tiny'"),
        "memory://segmenters/empty": (StorageError, "holds none of"),
    }
    for path, (error, message) in wrong.items():
        for use in (load_segmenter, segmenter_weights_fingerprint):
            with pytest.raises(error, match=message):
                use(at(configs[kind], path))


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprints_follow_content_and_load_nothing(
    kind: str, folders: dict[str, Path], configs: dict[str, SegmenterConfig], tmp_path: Path
) -> None:
    folder = copied(folders[kind], tmp_path)
    config = at(configs[kind], folder)
    seen = {segmenter_weights_fingerprint(configs[kind])}
    assert segmenter_weights_fingerprint(config) in seen
    for file in sorted(folder.iterdir()):
        if file.suffix == ".json":
            edit(file, added=1)
        else:
            file.write_bytes(file.read_bytes() + b"no model can be loaded from this")
        assert segmenter_weights_fingerprint(config) not in seen, file.name
        seen.add(segmenter_weights_fingerprint(config))
    with pytest.raises(UserError):
        load_segmenter(config)


@pytest.mark.parametrize("kind", HUB_KINDS)
def test_who_saved_a_configuration_is_not_what_it_is(
    kind: str, folders: dict[str, Path], configs: dict[str, SegmenterConfig], tmp_path: Path
) -> None:
    folder = copied(folders[kind], tmp_path)
    edit(folder / "config.json", _name_or_path="somebody/model")
    assert segmenter_weights_fingerprint(at(configs[kind], folder)) == segmenter_weights_fingerprint(configs[kind])


# --- preprocessing


@pytest.mark.parametrize("kind", HUB_KINDS)
@pytest.mark.parametrize("side", [20, 48, 100, 256])
@pytest.mark.parametrize(("resample", "levels"), [(2, 1.01), (3, 3.0)])
def test_images_are_scaled_as_transformers_does(
    kind: str,
    side: int,
    resample: int,
    levels: float,
    folders: dict[str, Path],
    configs: dict[str, SegmenterConfig],
    tmp_path: Path,
) -> None:
    """transformers rounds to 8 bits after each of two passes, and cuts off what bicubic overshoots; ours does so last.

    That moves no pixel by more than ``levels``, and all by a third of a level in the mean.
    """
    folder = copied(folders[kind], tmp_path)
    edit(folder / "preprocessor_config.json", resample=resample, size={"height": 40, "width": 56})
    want = AutoImageProcessor.from_pretrained(folder)(pictures(photos(side=side)), return_tensors="pt").pixel_values
    got = load_segmenter(at(configs[kind], folder)).prepared(photos(side=side))
    assert got.shape == want.shape == (3, 3, 40, 56)
    assert float((got - want).abs().max()) < levels * LEVEL
    assert float((got - want).abs().mean()) < 0.35 * LEVEL


def test_without_resizing_nothing_is_rounded(folders: dict[str, Path], segmenters: dict[str, Segmenter]) -> None:
    images = photos(side=32)
    want = ViTImageProcessor.from_pretrained(folders["clipseg"])(pictures(images), return_tensors="pt").pixel_values
    torch.testing.assert_close(segmenters["clipseg"].prepared(images), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", HUB_KINDS)
def test_mean_std_and_factor_are_the_processors_own(
    kind: str, folders: dict[str, Path], configs: dict[str, SegmenterConfig], tmp_path: Path
) -> None:
    folder = copied(folders[kind], tmp_path)
    edit(folder / "preprocessor_config.json", image_mean=[0, 1, 2], image_std=[1, 2, 4], rescale_factor=1)
    white = load_segmenter(at(configs[kind], folder)).prepared(torch.ones(1, 3, 8, 8))
    assert white.mean((0, 2, 3)).tolist() == pytest.approx([255, 127, 253 / 4], rel=1e-5)


def test_a_size_of_one_number_is_a_square(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["segformer"], tmp_path)
    edit(folder / "preprocessor_config.json", size=32)
    loaded = load_segmenter(SegformerConfig(path=str(folder), labels=(1,)))
    assert loaded.prepared(photos()).shape[-2:] == (32, 32)


def test_the_layout_that_transformers_5_writes(
    folders: dict[str, Path], segmenters: dict[str, Segmenter], tmp_path: Path
) -> None:
    tiny_clipseg().save_pretrained(tmp_path)
    old = folders["clipseg"]
    processor = CLIPSegProcessor(ViTImageProcessor.from_pretrained(old), CLIPTokenizer.from_pretrained(old))
    processor.save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    assert not (tmp_path / "vocab.json").exists()
    loaded = load_segmenter(ClipSegConfig(path=str(tmp_path), prompts=(CAT, DOG)))
    torch.testing.assert_close(loaded(photos()), segmenters["clipseg"](photos()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": {"shortest_edge": 32}}, r"preprocessor_config\.json\.size\.height: required"),
        ({"image_mean": None}, r"preprocessor_config\.json\.image_mean: required"),
        ({"image_std": [0, 1, 1]}, r"image_std\.0: 0 does not fit"),
        ({"do_center_crop": True}, "do_center_crop: True does not fit"),
        ({"do_normalize": False}, "do_normalize: False does not fit"),
        ({"resample": 0}, "resample: 0 does not fit: Input should be 2 or 3"),
    ],
)
def test_other_preprocessing_is_refused(
    fields: dict[str, Any], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = copied(folders["segformer"], tmp_path)
    edit(folder / "preprocessor_config.json", **fields)
    with pytest.raises(UsageError, match=message):
        load_segmenter(SegformerConfig(path=str(folder), labels=(1,)))


# --- loading transformers' models


@pytest.mark.parametrize("kind", HUB_KINDS)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(
    kind: str, name: str, folders: dict[str, Path], configs: dict[str, SegmenterConfig], tmp_path: Path
) -> None:
    folder = copied(folders[kind], tmp_path)
    (folder / name).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickled weights are not read")
    for use in (load_segmenter, segmenter_weights_fingerprint):
        with pytest.raises(UserError, match=f"has no {name}; "):
            use(at(configs[kind], folder))


def test_clipseg_needs_a_tokenizer(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["clipseg"], tmp_path)
    (folder / "vocab.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer; it needs tokenizer\.json or vocab\.json"):
        load_segmenter(ClipSegConfig(path=str(folder), prompts=(CAT,)))


@pytest.mark.parametrize(("kind", "other"), [HUB_KINDS, HUB_KINDS[::-1]])
def test_another_class_of_model_is_named(
    kind: str, other: str, folders: dict[str, Path], configs: dict[str, SegmenterConfig]
) -> None:
    for use in (load_segmenter, segmenter_weights_fingerprint):
        with pytest.raises(UserError, match=f"describes a '{other}' model; it must be a '{kind}' model"):
            use(at(configs[kind], folders[other]))


def test_a_classifier_of_the_same_family_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["segformer"], tmp_path)
    tiny_segformer(SegformerForImageClassification).save_pretrained(folder)
    with pytest.raises(
        CheckpointMismatch,
        match=r"tensors of a SegformerForSemanticSegmentation are .*decode_head",
    ):
        load_segmenter(SegformerConfig(path=str(folder), labels=(1,)))


@pytest.mark.parametrize("kind", HUB_KINDS)
def test_weights_that_do_not_fit(
    kind: str, folders: dict[str, Path], configs: dict[str, SegmenterConfig], tmp_path: Path
) -> None:
    folder = copied(folders[kind], tmp_path)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    last = sorted(tensors)[-1]
    kept = {name: tensor for name, tensor in tensors.items() if name != last}
    for changed in (kept, {**tensors, "surprise": torch.zeros(1)}, {**kept, last: torch.zeros(3, 5)}):
        save_file(changed, weights, {"format": "pt"})
        with pytest.raises(CheckpointMismatch):
            load_segmenter(at(configs[kind], folder))
    weights.write_bytes(b"not safetensors at all")
    with pytest.raises(CheckpointMismatch, match=r"do not fit its config\.json"):
        load_segmenter(at(configs[kind], folder))


@pytest.mark.parametrize("content", ["{", "[1]", "7"])
def test_a_configuration_that_is_no_json_object(content: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["segformer"], tmp_path)
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is no JSON object"):
        load_segmenter(SegformerConfig(path=str(folder), labels=(1,)))


def test_published_checkpoints_names_load(folders: dict[str, Path], tmp_path: Path) -> None:
    """The names in NVIDIA's files, and the buffer that CLIPSeg's carry along."""
    names = load_file(folders["segformer"] / "model.safetensors").keys()
    assert {"segformer.encoder.patch_embeddings.0.proj.weight", "decode_head.linear_c.0.proj.weight"} <= names
    folder = copied(folders["clipseg"], tmp_path)
    tensors = load_file(folder / "model.safetensors")
    old = {f"clip.{net}_model.embeddings.position_ids": torch.arange(12)[None] for net in ("text", "vision")}
    save_file({**tensors, **old}, folder / "model.safetensors", {"format": "pt"})
    assert load_segmenter(ClipSegConfig(path=str(folder), prompts=(CAT,)))(photos()).isfinite().all()


@pytest.mark.parametrize("kind", HUB_KINDS)
def test_weights_in_several_files_load(
    kind: str,
    folders: dict[str, Path],
    configs: dict[str, SegmenterConfig],
    segmenters: dict[str, Segmenter],
    tmp_path: Path,
) -> None:
    folder = copied(folders[kind], tmp_path)
    (folder / "model.safetensors").unlink()
    (tiny_clipseg() if kind == "clipseg" else tiny_segformer()).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    torch.testing.assert_close(load_segmenter(at(configs[kind], folder))(photos()), segmenters[kind](photos()))


# --- clipseg


def clipseg(folder: Path, *prompts: str) -> Segmenter:
    return load_segmenter(ClipSegConfig(path=str(folder), prompts=prompts))


def test_clipseg_gives_transformers_own_probabilities(folders: dict[str, Path]) -> None:
    folder, images = folders["clipseg"], photos(side=32)
    processor = CLIPSegProcessor(ViTImageProcessor.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))
    inputs = processor(text=[DOG] * 3, images=pictures(images), padding=True, return_tensors="pt")
    with torch.no_grad():
        maps = CLIPSegForImageSegmentation.from_pretrained(folder)(**inputs).logits.sigmoid()
    want = F.interpolate(maps[:, None], (32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(clipseg(folder, DOG)(images), want, atol=1e-5, rtol=0)


def test_of_several_prompts_each_pixel_takes_the_likeliest(folders: dict[str, Path]) -> None:
    images = photos(side=16)  # the size of the model's own map: no averaging of neighbours
    cat, dog = (clipseg(folders["clipseg"], prompt)(images) for prompt in (CAT, DOG))
    assert (cat - dog).max() > 0.02
    assert (dog - cat).max() > 0.02
    torch.testing.assert_close(clipseg(folders["clipseg"], CAT, DOG)(images), torch.maximum(cat, dog))
    torch.testing.assert_close(clipseg(folders["clipseg"], DOG, CAT)(images), torch.maximum(cat, dog))


def test_a_prompt_that_is_too_long_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"has \d+ tokens; the model reads 12: shorten it"):
        clipseg(folders["clipseg"], "a cat " * 10)


@pytest.mark.parametrize("prompts", [[], [""]])
def test_prompts_must_say_something(prompts: list[str]) -> None:
    with pytest.raises(UsageError, match="prompts"):
        validate(ClipSegConfig, {"path": "x", "prompts": prompts}, "clipseg")


# --- segformer


def segformer(folder: Path, *labels: str | int) -> Segmenter:
    return load_segmenter(SegformerConfig(path=str(folder), labels=labels))


def test_segformer_sums_transformers_own_probabilities(folders: dict[str, Path]) -> None:
    folder, images = folders["segformer"], photos(side=64)
    inputs = SegformerImageProcessor.from_pretrained(folder)(pictures(images), return_tensors="pt")
    with torch.no_grad():
        classes = SegformerForSemanticSegmentation.from_pretrained(folder)(**inputs).logits.softmax(1)
    want = F.interpolate(classes[:, [1, 3]].sum(1, keepdim=True), (64, 64), mode="bilinear")[:, 0]
    torch.testing.assert_close(segformer(folder, "skin", "hair")(images), want, atol=1e-5, rtol=0)


def test_names_and_numbers_name_the_same_classes_and_each_counts_once(folders: dict[str, Path]) -> None:
    folder = folders["segformer"]
    want = segformer(folder, "skin", "hair")(photos())
    for labels in ((1, 3), ("hair", 1), ("skin", 1, "hair", 3, 3)):
        assert torch.equal(segformer(folder, *labels)(photos()), want)
    others = segformer(folder, "background", "nose")(photos())
    torch.testing.assert_close(want + others, torch.ones_like(want))


def test_classes_of_one_name_all_count(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["segformer"], tmp_path)
    edit(folder / "config.json", id2label={"0": "background", "1": "ear", "2": "nose", "3": "ear"})
    assert torch.equal(segformer(folder, "ear")(photos()), segformer(folder, 1, 3)(photos()))


def test_an_unknown_class_names_the_nearest(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"no class 'skn'; did you mean 'skin'\? \(choose from background, hair"):
        segformer(folders["segformer"], "hair", "skn")
    with pytest.raises(UsageError, match="no class 4; its classes are 0 to 3"):
        segformer(folders["segformer"], 4)
    with pytest.raises(UsageError, match="labels"):
        validate(SegformerConfig, {"path": "x", "labels": []}, "segformer")


# --- saliency


def flat(*levels: float) -> Tensor:
    """(B, 3, 8, 8) grey images of levels from 0 to 1."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 8, 8) * 2 - 1


def halves(low: float, high: float) -> Tensor:
    """(1, 3, 8, 8): top half, bottom half."""
    image = flat(low).clone()
    image[:, :, 4:] = high * 2 - 1
    return image


def test_pixels_are_normalised_as_configured(tmp_path: Path) -> None:
    folder = onnx_folder(tmp_path)
    image = torch.tensor([0.2, 0.6, 0.7]).view(1, 3, 1, 1).expand(1, 3, 8, 8) * 2 - 1
    plain = load_segmenter(saliency(folder, **PLAIN))
    torch.testing.assert_close(plain(image), torch.full((1, 8, 8), 0.5))
    moved = load_segmenter(saliency(folder, mean=(0.0, 0.2, 0.4), std=(1.0, 0.5, 0.5), normalization="none"))
    torch.testing.assert_close(moved(image), torch.full((1, 8, 8), (0.2 + 0.8 + 0.6) / 3))
    published = load_segmenter(saliency(folder)).prepared(image).mean((0, 2, 3))
    want = [(pixel - mean) / std for pixel, mean, std in zip([0.2, 0.6, 0.7], MEAN, STD, strict=True)]
    assert published.tolist() == pytest.approx(want, abs=1e-5)


def test_minmax_stretches_each_map_on_its_own_and_a_flat_one_has_no_foreground(tmp_path: Path) -> None:
    loaded = load_segmenter(saliency(onnx_folder(tmp_path)))
    maps = loaded(torch.cat([halves(0.1, 0.9), halves(0.6, 0.5), flat(0.7)]))
    assert [(float(m[0, 0]), float(m[-1, -1])) for m in maps] == [(0, 1), (1, 0), (0, 0)]


def test_a_sigmoid_is_applied_if_it_is_still_to_be(tmp_path: Path) -> None:
    loaded = load_segmenter(saliency(onnx_folder(tmp_path), **{**PLAIN, "normalization": "sigmoid"}))
    torch.testing.assert_close(loaded(flat(0.0, 1.0))[:, 0, 0], torch.tensor([0.0, 1.0]).sigmoid())


def test_logits_are_not_taken_for_probabilities(tmp_path: Path) -> None:
    loaded = load_segmenter(saliency(onnx_folder(tmp_path), normalization="none"))
    with pytest.raises(
        UsageError, match=r"goes from -1\.986\d* to 2\.439\d*, so it holds no probabilities: .*'sigmoid'"
    ):
        loaded(halves(0.0, 1.0))


def test_a_map_that_is_scaled_down_loses_no_foreground(tmp_path: Path) -> None:
    first_column = np.zeros((8, 8), np.float32)
    first_column[:, 0] = 1
    loaded = load_segmenter(saliency(weighted(tmp_path, first_column), **PLAIN))
    assert loaded(torch.ones(1, 3, 2, 2))[0, 0, 0] > 0.1


def test_a_value_that_is_no_number_does_not_become_one(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Log", ["mean"], ["map"]),  # of what is darker than the mean: no number
    ]
    for normalization in ("minmax", "sigmoid"):
        loaded = load_segmenter(saliency(onnx_folder(tmp_path, nodes), normalization=normalization))
        assert loaded(flat(0.0, 0.9)).isnan().flatten(1).any(1).tolist() == [True, False]


@pytest.fixture
def two_outputs(tmp_path: Path) -> Path:
    """``fused`` (B, 1, h, w) is the brightness, ``side`` (B, h, w) its square."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["fused"], axes=[1], keepdims=1),
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["mean", "mean"], ["side"]),
    ]
    return onnx_folder(tmp_path, nodes, fused=[None] * 4, side=[None] * 3)


@pytest.mark.parametrize(("output", "want"), [(0, 0.5), ("fused", 0.5), (1, 0.25), ("side", 0.25)])
def test_the_output_is_chosen_by_name_or_number(output: str | int, want: float, two_outputs: Path) -> None:
    loaded = load_segmenter(saliency(two_outputs, output=output, **PLAIN))
    torch.testing.assert_close(loaded(flat(0.5)), torch.full((1, 8, 8), want))


def test_an_output_that_is_not_there_is_named(two_outputs: Path) -> None:
    with pytest.raises(UsageError, match="no output 'fusd'; did you mean 'fused'"):
        load_segmenter(saliency(two_outputs, output="fusd"))
    for number in (2, -1):
        with pytest.raises(UsageError, match=f"output is {number}; .*model.onnx has 2: fused, side"):
            load_segmenter(saliency(two_outputs, output=number))


def test_a_fixed_size_is_read_from_the_model(tmp_path: Path) -> None:
    folder = onnx_folder(tmp_path, shape=["N", 3, 4, 12])
    assert load_segmenter(saliency(folder)).prepared(photos()).shape[-2:] == (4, 12)
    assert load_segmenter(saliency(folder, size=(4, 12)))(photos()).shape == (3, 48, 48)
    with pytest.raises(UsageError, match=r"size is \(8, 8\), but .*model.onnx takes \(4, 12\); leave size out"):
        load_segmenter(saliency(folder, size=(8, 8)))


def test_a_model_of_any_size_takes_the_configured_one_or_u2nets(tmp_path: Path) -> None:
    folder = onnx_folder(tmp_path, shape=["N", 3, "H", "W"])
    assert load_segmenter(saliency(folder, size=(10, 14))).prepared(photos()).shape[-2:] == (10, 14)
    assert load_segmenter(saliency(folder)).prepared(photos()).shape[-2:] == (320, 320)


def test_models_of_one_image_and_of_any_number_agree(tmp_path: Path) -> None:
    """A model whose map depends on the number of images it is given shows how they come."""
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"], start=0, end=1),
        helper.make_node("Cast", ["shape"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Div", ["mean", "count"], ["map"]),
    ]
    one = load_segmenter(saliency(onnx_folder(tmp_path / "one", nodes, [1, 3, 8, 8]), **PLAIN))
    any_number = load_segmenter(saliency(onnx_folder(tmp_path / "any", nodes), **PLAIN))
    torch.testing.assert_close(one(flat(0.4, 0.8))[:, 0, 0], torch.tensor([0.4, 0.8]))
    torch.testing.assert_close(any_number(flat(0.4, 0.8))[:, 0, 0], torch.tensor([0.2, 0.4]))
    with pytest.raises(UsageError, match="takes exactly 4 images at once; export it for one or for any number"):
        load_segmenter(saliency(onnx_folder(tmp_path / "four", nodes, [4, 3, 8, 8])))


def test_half_precision_is_close(tmp_path: Path) -> None:
    half = load_segmenter(saliency(onnx_folder(tmp_path / "half", kind=TensorProto.FLOAT16), **PLAIN))
    full = load_segmenter(saliency(onnx_folder(tmp_path / "full"), **PLAIN))
    torch.testing.assert_close(half(photos()), full(photos()), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        (["N", 8, 8, 3], TensorProto.FLOAT, r"needs \(batch, 3, height, width\)"),
        (["N", 3, 8], TensorProto.FLOAT, r"needs \(batch, 3, height, width\)"),
        (
            ["N", 3, 8, 8],
            TensorProto.UINT8,
            r"takes tensor\(uint8\); a model of images takes tensor\(float\)",
        ),
    ],
)
def test_a_model_of_another_input_is_refused(shape: Shape, kind: int, message: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["image"], ["map"])]
    with pytest.raises(UsageError, match=message):
        load_segmenter(saliency(onnx_folder(tmp_path, nodes, shape, kind, map=shape)))


def test_an_output_that_is_no_map_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["image"], ["map"])]
    loaded = load_segmenter(saliency(onnx_folder(tmp_path, nodes)))
    with pytest.raises(UsageError, match=r"output 'map' of .*model.onnx is \(2, 3, 8, 8\) for 2 images; a map is"):
        loaded(flat(0.1, 0.2))


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    onnx_folder(tmp_path / "onnx").joinpath("model.onnx").rename(tmp_path / "u2net.onnx")
    with pytest.raises(UsageError, match=r"no file 'u2nett\.onnx'; did you mean 'u2net\.onnx'"):
        load_segmenter(saliency(tmp_path, file="u2nett.onnx"))
    with pytest.raises(UsageError, match=r"is a file: set path to '/models' and file to 'u2net\.onnx'"):
        load_segmenter(saliency(Path("/models/u2net.onnx")))
    (tmp_path / "u2net.onnx").write_bytes(b"not a model" * 100)
    with pytest.raises(UsageError, match=r"u2net\.onnx is no ONNX model that onnxruntime"):
        load_segmenter(saliency(tmp_path, file="u2net.onnx"))


def test_weights_beside_the_file_belong_to_the_model(tmp_path: Path) -> None:
    store = Store("memory://segmenters/beside")
    graphs, prints, maps = tmp_path / "graphs", [], []
    for i, level in enumerate((0.25, 0.75)):
        outside = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 0}
        folder = weighted(graphs / str(i) / "onnx", np.full((8, 8), level, np.float32), **outside)
        store.put_folder(folder.parent)
        assert store.exists("onnx/model.onnx.data")
        for path in (str(folder.parent), store.uri):
            config = SaliencyConfig(path=path, file="onnx/model.onnx", **PLAIN)  # type: ignore[arg-type]
            prints.append(segmenter_weights_fingerprint(config))
            maps.append(float(load_segmenter(config)(flat(1.0)).mean()))
    assert maps == pytest.approx([0.25, 0.25, 0.75, 0.75])
    assert prints[0] == prints[1] != prints[2] == prints[3]


def weighted(folder: Path, weight: NDArray[np.float32], **options: Any) -> Path:
    """``model.onnx`` whose map is the brightness times ``weight``; ``options`` say where the weight is kept."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["mean", "weight"], ["map"]),
    ]
    model = onnx.load(onnx_folder(folder) / "model.onnx")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    onnx.save(model, folder / "model.onnx", **options)
    return folder


def test_a_device_that_is_not_there_is_named(folders: dict[str, Path]) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(UsageError, match=r"device 'cuda:0'.*onnxruntime-gpu"):
        load_segmenter(saliency(folders["saliency"]), "cuda:0")


# --- facts of the full-size models, on meta


def square(side: int) -> InputFormat:
    return InputFormat(size=Size(height=side, width=side), image_mean=(0.5,) * 3, image_std=(0.5,) * 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("depths", "widths", "decoder", "million"),
    [([2, 2, 2, 2], [32, 64, 160, 256], 256, 3.8), ([3, 6, 40, 3], [64, 128, 320, 512], 768, 84.7)],
    ids=["b0", "b5"],
)
def test_segformers_sizes_are_those_of_the_papers_table_1(
    depths: list[int], widths: list[int], decoder: int, million: float
) -> None:
    config = SegformerModelConfig(depths=depths, hidden_sizes=widths, decoder_hidden_size=decoder, num_labels=150)
    with torch.device("meta"):
        model = SegformerForSemanticSegmentation(config).eval()
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == million
    segmenter = Segformer(model, [12], square(512)).to("meta")
    assert segmenter.foreground(torch.empty(2, 3, 512, 512, device="meta")).shape == (2, 128, 128)


def test_clipsegs_decoder_has_the_papers_size() -> None:
    config = CLIPSegConfig(vision_config={"patch_size": 16}, use_complex_transposed_convolution=True)
    with torch.device("meta"):
        model = CLIPSegForImageSegmentation(config).eval()
    assert sum(p.numel() for p in model.decoder.parameters()) == pytest.approx(1_122_305, rel=0.005)
    tokenizer = CLIPTokenizer.from_pretrained(bundled_folder("tiny") / "tokenizer")
    segmenter = ClipSeg(model, tokenizer, [CAT, DOG], square(352)).to("meta")
    assert segmenter(torch.empty(2, 3, 512, 512, device="meta")).shape == (2, 512, 512)
