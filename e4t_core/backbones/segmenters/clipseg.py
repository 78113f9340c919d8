"""CLIPSeg (Lüddecke & Ecker 2022, "Image Segmentation Using Text and Image Prompts")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPSegForImageSegmentation, CLIPTokenizer

from e4t_core.backbones._locate import model_folder
from e4t_core.backbones._pretrained import from_safetensors
from e4t_core.backbones._transformers_files import PATTERNS, check, input_format
from e4t_core.backbones.image_input import InputFormat
from e4t_core.backbones.segmenters.base import Segmenter
from e4t_core.backbones.segmenters.config import ClipSegConfig
from e4t_core.errors import UsageError

_VOCABULARY = ("tokenizer.json", "vocab.json")


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
        # the model's own forward, in two: the image is encoded once, however many prompts there are
        seen = self.model.clip.get_image_features(
            pixel_values=pixels_B3hw, interpolate_pos_encoding=True, output_hidden_states=True
        )
        layers = [seen.hidden_states[i + 1] for i in self.model.extract_layers]
        count = len(pixels_B3hw)
        each_PBhw = [self.model.decoder(layers, prompt_D.expand(count, -1)).logits for prompt_D in self._prompts_PD]
        return torch.stack(each_PBhw).amax(dim=0).sigmoid()

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
        check(folder, "clipseg", _VOCABULARY)
        model = from_safetensors(CLIPSegForImageSegmentation, folder, torch.float32)
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        segmenter = ClipSeg(model, tokenizer, config.prompts, input_format(folder))
        return segmenter.requires_grad_(False).eval().to(device)
