"""BLIP behind ``Captioner``: transformers' own sentences, from wherever the model lies, the same each time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

from e4t_core.backbones.captioner import Captioner, CaptionerConfig, captioner_weights_fingerprint, load_captioner
from e4t_core.errors import CheckpointMismatch, UsageError, UserError
from e4t_core.storage import Store
from tests.support.blip import save_blip

SAYS = "a photo of a woman smiling , with a hat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("blip") / "model")


@pytest.fixture(scope="module")
def reciting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("blip") / "reciting", SAYS)


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


def config(path: Path | str, **fields: Any) -> CaptionerConfig:
    return CaptionerConfig(path=str(path), **fields)


def pixels(count: int = 6, side: int = 32) -> np.ndarray:
    """(B, H, W, 3) uint8."""
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def tensors(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


# --- what it says


@pytest.mark.parametrize("prompt", ["", "a photo of"])
@pytest.mark.parametrize("beams", [1, 3])
def test_sentences_are_transformers_own(folder: Path, prompt: str, beams: int) -> None:
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    processor = BlipProcessor(BlipImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    images = [Image.fromarray(image) for image in pixels()]
    inputs = processor(images=images, text=[prompt] * len(images) if prompt else None, return_tensors="pt")
    ids = model.generate(**inputs, do_sample=False, num_beams=beams, max_new_tokens=12)
    expected = [text if text != prompt else "" for text in processor.batch_decode(ids, skip_special_tokens=True)]
    captioner = load_captioner(config(folder, prompt=prompt, beams=beams, max_new_tokens=12))
    assert captioner.sentences(tensors(pixels())) == expected
    assert len(set(expected)) > 3, "the test's model says different things of different images"


def test_an_image_gets_its_sentence_in_any_company(folder: Path) -> None:
    captioner, images = load_captioner(config(folder)), tensors(pixels())
    together = captioner.sentences(images)
    assert captioner.sentences(images.flip(0)) == together[::-1]
    assert [captioner.sentences(image[None])[0] for image in images] == together


def test_a_prompt_begins_every_sentence_and_is_none_by_itself(folder: Path, tmp_path: Path) -> None:
    images = tensors(pixels())
    said = load_captioner(config(folder, prompt=" a photo  of ")).sentences(images)
    assert all(s.startswith("a photo of ") for s in said if s)
    silent = save_blip(tmp_path / "silent", "a photo of")
    assert load_captioner(config(silent, prompt="a photo of")).sentences(images) == [""] * 6
    assert load_captioner(config(silent)).sentences(images) == ["a photo of"] * 6


def test_a_sentence_ends_where_the_model_or_the_limit_ends_it(reciting: Path) -> None:
    images = tensors(pixels(2))
    assert load_captioner(config(reciting)).sentences(images) == ["a photo of a woman smiling, with a hat"] * 2
    assert load_captioner(config(reciting, max_new_tokens=5)).sentences(images) == ["a photo of a woman"] * 2


def test_a_sentence_longer_than_the_model_reads_is_refused(folder: Path) -> None:
    load_captioner(config(folder, prompt="a photo of", max_new_tokens=44))
    with pytest.raises(UsageError, match=r"max_new_tokens is 45, after a prompt of 4 tokens; this model reads 48"):
        load_captioner(config(folder, prompt="a photo of", max_new_tokens=45))


def test_the_search_is_the_recipes_and_not_the_folders(folder: Path, broken: Path) -> None:
    (broken / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 9.0, "max_length": 4}))
    images = tensors(pixels())
    assert load_captioner(config(broken)).sentences(images) == load_captioner(config(folder)).sentences(images)


# --- what it sees


def smooth(side: int) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side * 6.28
    waves = [127 + 120 * np.sin(2 * x), 127 + 120 * np.cos(3 * y), 127 + 120 * np.sin(x + y)]
    return np.stack(waves, -1).astype("u1")[None]


@pytest.mark.parametrize(("side", "tolerance"), [(32, 1e-5), (20, 0.03), (100, 0.03), (256, 0.03)])
@pytest.mark.parametrize("resample", [2, 3])
def test_images_are_prepared_as_its_processor_does(broken: Path, side: int, tolerance: float, resample: int) -> None:
    mean, std = [0.3, 0.4, 0.5], [0.2, 0.25, 0.3]
    BlipImageProcessor(
        size={"height": 32, "width": 32}, resample=resample, image_mean=mean, image_std=std
    ).save_pretrained(broken)
    images = smooth(side)
    processor = BlipImageProcessor.from_pretrained(broken)
    expected = processor([Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
    ours = load_captioner(config(broken)).prepared(tensors(images))
    assert float((ours - expected).abs().max()) < tolerance  # 8-bit rounding in Pillow is 1 / 255 / std = 0.02


def test_newer_folders_keep_the_preprocessing_in_another_file(folder: Path, broken: Path) -> None:
    processor = BlipProcessor(BlipImageProcessor.from_pretrained(broken), AutoTokenizer.from_pretrained(broken))
    (broken / "preprocessor_config.json").unlink()
    processor.save_pretrained(broken)
    assert not (broken / "preprocessor_config.json").exists()
    images = tensors(pixels(side=40))
    assert load_captioner(config(broken)).sentences(images) == load_captioner(config(folder)).sentences(images)


# --- loading


def same(one: Captioner, two: Captioner) -> bool:
    mine, theirs = one.state_dict(), two.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_it_is_frozen_and_leaves_the_global_stream_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    captioner = load_captioner(config(folder))
    captioner.sentences(tensors(pixels(1)))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(p.requires_grad for p in captioner.parameters())
    assert not any(m.training for m in captioner.modules())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(reciting: Path, dtype: Any) -> None:
    captioner = load_captioner(config(reciting, dtype=dtype))
    assert {p.dtype for p in captioner.parameters()} == {getattr(torch, dtype)}
    assert captioner.sentences(tensors(pixels(1))) == ["a photo of a woman smiling, with a hat"]


def test_folder_and_store_hold_the_same_model(folder: Path) -> None:
    store = Store("memory://captioner/model")
    store.put_folder(folder)
    store.put("pytorch_model.bin", b"a pickle")
    assert same(load_captioner(config(store.uri)), load_captioner(config(folder)))
    assert captioner_weights_fingerprint(config(store.uri)) == captioner_weights_fingerprint(config(folder))


def test_a_hub_id_is_fetched_without_the_files_that_are_not_needed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def snapshot(_name: str, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert same(load_captioner(config("owner/captioner")), load_captioner(config(folder)))
    assert {"model.safetensors", "preprocessor_config.json", "vocab.txt"} <= set(asked)
    assert not any("bin" in pattern or pattern.startswith("*") for pattern in asked)


def test_the_table_that_older_transformers_saved_is_no_unknown_tensor(folder: Path, broken: Path) -> None:
    weights = load_file(broken / "model.safetensors")
    weights["text_decoder.bert.embeddings.position_ids"] = torch.arange(48)[None]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    assert same(load_captioner(config(broken)), load_captioner(config(folder)))


def edit(file: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """A change of one JSON file of a folder."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return apply


def other_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["vision_model.post_layernorm.bias"] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "change",
    [
        other_weights,
        edit("preprocessor_config.json", lambda c: c.update(image_mean=[0, 0, 0])),
        edit("tokenizer.json", lambda c: c["model"]["vocab"].update(cat=16, person=17)),
    ],
)
def test_the_fingerprint_follows_what_sentences_follow_from(folder: Path, broken: Path, change: Any) -> None:
    (broken / "README.md").write_text("# no part of the model")
    assert captioner_weights_fingerprint(config(broken)) == captioner_weights_fingerprint(config(folder))
    change(broken)
    assert captioner_weights_fingerprint(config(broken)) != captioner_weights_fingerprint(config(folder))


# --- what can be wrong


def gone(*names: str) -> Callable[[Path], Any]:
    return lambda folder: [(folder / name).unlink() for name in names]


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    gone("model.safetensors")(folder)


def preprocessor(**fields: Any) -> Callable[[Path], Any]:
    return edit("preprocessor_config.json", lambda c: c.update(fields))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (gone("config.json"), r"has no config\.json; it must be a transformers model folder"),
        (
            edit("config.json", lambda c: c.update(model_type="git")),
            r"a 'git' model; it must be a 'blip' model",
        ),
        (gone("vocab.txt", "tokenizer.json"), r"has no tokenizer; it needs tokenizer\.json or vocab\.txt"),
        (pickled, r"has no model\.safetensors; convert the weights"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is no JSON object"),
    ],
)
def test_a_folder_that_is_no_captioner(broken: Path, damage: Any, message: str) -> None:
    damage(broken)
    for ask in (load_captioner, captioner_weights_fingerprint):
        with pytest.raises(UserError, match=message):
            ask(config(broken))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (gone("preprocessor_config.json"), r"has no preprocessor_config\.json"),
        (lambda f: (f / "tokenizer.json").write_text("{"), r"tokenizer .* cannot be read"),
        (preprocessor(do_normalize=False), r"do_normalize: False does not fit"),
        (edit("preprocessor_config.json", lambda c: c.pop("image_std")), r"image_std: required, but not given"),
        (preprocessor(size={"height": 64, "width": 64}), r"scales images to 64 x 64.*takes 32 x 32"),
        (preprocessor(size={"shortest_edge": 32}), r"size\.height: required, but not given"),
        (preprocessor(resample=1), r"resample: 1 does not fit: .*2 or 3"),
    ],
)
def test_preprocessing_that_does_not_fit(broken: Path, damage: Any, message: str) -> None:
    damage(broken)
    with pytest.raises(UserError, match=message):
        load_captioner(config(broken))


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "model.safetensors").write_bytes(b"not safetensors at all"),
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:50_000]),
        lambda f: save_file({"no": torch.zeros(1)}, f / "model.safetensors", {"format": "pt"}),
        edit("config.json", lambda c: c["vision_config"].update(hidden_size=64)),
        edit("config.json", lambda c: c["text_config"].update(num_hidden_layers=3)),
        edit("config.json", lambda c: c["text_config"].update(num_hidden_layers=1)),
    ],
)
def test_weights_that_do_not_fit(broken: Path, damage: Any) -> None:
    damage(broken)
    with pytest.raises(CheckpointMismatch, match=r"do not fit its config\.json"):
        load_captioner(config(broken))
