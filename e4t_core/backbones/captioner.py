"""BLIP captioners (Li et al. 2022): an image -> a sentence, the coarse caption of the Taming Encoder's section 3.3."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from e4t_core.backbones._locate import model_folder
from e4t_core.backbones._transformers_files import (
    PATTERNS,
    PREPROCESSOR,
    check,
    input_format,
    transformers_fingerprint,
)
from e4t_core.backbones.image_input import ImageInput, InputFormat
from e4t_core.config import Config
from e4t_core.errors import UsageError, UserError

_VOCABULARY = ("tokenizer.json", "vocab.txt")
_BICUBIC = 3
"""What BLIP's image processor does where its file does not say."""


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
        takes: how it wants its images.
        config: what is asked of it.

    Raises:
        UserError: that is not the model's size, or prompt and sentence are longer than the model reads.
    """

    def __init__(self, model: Any, tokenizer: Any, takes: InputFormat, config: CaptionerConfig) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        _check_size(takes, int(model.config.vision_config.image_size))
        self.prepared = ImageInput(takes)
        self._prompt_1T: Tensor
        prompt_1T = tokenizer(config.prompt, return_tensors="pt")["input_ids"]
        self.register_buffer("_prompt_1T", prompt_1T, persistent=False)
        _check_length(prompt_1T.shape[1] - 1, config.max_new_tokens, model.config.text_config)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def sentences(self, images_B3HW: Tensor) -> list[str | None]:
        """One sentence for each image in [-1, 1]; ``""`` where the model adds nothing to the prompt, None where what it
        sees is not finite: a search over such scores ends in any words at all."""
        prompt_BT = self._prompt_1T.repeat(len(images_B3HW), 1)
        pixels_B3hw = self.prepared(images_B3HW).to(self.model.dtype)
        seen: list[Tensor] = []
        hook = self.model.vision_model.register_forward_hook(lambda module, given, out: seen.append(out[0]))
        try:
            ids_BT = self.model.generate(pixels_B3hw, input_ids=prompt_BT, attention_mask=torch.ones_like(prompt_BT))
        finally:
            hook.remove()
        (prompt,), (seen_BPD,) = self._decoded(self._prompt_1T), seen
        finite = seen_BPD.isfinite().flatten(1).all(dim=1).tolist()
        said = [sentence if sentence != prompt else "" for sentence in self._decoded(ids_BT)]
        return [sentence if sound else None for sentence, sound in zip(said, finite, strict=True)]

    def _decoded(self, ids_BT: Tensor) -> list[str]:
        return [" ".join(text.split()) for text in self.tokenizer.batch_decode(ids_BT, skip_special_tokens=True)]


def load_captioner(config: CaptionerConfig, device: str | torch.device = "cpu") -> Captioner:
    """The captioner a recipe names, on ``device``.

    Raises:
        UserError: nothing at ``config.path``, a file is missing, or it is no BLIP captioner.
        CheckpointMismatch: weights of another size, or with missing or unknown tensors.
    """
    # here and not above: a driver that asks for the fingerprint needs no transformers
    from transformers import BlipForConditionalGeneration

    from e4t_core.backbones._pretrained import from_safetensors

    with model_folder(config.path, PATTERNS) as folder:
        check(folder, "blip", _VOCABULARY)
        takes, tokenizer = input_format(folder, _BICUBIC), _load_tokenizer(folder)
        model = from_safetensors(BlipForConditionalGeneration, folder, getattr(torch, config.dtype))
    model.text_decoder.generation_config = _search(config, model.config.text_config)
    return Captioner(model, tokenizer, takes, config).to(device)


def captioner_weights_fingerprint(config: CaptionerConfig) -> str:
    """Content fingerprint of the captioner's weights, configuration, preprocessing and tokenizer; loads no model."""
    return transformers_fingerprint(config.path, "blip", _VOCABULARY)


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


def _check_size(takes: InputFormat, side: int) -> None:
    if (takes.size.height, takes.size.width) != (side, side):
        raise UserError(
            f"{PREPROCESSOR} scales images to {takes.size.height} x {takes.size.width}; this model's config.json takes "
            f"{side} x {side}"
        )


def _check_length(prompt: int, new: int, text: Any) -> None:
    if prompt + new > text.max_position_embeddings:
        raise UsageError(
            f"captioner.max_new_tokens is {new}, after a prompt of {prompt} tokens; "
            f"this model reads {text.max_position_embeddings} in all"
        )
