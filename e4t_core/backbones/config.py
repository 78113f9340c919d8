"""Recipe sections that say which frozen models to load."""

from __future__ import annotations

from typing import Literal

from e4t_core.config import Config


class BackboneConfig(Config):
    """A text-to-image diffusion model in diffusers' folder layout.

    Attributes:
        name: backbone family, a file under ``e4t_core/backbones/`` (``stable_diffusion``).
        path: hub id, local folder, ``s3://`` URI, or ``bundled:NAME`` for a folder under ``e4t_core/bundled/``.
        random_seed: if set, ``path`` gives configurations only and weights are drawn from this seed.
        dtype: parameter type of the frozen model.
        resolution: pixel side of the images it is used with.
        placeholder: the word that stands for the concept in prompts, added to the tokenizer as one token.
    """

    name: str = "stable_diffusion"
    path: str
    random_seed: int | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    resolution: int
    placeholder: str = "<e4t>"


class ClipConfig(Config):
    """An open_clip model.

    Attributes:
        path: a folder with ``open_clip_config.json`` (and weights), its URI, ``bundled:NAME``, or an open_clip
            model name such as ``ViT-H-14``.
        pretrained: open_clip's pretrained tag or a weights file, for model names.
        random_seed: if set, weights are drawn from this seed.
        every: take the [CLS] token of every ``every``-th layer (E4T section 3.1: every 2nd).
        dtype: parameter type in the worker.
    """

    path: str
    pretrained: str | None = None
    random_seed: int | None = None
    every: int = 2
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Models(Config):
    """The foreign models a run uses: recipe sections shared by stages, training and metrics."""

    backbone: BackboneConfig
    clip: ClipConfig
