"""The autoencoder of a latent diffusion model: images in [-1, 1] to latents and back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from e4t_core.backbones import _layout, _parts
from e4t_core.backbones._locate import model_folder
from e4t_core.backbones.config import BackboneConfig

_PIXELS_AT_ONCE = 8 * 512 * 512
"""Images go through in slices of about this many pixels, which bounds memory and changes no result."""


class Autoencoder(nn.Module):
    """A frozen KL autoencoder (LDM section 3.1) behind the three conversions that stages and methods need."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    @property
    def channels(self) -> int:
        """C of the latents."""
        return int(self.vae.config.latent_channels)

    @property
    def factor(self) -> int:
        """Image side divided by latent side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @torch.no_grad()
    def to_moments(self, images_B3HW: Tensor) -> Tensor:
        """(B, 2C, h, w) float32 posterior mean and log variance, unscaled."""
        return self._sliced(lambda x: self.vae.encode(x).latent_dist.parameters, images_B3HW, pixels_per_cell=1)

    def to_latent(self, moments_B2Chw: Tensor, noise_BChw: Tensor | None = None) -> Tensor:
        """(B, C, h, w) latents at the model's scale: the mean, or ``mean + std * noise``."""
        mean, log_variance = moments_B2Chw.float().chunk(2, dim=1)
        if noise_BChw is not None:
            # the library's own bounds (DiagonalGaussianDistribution)
            mean = mean + (0.5 * log_variance.clamp(-30.0, 20.0)).exp() * noise_BChw
        return (mean - self._shift) * self.vae.config.scaling_factor

    @torch.no_grad()
    def to_image(self, latents_BChw: Tensor) -> Tensor:
        """(B, 3, H, W) float32 images, clamped to [-1, 1]."""
        unscaled = latents_BChw.float() / self.vae.config.scaling_factor + self._shift
        images = self._sliced(lambda z: self.vae.decode(z).sample, unscaled, pixels_per_cell=self.factor**2)
        return images.clamp(-1, 1)

    @property
    def _shift(self) -> float:
        return float(self.vae.config.get("shift_factor") or 0.0)

    def _sliced(self, run: Callable[[Tensor], Tensor], x_BChw: Tensor, pixels_per_cell: int) -> Tensor:
        pixels = x_BChw.shape[-1] * x_BChw.shape[-2] * pixels_per_cell
        slices = x_BChw.to(self.vae.dtype).split(max(1, _PIXELS_AT_ONCE // pixels))
        return torch.cat([run(piece).float() for piece in slices])


def load_autoencoder(cfg: BackboneConfig, device: str | torch.device = "cpu") -> Autoencoder:
    """The ``vae`` of the folder that ``cfg`` names, on ``device``; the same weights as inside the whole backbone."""
    with model_folder(cfg.path, _layout.patterns(["vae"])) as folder:
        return Autoencoder(_parts.network(folder, "vae", cfg.random_seed, getattr(torch, cfg.dtype))).to(device)
