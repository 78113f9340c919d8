"""Small random segmenters of the published classes, saved as they are published."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    ViTImageProcessor,
)
from transformers import SegformerConfig as SegformerModelConfig

from e4t_core.backbones._random import private_stream
from e4t_core.backbones.segmenters import SaliencyConfig
from e4t_core.bundled import bundled_folder

NAMES = {0: "background", 1: "skin", 2: "nose", 3: "hair"}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CAT, DOG = "a cat", "the dog"
LEVEL = 1 / 255 / min(STD)
"""One of 256 levels, after normalisation."""


# --- small models of the real classes, saved in their real formats


def drawn(cls: Any, config: Any, seed: int) -> Any:
    """A ``cls`` with weights large enough that its output depends on the input."""
    with private_stream(seed):
        model = cls(config).eval()
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.5 if "embedding" in name else weight[0].numel() ** -0.5)
        return model


def tiny_clipseg(seed: int = 0) -> CLIPSegForImageSegmentation:
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    words = {"vocab_size": 1535, "bos_token_id": 1533, "eos_token_id": 1534, "max_position_embeddings": 12}
    config = CLIPSegConfig(
        text_config={**layers, **words},
        vision_config={**layers, "image_size": 32, "patch_size": 8},
        projection_dim=16,
        extract_layers=[0, 1, 2],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        use_complex_transposed_convolution=True,
    )
    model = drawn(CLIPSegForImageSegmentation, config, seed)
    model.decoder.transposed_convolution[-1].weight.data.mul_(8)
    return model


def tiny_segformer(cls: Any = SegformerForSemanticSegmentation, seed: int = 0) -> Any:
    config = SegformerModelConfig(
        depths=[1] * 4,
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label=NAMES,
        label2id={name: i for i, name in NAMES.items()},
    )
    return drawn(cls, config, seed)


def clipseg_folder(folder: Path, seed: int = 0, side: int = 32) -> Path:
    """As CIDAS/clipseg-rd64-refined lies on the hub."""
    tiny_clipseg(seed).save_pretrained(folder)
    size = {"height": side, "width": side}
    ViTImageProcessor(size=size, image_mean=MEAN, image_std=STD).save_pretrained(folder)
    for file in (bundled_folder("tiny") / "tokenizer").iterdir():
        shutil.copy(file, folder)
    return folder


def segformer_folder(folder: Path, seed: int = 0, side: int = 64) -> Path:
    """As jonathandinu/face-parsing lies on the hub."""
    tiny_segformer(seed=seed).save_pretrained(folder)
    SegformerImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


Shape = list[Any]
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "normalization": "none"}
"""The network is fed pixels from 0 to 1, and gives probabilities."""


def onnx_folder(
    folder: Path, nodes: Any = None, shape: Shape | None = None, kind: int = TensorProto.FLOAT, **outputs: Shape | None
) -> Path:
    """``model.onnx``; unless told otherwise, its map is each pixel's brightness (the mean of what it is fed)."""
    nodes = nodes or [helper.make_node("ReduceMean", ["image"], ["map"], axes=[1], keepdims=1)]
    ins = [helper.make_tensor_value_info("image", kind, shape or ["N", 3, 8, 8])]
    outs = [helper.make_tensor_value_info(n, kind, s) for n, s in (outputs or {"map": [None] * 4}).items()]
    graph = helper.make_graph(nodes, "test", ins, outs)
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder


def saliency(folder: Path, **config: Any) -> SaliencyConfig:
    return SaliencyConfig(path=str(folder), **config)


def photos(count: int = 3, side: int = 48, seed: int = 0, width: int | None = None) -> Tensor:
    """(B, 3, H, W) smooth pictures of 8-bit colours in [-1, 1]."""
    coarse = torch.rand((count, 3, 6, 6), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    smooth = F.interpolate(coarse, (side, width or side), mode="bicubic").clamp(-1, 1)
    return ((smooth + 1) * 127.5).round() / 127.5 - 1


def pictures(images_B3HW: Tensor) -> list[Image.Image]:
    pixels = ((images_B3HW + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(p) for p in pixels]
