"""open_clip behind ``ClipModel``: layer features, joint-space embeddings, preprocessing and loading."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from e4t_core.backbones import ClipModel, clip_weights_fingerprint, load_clip
from e4t_core.backbones.config import ClipConfig
from e4t_core.bundled import bundled_folder
from e4t_core.errors import CheckpointMismatch, UsageError, UserError
from e4t_core.storage import Store
from tests.backbones.conftest import RANDOM_CLIP, images


@pytest.fixture(scope="module")
def clip_folder(clip: ClipModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip model folder with the weights of ``clip``."""
    folder = Path(shutil.copytree(bundled_folder("clip_tiny"), tmp_path_factory.mktemp("clip") / "model"))
    save_file(clip.model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_features_are_the_blocks_own_outputs(clip: ClipModel) -> None:
    blocks, outputs = clip.model.visual.transformer.resblocks, []
    hooks = [block.register_forward_hook(lambda _m, _a, out: outputs.append(out)) for block in blocks]
    clip.embed_images(images(side=64))
    for hook in hooks:
        hook.remove()
    cls, tokens = clip.image_features(images(side=64), tokens=True)
    assert tokens is not None
    torch.testing.assert_close(cls, torch.stack([outputs[1][:, 0], outputs[3][:, 0]], dim=1))
    torch.testing.assert_close(tokens, outputs[3][:, 1:])
    assert (cls.shape[1:], tokens.shape[1:]) == (clip.dims, (clip.patches, clip.dims[1]))


@pytest.mark.parametrize(("every", "levels"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2]), (4, [3])])
def test_every_nth_layer_counted_from_one(every: int, levels: list[int], clip: ClipModel) -> None:
    some = load_clip(RANDOM_CLIP.model_copy(update={"every": every}))
    every_layer, last = load_clip(RANDOM_CLIP.model_copy(update={"every": 1})).image_features(images(), tokens=True)
    cls, tokens = some.image_features(images(), tokens=True)
    assert some.dims[0] == len(levels)
    torch.testing.assert_close(cls, every_layer[:, levels])
    torch.testing.assert_close(tokens, last)
    torch.testing.assert_close(some.image_features(images())[0], cls)


@pytest.mark.parametrize("every", [0, 5])
def test_a_step_outside_the_layers_is_refused(every: int) -> None:
    with pytest.raises(UsageError, match=f"clip.every is {every}; this model has 4 layers"):
        load_clip(RANDOM_CLIP.model_copy(update={"every": every}))


def published_transform(clip: ClipModel) -> Callable[[Image.Image], Tensor]:
    """open_clip's own way from a PIL image to the model's input."""
    preprocess = open_clip.transform.PreprocessCfg(**clip.model.visual.preprocess_cfg)
    return open_clip.transform.image_transform_v2(preprocess, is_train=False)


def test_embeddings_are_open_clips_own(clip: ClipModel) -> None:
    transform = published_transform(clip)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected = clip.model.encode_image(torch.stack([transform(Image.fromarray(p)) for p in pixels]), normalize=True)
    ours = clip.embed_images(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    texts = ["a photo of a cat", "a pencil sketch"]
    tokenizer = open_clip.get_tokenizer(f"local-dir:{bundled_folder('clip_tiny')}")
    torch.testing.assert_close(clip.embed_texts(texts), clip.model.encode_text(tokenizer(texts), normalize=True))
    for found in (ours, clip.embed_texts(texts)):
        torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
        assert found.shape == (2, clip.embedding_width)


def smooth(side: int) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side] / side * 6.28
    return np.stack([127 + 120 * np.sin(2 * x), 127 + 120 * np.cos(3 * y), 127 + 120 * np.sin(x + y)], -1).astype("u1")


@pytest.mark.parametrize("side", [32, 100, 256])
def test_other_sizes_are_resized_as_open_clip_does(clip: ClipModel, side: int) -> None:
    transform = published_transform(clip)
    pixels = smooth(side)
    expected = transform(Image.fromarray(pixels))
    ours = clip._prepare(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1)[0]
    assert float((ours - expected).abs().max()) < 0.03  # 8-bit rounding in PIL is 1 / 255 / std = 0.015


def test_images_that_are_not_square_are_refused(clip: ClipModel) -> None:
    with pytest.raises(ValueError, match="square"):
        clip.embed_images(torch.zeros(1, 3, 32, 64))


def test_half_precision_stays_close(clip: ClipModel) -> None:
    half = load_clip(RANDOM_CLIP.model_copy(update={"dtype": "bfloat16"}))
    assert half.model.visual.conv1.weight.dtype == torch.bfloat16
    cls, tokens = half.image_features(images(), tokens=True)
    assert tokens is not None
    assert cls.dtype == tokens.dtype == torch.float32
    torch.testing.assert_close(cls, clip.image_features(images())[0], rtol=0.1, atol=0.1)


# --- loading


def same(one: ClipModel, two: ClipModel) -> bool:
    mine, theirs = one.state_dict(), two.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_seed_draws_the_same_weights_and_leaves_the_global_stream_alone(clip: ClipModel) -> None:
    before = torch.get_rng_state()
    assert same(load_clip(RANDOM_CLIP), clip)
    assert torch.equal(torch.get_rng_state(), before)
    assert not same(load_clip(RANDOM_CLIP.model_copy(update={"random_seed": 4})), clip)


def test_everything_is_frozen(clip: ClipModel) -> None:
    assert not any(p.requires_grad for p in clip.parameters())
    assert not any(m.training for m in clip.modules())


def test_folder_and_store_hold_the_same_model(clip: ClipModel, clip_folder: Path) -> None:
    store = Store("memory://clip/model")
    store.put_folder(clip_folder)
    local, remote = ClipConfig(path=str(clip_folder)), ClipConfig(path=store.uri)
    before = torch.get_rng_state()
    assert same(load_clip(local), clip)
    assert torch.equal(torch.get_rng_state(), before)
    loaded = load_clip(remote)
    assert same(loaded, clip)
    torch.testing.assert_close(loaded.embed_texts(["a cat"]), clip.embed_texts(["a cat"]))
    assert clip_weights_fingerprint(local) == clip_weights_fingerprint(remote)
    assert clip_weights_fingerprint(local) != clip_weights_fingerprint(RANDOM_CLIP)


def test_open_clips_own_names_with_a_weights_file(clip: ClipModel, clip_folder: Path, tmp_path: Path) -> None:
    config = json.loads((clip_folder / "open_clip_config.json").read_text())["model_cfg"]
    del config["text_cfg"]["hf_tokenizer_name"]
    (tmp_path / "ViT-Test-8.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "ViT-Test-8.json")
    cfg = ClipConfig(path="ViT-Test-8", pretrained=str(clip_folder / "open_clip_model.safetensors"))
    assert same(load_clip(cfg), clip)
    with pytest.raises(UsageError, match=r"set clip\.pretrained"):
        load_clip(ClipConfig(path="ViT-Test-8"))
    with pytest.raises(UserError, match="no_such_tag"):
        load_clip(ClipConfig(path="ViT-Test-8", pretrained="no_such_tag"))
    other = tmp_path / "other.safetensors"
    save_file({**clip.model.state_dict(), "logit_scale": torch.tensor(0.0)}, other)
    changed = cfg.model_copy(update={"pretrained": str(other)})
    assert clip_weights_fingerprint(cfg) != clip_weights_fingerprint(changed)


def test_seeds_have_fingerprints_of_their_own() -> None:
    seeds = [clip_weights_fingerprint(RANDOM_CLIP.model_copy(update={"random_seed": s})) for s in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


def test_weights_of_another_size(clip_folder: Path, tmp_path: Path) -> None:
    folder = copied(clip_folder, tmp_path)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["layers"] = 6
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointMismatch, match=r"resblocks\.5"):
        load_clip(ClipConfig(path=str(folder)))


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_damaged_weights(clip_folder: Path, tmp_path: Path, content: bytes) -> None:
    folder = copied(clip_folder, tmp_path)
    (folder / "open_clip_model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointMismatch, match=r"does not fit open_clip_config\.json"):
        load_clip(ClipConfig(path=str(folder)))


def test_safetensors_come_before_any_pickle(clip: ClipModel, clip_folder: Path, tmp_path: Path) -> None:
    folder = copied(clip_folder, tmp_path)
    (folder / "open_clip_model.safetensors").rename(folder / "model.safetensors")
    torch.save({"not": torch.zeros(1)}, folder / "open_clip_pytorch_model.bin")
    assert same(load_clip(ClipConfig(path=str(folder))), clip)


def test_pickled_weights_are_not_read(clip: ClipModel, clip_folder: Path, tmp_path: Path) -> None:
    folder = copied(clip_folder, tmp_path)
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(clip.model.state_dict(), folder / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match="save the weights as safetensors"):
        load_clip(ClipConfig(path=str(folder)))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere", "no model folder '/nowhere'"),
        ("bundled:clip_tin", "did you mean 'clip_tiny'"),
        ("bundled:clip_vit_h_14", "set random_seed"),
        ("bundled:tiny", "has no open_clip_config.json"),
    ],
)
def test_a_place_without_a_model(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_clip(ClipConfig(path=path))
    with pytest.raises(UserError, match=message):
        clip_weights_fingerprint(ClipConfig(path=path))


def test_a_model_without_layers_to_look_into_is_refused() -> None:
    with pytest.raises(UserError, match="ModifiedResNet"):
        ClipModel.from_config("RN50")
