"""The same loading code for every place a model may lie, and a clear error for every way it may be wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from e4t_core.backbones import Backbone, load_autoencoder, load_backbone, vae_weights_fingerprint
from e4t_core.backbones.config import BackboneConfig
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.errors import CheckpointMismatch, StorageError, UsageError, UserError
from e4t_core.storage import Store
from tests.backbones.conftest import RANDOM, images


def config(path: Path | str) -> BackboneConfig:
    return BackboneConfig(path=str(path), resolution=32)


def assert_same_weights(one: torch.nn.Module, two: torch.nn.Module) -> None:
    mine, theirs = one.state_dict(), two.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


# --- drawn from a seed


def test_a_seed_draws_the_same_weights_and_leaves_the_global_stream_alone(backbone: Backbone) -> None:
    before = torch.get_rng_state()
    again = load_backbone(RANDOM)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(again, backbone)
    assert again.identity() == backbone.identity()


def test_another_seed_draws_others(backbone: Backbone) -> None:
    other = load_backbone(RANDOM.model_copy(update={"random_seed": 4}))
    assert not torch.equal(other.token_table, backbone.token_table)
    assert all(other.identity()[part] != content for part, content in backbone.identity().items())


# --- from files


def test_a_saved_pipeline_loads_as_it_was(backbone: Backbone, pipeline_folder: Path) -> None:
    before = torch.get_rng_state()
    loaded = load_backbone(config(pipeline_folder))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(loaded, backbone)
    assert loaded.identity().keys() == backbone.identity().keys()
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_pipeline_in_an_object_store_is_the_same_model(pipeline_folder: Path, backbone: Backbone) -> None:
    store = Store("memory://loading/pipeline")
    store.put_folder(pipeline_folder)
    store.put("unet/diffusion_pytorch_model.fp16.safetensors", b"another precision")
    store.put("v1-5-pruned.ckpt", b"a pickle")
    loaded = load_backbone(config(store.uri))
    assert_same_weights(loaded, backbone)
    assert loaded.identity() == load_backbone(config(pipeline_folder)).identity()


def test_the_autoencoder_loads_alone_with_the_same_weights(pipeline_folder: Path, backbone: Backbone) -> None:
    for cfg in (RANDOM, config(pipeline_folder)):
        alone = load_autoencoder(cfg)
        torch.testing.assert_close(alone.to_moments(images()), backbone.to_moments(images()), rtol=0, atol=0)
        assert vae_weights_fingerprint(cfg) == load_backbone(cfg).identity()["vae"]


def test_fingerprints_follow_content(broken_folder: Path, pipeline_folder: Path) -> None:
    assert vae_weights_fingerprint(config(broken_folder)) == vae_weights_fingerprint(config(pipeline_folder))
    weights = broken_folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["decoder.conv_out.bias"] += 1
    save_file(tensors, weights)
    assert vae_weights_fingerprint(config(broken_folder)) != vae_weights_fingerprint(config(pipeline_folder))


def test_text_weights_with_stable_diffusions_own_prefix_load(broken_folder: Path, backbone: Backbone) -> None:
    weights = broken_folder / "text_encoder" / "model.safetensors"
    save_file({f"text_model.{name}": t for name, t in load_file(weights).items()}, weights, {"format": "pt"})
    assert_same_weights(load_backbone(config(broken_folder)), backbone)


def test_sharded_weights_load(broken_folder: Path, backbone: StableDiffusionBackbone) -> None:
    shutil.rmtree(broken_folder / "unet")
    backbone.unet.save_pretrained(broken_folder / "unet", max_shard_size="5MB")
    assert len(list((broken_folder / "unet").glob("*.safetensors"))) > 1
    loaded = load_backbone(config(broken_folder))
    assert_same_weights(loaded, backbone)


def test_a_v_prediction_model_says_so(broken_folder: Path) -> None:
    path = broken_folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    assert load_backbone(config(broken_folder)).schedule.prediction_type == "v_prediction"


def test_a_hub_id_is_fetched_without_the_files_that_are_not_needed(
    pipeline_folder: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        assert name == "owner/model"
        asked.append(allow_patterns)
        return str(pipeline_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert_same_weights(load_backbone(config("owner/model")), backbone)
    assert "unet/diffusion_pytorch_model.safetensors" in asked[0]
    assert not any("bin" in pattern or pattern.startswith("*") for pattern in asked[0])


# --- what can be wrong


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_more: object) -> str:
        raise LocalEntryNotFoundError("cannot reach the hub\nlong trace")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match=r"'owner/model'.*cannot reach the hub;.*download it once"):
        load_backbone(config("owner/model"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere/at/all", "no model folder '/nowhere/at/all'"),
        ("bundled:tinny", "did you mean 'tiny'"),
        ("bundled:sd15", "random_seed"),
        ("memory://loading/empty", "holds none of"),
    ],
)
def test_a_place_without_a_model(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_backbone(config(path))


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'stable_diffusion'"):
        load_backbone(RANDOM.model_copy(update={"name": "stable_difusion"}))


def test_a_resolution_that_does_not_fit() -> None:
    with pytest.raises(UsageError, match=r"backbone\.resolution is 40; .*multiple of 16"):
        load_backbone(RANDOM.model_copy(update={"resolution": 40}))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(broken_folder: Path, part: str) -> None:
    shutil.rmtree(broken_folder / part)
    with pytest.raises(UserError, match=f"has no '{part}/"):
        load_backbone(config(broken_folder))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_pickled_weights_are_not_read(broken_folder: Path, part: str) -> None:
    for path in (broken_folder / part).glob("*.safetensors"):
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()
    with pytest.raises(UserError, match=r"\.safetensors; convert the weights"):
        load_backbone(config(broken_folder))


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("unet", "cross_attention_dim", 64),
        ("unet", "layers_per_block", 2),
        ("vae", "latent_channels", 6),
        ("text_encoder", "hidden_size", 64),
        ("text_encoder", "num_hidden_layers", 4),
    ],
)
def test_weights_of_another_size(broken_folder: Path, part: str, key: str, value: int) -> None:
    path = broken_folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(CheckpointMismatch, match=f"{part} do not fit its config.json"):
        load_backbone(config(broken_folder))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_weights_with_a_tensor_missing(broken_folder: Path, part: str) -> None:
    (weights,) = (broken_folder / part).glob("*.safetensors")
    tensors = load_file(weights)
    tensors.popitem()
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(CheckpointMismatch, match="missing or unknown"):
        load_backbone(config(broken_folder))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_damaged_weights(broken_folder: Path, part: str, content: bytes | None) -> None:
    (weights,) = (broken_folder / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100_000] if content is None else content)
    with pytest.raises(CheckpointMismatch, match=part):
        load_backbone(config(broken_folder))


def test_a_configuration_that_is_not_json(broken_folder: Path) -> None:
    (broken_folder / "vae" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"vae/config.json is not JSON"):
        load_backbone(config(broken_folder))


@pytest.mark.parametrize(("key", "value"), [("in_channels", 9), ("class_embed_type", "timestep")])
def test_other_kinds_of_unet_are_refused(broken_folder: Path, key: str, value: object) -> None:
    path = broken_folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match="this UNet"):
        load_backbone(config(broken_folder).model_copy(update={"random_seed": 0}))


def test_a_store_that_refuses_is_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("memory://loading/refused")
    store.put("unet/config.json", b"{}")

    def refuse(*_args: object, **_more: object) -> bytes:
        raise PermissionError("AccessDenied")

    monkeypatch.setattr(type(store.fs), "_open", refuse)
    with pytest.raises(StorageError, match="permission denied"):
        load_backbone(config(store.uri))
