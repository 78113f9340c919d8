"""CLIPSeg (Lüddecke & Ecker 2022, "Image Segmentation Using Text and Image Prompts")."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPSegForImageSegmentation, CLIPTokenizer

from e4t_core.backbones._locate import model_folder
from e4t_core.backbones.segmenters._files import PATTERNS, input_format
from e4t_core.backbones.segmenters._inputs import InputFormat
from e4t_core.backbones.segmenters._transformers import load_model
from e4t_core.backbones.segmenters.base import Segmenter
from e4t_core.backbones.segmenters.config import ClipSegConfig
from e4t_core.errors import UsageError, UserError


class ClipSeg(Segmenter):
    """The foreground is what any of the prompts names: the maximum of their sigmoids.

    Args:
        model: transformers' model.
        tokenizer: its tokenizer (texts -> ids).
        prompts: what is foreground; embedded once.
        takes: how the model wants its images.

    Raises:
        UsageError: a prompt is longer than the model reads.
    """

    def __init__(
        self, model: CLIPSegForImageSegmentation, tokenizer: CLIPTokenizer, prompts: Sequence[str], takes: InputFormat
    ) -> None:
        super().__init__(takes)
        self.model: Any = model
        self._prompts_PD: Tensor
        embedded = torch.cat([self._embedded(prompt, tokenizer) for prompt in prompts])
        self.register_buffer("_prompts_PD", embedded, persistent=False)

    def foreground(self, pixels_B3hw: Tensor) -> Tensor:
        each_PBhw = torch.stack([self._logits(pixels_B3hw, prompt_D) for prompt_D in self._prompts_PD])
        return each_PBhw.amax(dim=0).sigmoid()

    def _logits(self, pixels_B3hw: Tensor, prompt_D: Tensor) -> Tensor:
        prompt_BD = prompt_D.expand(len(pixels_B3hw), -1)
        return self.model(pixel_values=pixels_B3hw, conditional_embeddings=prompt_BD).logits

    @torch.no_grad()
    def _embedded(self, prompt: str, tokenizer: Any) -> Tensor:
        """(1, D) embedding of one prompt; alone, it needs no padding."""
        ids = tokenizer(prompt, verbose=False)["input_ids"]
        most = self.model.config.text_config.max_position_embeddings
        if len(ids) > most:
            raise UsageError(f"the prompt {prompt!r} has {len(ids)} tokens; the model reads {most}: shorten it")
        ids_1T = torch.tensor([ids], device=self.model.device)
        return self.model.get_conditional_embeddings(batch_size=1, input_ids=ids_1T)


def load(config: ClipSegConfig, device: str | torch.device) -> ClipSeg:
    """See :func:`e4t_core.backbones.segmenters.load_segmenter`."""
    with model_folder(config.path, PATTERNS) as folder:
        model = load_model(CLIPSegForImageSegmentation, folder)
        return ClipSeg(model, _tokenizer(folder), config.prompts, input_format(folder)).to(device)


def _tokenizer(folder: Path) -> CLIPTokenizer:
    if not ((folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()):
        raise UserError(f"{folder} has neither tokenizer.json nor vocab.json; its prompts cannot be read without")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
