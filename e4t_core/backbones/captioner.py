"""BLIP captioners (Li et al. 2022): an image -> a sentence, the coarse caption of the Taming Encoder's section 3.3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from e4t_core.backbones import _captioner_files
from e4t_core.backbones._locate import model_folder
from e4t_core.config import Config
from e4t_core.errors import CheckpointMismatch, UsageError, UserError

_RESAMPLING: Mapping[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""


class CaptionerConfig(Config):
    """A captioner in transformers' folder layout. Nothing is sampled: an image always gets the same sentence.

    Attributes:
        path: hub id (``Salesforce/blip-image-captioning-large``), local folder or ``s3://`` URI.
        prompt: how every sentence begins (``a photo of``); empty lets the model begin.
        max_new_tokens: most tokens of a sentence after the prompt.
        beams: 1 takes the likeliest token each time; more searches with so many beams.
        dtype: parameter type in the worker.
    """

    path: str
    prompt: str = ""
    max_new_tokens: Annotated[int, Field(ge=1)] = 30
    beams: Annotated[int, Field(ge=1)] = 1
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Captioner(nn.Module):
    """A frozen BLIP captioner.

    Args:
        model: transformers' BlipForConditionalGeneration.
        tokenizer: its tokenizer.
        preprocessing: its image processor's configuration (``preprocessor_config.json``).
        config: what is asked of it.

    Raises:
        UserError: the preprocessing does not fit the model, or prompt and sentence are longer than the model reads.
    """

    def __init__(self, model: Any, tokenizer: Any, preprocessing: Mapping[str, Any], config: CaptionerConfig) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self._size = _size(preprocessing, int(model.config.vision_config.image_size))
        self._resampling = _resampling(preprocessing)
        self._mean_311: Tensor
        self._std_311: Tensor
        self._prompt_1T: Tensor
        for name in ("mean", "std"):
            values_311 = torch.tensor(preprocessing[f"image_{name}"]).view(3, 1, 1)
            self.register_buffer(f"_{name}_311", values_311, persistent=False)
        prompt_1T = tokenizer(config.prompt, return_tensors="pt")["input_ids"]
        self.register_buffer("_prompt_1T", prompt_1T, persistent=False)
        _check_length(prompt_1T.shape[1] - 1, config.max_new_tokens, model.config.text_config)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def sentences(self, images_B3HW: Tensor) -> list[str]:
        """One sentence for each image in [-1, 1]; ``""`` where the model adds nothing to the prompt."""
        prompt_BT = self._prompt_1T.repeat(len(images_B3HW), 1)
        pixels_B3hw = self._prepare(images_B3HW)
        ids_BT = self.model.generate(pixels_B3hw, input_ids=prompt_BT, attention_mask=torch.ones_like(prompt_BT))
        (prompt,) = self._decoded(self._prompt_1T)
        return [sentence if sentence != prompt else "" for sentence in self._decoded(ids_BT)]

    def _decoded(self, ids_BT: Tensor) -> list[str]:
        return [" ".join(text.split()) for text in self.tokenizer.batch_decode(ids_BT, skip_special_tokens=True)]

    def _prepare(self, images_B3HW: Tensor) -> Tensor:
        """At the model's size and normalised with its mean and std, as its own processor does it."""
        unit = (images_B3HW.float() + 1) / 2
        if unit.shape[-2:] != self._size:
            unit = F.interpolate(unit, self._size, mode=self._resampling, antialias=True).clamp(0, 1)
        return ((unit - self._mean_311) / self._std_311).to(self.model.dtype)


def load_captioner(config: CaptionerConfig, device: str | torch.device = "cpu") -> Captioner:
    """The captioner a recipe names, on ``device``.

    Raises:
        UserError: nothing at ``config.path``, a file is missing, or it is no BLIP captioner.
        CheckpointMismatch: weights of another size, or with missing or unknown tensors.
    """
    with model_folder(config.path, _captioner_files.PATTERNS) as folder:
        _captioner_files.check(folder)
        preprocessing, tokenizer = _captioner_files.preprocessing(folder), _load_tokenizer(folder)
        model = _load_model(folder, getattr(torch, config.dtype))
    model.text_decoder.generation_config = _search(config, model.config.text_config)
    return Captioner(model, tokenizer, preprocessing, config).to(device)


def captioner_weights_fingerprint(config: CaptionerConfig) -> str:
    """Content fingerprint of the captioner's weights, configuration, preprocessing and tokenizer; loads no model."""
    return _captioner_files.weights_fingerprint(config.path)


def _load_model(folder: Path, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import BlipForConditionalGeneration

    from e4t_core.backbones._quiet import quiet

    try:
        with quiet():
            model, found = BlipForConditionalGeneration.from_pretrained(
                folder, use_safetensors=True, dtype=dtype, output_loading_info=True, local_files_only=True
            )
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointMismatch(f"the weights in {folder} do not fit its config.json: {error}") from error
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    if wrong := sorted(str(name) for kind in kinds for name in found[kind]):
        raise CheckpointMismatch(
            f"the weights in {folder} do not fit its config.json: {len(wrong)} tensors are missing or unknown, "
            f"such as '{wrong[0]}'"
        )
    return model


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"the tokenizer of {folder} cannot be read: {error}") from error


def _search(config: CaptionerConfig, text: Any) -> Any:
    """All that decides the search for a sentence, so that nothing that the folder's files say of it does."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        num_beams=config.beams,
        max_new_tokens=config.max_new_tokens,
        bos_token_id=text.bos_token_id,
        eos_token_id=text.sep_token_id,  # BLIP ends sentences with BERT's [SEP]
        pad_token_id=text.pad_token_id,
    )


def _size(preprocessing: Mapping[str, Any], side: int) -> tuple[int, int]:
    size = preprocessing["size"]
    if size != side and size != {"height": side, "width": side}:
        raise UserError(
            f"{_captioner_files.PREPROCESSOR} scales images to {size}; this model's config.json takes {side} x {side}"
        )
    return side, side


def _resampling(preprocessing: Mapping[str, Any]) -> Literal["bilinear", "bicubic"]:
    number = preprocessing.get("resample", 3)
    if number not in _RESAMPLING:
        raise UserError(
            f"{_captioner_files.PREPROCESSOR} resamples with filter {number}; 2 (bilinear) and 3 (bicubic) are known"
        )
    return _RESAMPLING[number]


def _check_length(prompt: int, new: int, text: Any) -> None:
    if prompt + new > text.max_position_embeddings:
        raise UsageError(
            f"captioner.max_new_tokens is {new}, after a prompt of {prompt} tokens; "
            f"this model reads {text.max_position_embeddings} in all"
        )
