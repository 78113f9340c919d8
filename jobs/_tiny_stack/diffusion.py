"""UNet and text encoder, trained together on cached latents."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from e4t_core.backbones.attention import FastestAttention
from e4t_core.backbones.base import NoiseSchedule
from jobs._tiny_stack.config import DiffusionConfig
from jobs._tiny_stack.files import BACKBONE, StackFolder, overridden
from jobs._tiny_stack.latents import encode_pool, trained_autoencoder
from jobs._tiny_stack.part import Part, Step
from jobs._tiny_stack.words import draw_texts


class Denoiser(nn.Module):
    """What is trained: the two networks side by side."""

    def __init__(self, text_encoder: Any, unet: Any) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(self, x_t_BChw: Tensor, t_B: Tensor, ids_BT: Tensor) -> Tensor:
        """What the schedule's ``prediction_type`` says: v (or eps)."""
        text_BTD = self.text_encoder(ids_BT).last_hidden_state
        return self.unet(x_t_BChw, t_B, encoder_hidden_states=text_BTD, return_dict=False)[0]


class DiffusionPart(Part):
    """Learns to draw from prompts."""

    name: ClassVar[str] = "diffusion"

    @property
    def config(self) -> DiffusionConfig:
        return self.work.stack.diffusion

    def prepare(self) -> None:
        folder = self.work.trained.root / BACKBONE
        self._latents = encode_pool(self.work)
        self._to_latent = trained_autoencoder(self.work, self.work.device).to_latent
        self._tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
        self._schedule = NoiseSchedule(scheduler.alphas_cumprod, scheduler.config.prediction_type).to(self.work.device)
        self._weights = snr_weights(self._schedule, self.config.snr_gamma)

    def inputs(self) -> dict[str, str]:
        trained = self.work.trained
        return {**super().inputs(), "vae": trained.hash("vae"), "scheduler": trained.hash("scheduler")}

    def build(self) -> nn.Module:
        trained = self.work.trained
        text = overridden(trained.config("text_encoder"), self.config.text_model, "stack.diffusion.text_model")
        sizes = overridden(trained.config("unet"), self.config.model, "stack.diffusion.model")
        unet = UNet2DConditionModel.from_config(sizes).to(memory_format=torch.channels_last)
        unet.set_attn_processor(FastestAttention())
        return Denoiser(CLIPTextModel(CLIPTextConfig.from_dict(text)), unet)

    def warm_start(self, module: nn.Module, stack: StackFolder) -> None:
        assert isinstance(module, Denoiser)
        module.text_encoder.load_state_dict(stack.load("text_encoder"))
        module.unet.load_state_dict(stack.load("unet"))

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        pool, device = self.work.pool, self.work.device
        rows = pool.draw(step.rng, self.config.batch_size)
        ids = self.tokenized([t.text for t in draw_texts(pool.at(rows), self.config.texts, step.rng)])
        moments = self._latents.moments(rows, device)
        x_0 = self._to_latent(moments, step.normal(moments.chunk(2, dim=1)[0]))
        eps = step.normal(x_0)
        t = torch.randint(len(self._weights), (len(rows),), generator=step.noise).to(device)
        x_t = self._schedule.add_noise(x_0, eps, t).contiguous(memory_format=torch.channels_last)
        target = self._schedule.target(x_0, eps, t)
        error = (module(x_t, t, ids.to(device)).float() - target).square().flatten(1).mean(1)
        return {"loss": (self._weights[t] * error).mean(), "mse": error.detach().mean()}

    def tokenized(self, texts: list[str]) -> Tensor:
        """(B, T) ids, padded as the backbone pads them."""
        found = self._tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        return found["input_ids"]

    def export(self, module: nn.Module, stack: StackFolder) -> dict[str, Any]:
        assert isinstance(module, Denoiser)
        text = overridden(stack.config("text_encoder"), self.config.text_model, "stack.diffusion.text_model")
        stack.save("text_encoder", text, module.text_encoder.state_dict())
        stack.save("unet", overridden(stack.config("unet"), self.config.model, ""), module.unet.state_dict())
        return {"parameters": sum(p.numel() for p in module.parameters())}


def snr_weights(schedule: NoiseSchedule, gamma: float) -> Tensor:
    """(T,) weights of the squared error at each noise level, with ``SNR = abar / (1 - abar)``.

    eps: ``min(SNR, gamma) / SNR`` (min-SNR, Hang et al. 2023, eq. 9). v: ``(min(SNR, gamma) + 1) / (SNR + 1)``: it
    weighs the error of x_0 by SNR + 1 (Salimans & Ho 2022, section 4) with the same bound, and unlike min-SNR it does
    not vanish in deep noise, where the text alone can tell what colours to paint.
    """
    abar = schedule.alphas_cumprod
    snr = abar / (1 - abar)
    if schedule.prediction_type == "epsilon":
        return snr.clamp(max=gamma) / snr
    return (snr.clamp(max=gamma) + 1) / (snr + 1)
