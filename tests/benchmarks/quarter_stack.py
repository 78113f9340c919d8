"""Stable Diffusion 1.5 and ViT-H/14 at a quarter of their widths: every layer is there, and every part keeps its share.

A step of the full models at 512 px takes minutes on two cores, and the tiny stack's encoders weigh next to nothing
beside its UNet. With channels divided by four and half the image size, each part costs 1/64 of what it costs in use.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from e4t_core.bundled import bundled_folder

RESOLUTION = 256
_QUARTER: dict[str, dict[str, Any]] = {
    "unet/config.json": {
        "block_out_channels": [80, 160, 320, 320], "cross_attention_dim": 192, "norm_num_groups": 16,
        "attention_head_dim": 2, "sample_size": RESOLUTION // 8,
    },
    "vae/config.json": {
        "block_out_channels": [32, 64, 128, 128], "norm_num_groups": 8, "sample_size": RESOLUTION,
    },
    "text_encoder/config.json": {
        "hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3, "projection_dim": 192,
    },
}  # fmt: skip


def quarter_stack(folder: Path) -> list[str]:
    """Write both configurations under ``folder``; the recipe overrides that select them, weights drawn from a seed."""
    backbone, clip = folder / "sd15_quarter", folder / "vit_h_quarter"
    shutil.copytree(bundled_folder("sd15"), backbone)
    for name, values in _QUARTER.items():
        _edit(backbone / name, values)
    shutil.copytree(bundled_folder("clip_vit_h_14"), clip)
    config = json.loads((clip / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"].update(width=320, image_size=RESOLUTION * 7 // 16)
    config["preprocess_cfg"]["size"] = RESOLUTION * 7 // 16
    config["model_cfg"]["text_cfg"].update(width=256, heads=4, layers=2)  # no step reads CLIP's text tower
    (clip / "open_clip_config.json").write_text(json.dumps(config))
    return [
        f"backbone.path={backbone}", "backbone.random_seed=0", f"backbone.resolution={RESOLUTION}",
        f"clip.path={clip}", "clip.random_seed=0",
        f"source.image_size={RESOLUTION}", f"stages.ingest.size={RESOLUTION}",
    ]  # fmt: skip


def _edit(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
