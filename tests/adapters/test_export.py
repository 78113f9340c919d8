"""LoRA files: the libraries that they are for load them, and draw what we draw."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from peft import LoraConfig, PeftModel, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from e4t_core.adapters.export import FORMATS, export_low_rank
from e4t_core.adapters.export.kohya import layer_key
from e4t_core.adapters.lidb import lidb_projections
from e4t_core.adapters.low_rank import LowRank, low_rank_per_sample, merged
from e4t_core.backbones.base import Backbone, Projection
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.errors import UsageError
from e4t_core.record import RECORD_KEY, Record
from e4t_core.storage import Store

RANK = 3
RECORD = Record.of("lora", {"seed": 0}, facts={"identity": "ann"})
NAME = "people/ann"
ONE = torch.tensor([0])
Layers = dict[str, LowRank]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError(f"something called {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


class Stack:
    """diffusers' own pipeline over a copy of the small backbone, and weights for its layers."""

    def __init__(self, backbone: Backbone) -> None:
        assert isinstance(backbone, StableDiffusionBackbone)
        self.backbone = copy.deepcopy(backbone)
        self.projections: dict[str, Projection] = lidb_projections(self.backbone)
        generator = torch.Generator().manual_seed(2)

        def factor(*shape: int) -> Tensor:
            return 0.12 * torch.randn(1, *shape, generator=generator)

        sizes = {n: (p.module.out_features, p.module.in_features) for n, p in self.projections.items()}
        self.layers: Layers = {n: LowRank(factor(m, RANK), factor(RANK, i)) for n, (m, i) in sizes.items()}
        self.pipeline = StableDiffusionPipeline(
            vae=self.backbone.autoencoder.vae,
            text_encoder=self.backbone.text_encoder,
            tokenizer=self.backbone.tokenizer,
            unet=self.backbone.unet,
            scheduler=DDIMScheduler.from_config(self.backbone.scheduler_config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.plain = self.draw()
        with low_rank_per_sample(self.projections, self.layers, ONE):
            self.ours = self.draw()

    def draw(self) -> Tensor:
        """(1, 3, H, W) in [0, 1]."""
        settings = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": 32, "width": 32, "output_type": "pt"}
        return self.pipeline("a photo of a person", generator=torch.Generator().manual_seed(1), **settings).images

    def network(self, name: str) -> Any:
        """A copy of one network to wrap."""
        return copy.deepcopy(getattr(self.backbone, name))

    def outputs(self, name: str, network: Any) -> Tensor:
        """What a network that was loaded with an adapter says."""
        generator = torch.Generator().manual_seed(3)
        if name == "text_encoder":
            return network(self.backbone.tokenize(["a photo of a person"])).last_hidden_state
        x = torch.randn(1, *self.backbone.latent_shape, generator=generator)
        text = torch.randn(1, self.backbone.max_tokens, self.backbone.text_width, generator=generator)
        return network(x, torch.tensor([300]), encoder_hidden_states=text).sample


@pytest.fixture(scope="module")
def stack(backbone: Backbone) -> Iterator[Stack]:
    with torch.no_grad():
        yield Stack(backbone)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_the_weights_under_test_change_the_picture(stack: Stack) -> None:
    assert (stack.ours - stack.plain).abs().max() > 0.02
    for network in ("unet", "text_encoder"):
        alone = {n: w for n, w in stack.layers.items() if n.startswith(network)}
        with merged(stack.projections, alone):
            assert (stack.draw() - stack.plain).abs().max() > 0.005


@pytest.mark.parametrize(
    ("fmt", "file", "given"),
    [
        ("diffusers", f"{NAME}/pytorch_lora_weights.safetensors", NAME),
        ("kohya", f"{NAME}.safetensors", f"{NAME}.safetensors"),
    ],
    ids=["diffusers", "kohya"],
)
def test_diffusers_draws_what_we_draw(stack: Stack, tmp_path: Path, fmt: str, file: str, given: str) -> None:
    written = export_low_rank(stack.layers, fmt, Store(tmp_path), NAME, RECORD)
    assert written == {file: (tmp_path / file).stat().st_size}
    stack.pipeline.load_lora_weights(str(tmp_path / given))
    try:
        same(stack.draw(), stack.ours)
        stack.pipeline.fuse_lora()
        same(stack.draw(), stack.ours)
        stack.pipeline.unfuse_lora()
    finally:
        stack.pipeline.unload_lora_weights()
    same(stack.draw(), stack.plain)


@pytest.mark.parametrize("network", ["unet", "text_encoder"])
def test_peft_computes_what_we_compute(stack: Stack, tmp_path: Path, network: str) -> None:
    export_low_rank(stack.layers, "peft", Store(tmp_path), NAME, RECORD)
    folder = tmp_path / NAME / network
    plain = stack.outputs(network, stack.network(network))
    with low_rank_per_sample(stack.projections, stack.layers, ONE):
        ours = stack.outputs(network, getattr(stack.backbone, network))
    assert (ours - plain).abs().max() > 0.05
    loaded = PeftModel.from_pretrained(stack.network(network), str(folder))
    same(stack.outputs(network, loaded), ours)
    same(stack.outputs(network, loaded.merge_and_unload()), ours)

    bare = inject_adapter_in_model(LoraConfig.from_pretrained(str(folder)), stack.network(network))
    state = {k.removeprefix("base_model.model."): v for k, v in load_file(folder / "adapter_model.safetensors").items()}
    set_peft_model_state_dict(bare, state)
    same(stack.outputs(network, bare), ours)


class BeforeTransformers5(nn.Module):
    """A text encoder whose modules lie under ``text_model``."""

    def __init__(self, text_model: nn.Module) -> None:
        super().__init__()
        self.text_model = text_model

    def forward(self, ids_BT: Tensor) -> Any:
        return self.text_model(ids_BT)


def test_peft_finds_the_text_encoder_of_older_transformers(stack: Stack, tmp_path: Path) -> None:
    export_low_rank(stack.layers, "peft", Store(tmp_path), NAME, RECORD)
    with low_rank_per_sample(stack.projections, stack.layers, ONE):
        ours = stack.outputs("text_encoder", stack.backbone.text_encoder)
    old = BeforeTransformers5(stack.network("text_encoder"))
    loaded = PeftModel.from_pretrained(old, str(tmp_path / NAME / "text_encoder"))
    same(stack.outputs("text_encoder", loaded), ours)


def test_kohyas_keys_are_those_of_the_module_tree_of_stable_diffusion_15() -> None:
    """sd-scripts walks the networks and names every linear layer inside a Transformer2DModel or CLIPAttention by
    prefix and path; its text encoder is transformers' of before version 5, with ``text_model`` in front."""
    sd15 = StableDiffusionBackbone.from_config("sd15")
    trees = [
        ("lora_unet", sd15.unet, "Transformer2DModel", ""),
        ("lora_te", sd15.text_encoder, "CLIPAttention", "text_model."),
    ]
    listed = {
        f"{prefix}_{start}{name}.{inside}".replace(".", "_")
        for prefix, network, owner, start in trees
        for name, module in network.named_modules()
        if type(module).__name__ == owner
        for inside, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    }
    ours = {layer_key(*name.split(".", 1)): name for name in lidb_projections(sd15)}
    assert len(ours) == 192
    assert ours.keys() <= listed
    assert {key[-8:] for key in listed - ours.keys()} == {"ff_net_2"}, "all but the feed-forward networks' second layer"
    for key in (
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0",
        "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj",
        "lora_te_text_model_encoder_layers_11_self_attn_out_proj",
    ):
        assert key in ours


def test_every_file_tells_its_rank_scale_and_origin(stack: Stack, tmp_path: Path) -> None:
    for fmt in FORMATS:
        for key in export_low_rank(stack.layers, fmt, Store(tmp_path), f"{fmt}/ann", RECORD):
            if key.endswith(".json"):
                config = json.loads((tmp_path / key).read_text())
                assert (config["r"], config["lora_alpha"], config["peft_type"]) == (RANK, RANK, "LORA")
                continue
            with safe_open(tmp_path / key, framework="pt") as file:
                assert Record.from_json(file.metadata()[RECORD_KEY], key) == RECORD
                about = file.metadata()
    kohya = load_file(tmp_path / "kohya/ann.safetensors")
    alphas = [tensor for name, tensor in kohya.items() if name.endswith(".alpha")]
    assert len(alphas) == len(stack.layers)
    assert all(alpha.item() == RANK for alpha in alphas)
    assert about["format"] == "pt"


def test_a1111_is_told_which_stable_diffusion_it_is_for(tmp_path: Path) -> None:
    for width, told in ((768, "False"), (1024, "True")):
        layers = {"unet.mid_block.attn2.to_k": LowRank(torch.ones(1, 4, 2), torch.ones(1, 2, width))}
        export_low_rank(layers, "kohya", Store(tmp_path), "one", RECORD)
        with safe_open(tmp_path / "one.safetensors", framework="pt") as file:
            assert (file.metadata()["ss_v2"], file.metadata()["ss_network_dim"]) == (told, "2")


def test_what_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    def pair(identities: int = 1, rank: int = 2) -> LowRank:
        return LowRank(torch.ones(identities, 4, rank), torch.ones(identities, rank, 3))

    def written(layers: Layers, fmt: str = "diffusers") -> None:
        export_low_rank(layers, fmt, Store(tmp_path), "one", RECORD)

    with pytest.raises(UsageError, match=r"no LoRA file format is called 'khoya'; did you mean 'kohya'\?"):
        written({"unet.a": pair()}, "khoya")
    with pytest.raises(ValueError, match=r"one rank; these 2 layers have \[2, 3\]"):
        written({"unet.a": pair(), "unet.b": pair(rank=3)})
    with pytest.raises(ValueError, match=r"layer 'unet\.a' has weights of 2 identities"):
        written({"unet.a": pair(2)})
    with pytest.raises(ValueError, match=r"layer 'vae\.a' belongs to no network of unet, text_encoder"):
        written({"vae.a": pair()})
    assert not any(tmp_path.iterdir())
