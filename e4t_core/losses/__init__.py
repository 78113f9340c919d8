"""Losses as the papers write them: one value per sample, so that a batch of N is the mean of N batches of one."""

from e4t_core.losses.diffusion import diffusion_loss, draw_noise, latent_mask
from e4t_core.losses.embedding import embedding_l2

__all__ = ["diffusion_loss", "draw_noise", "embedding_l2", "latent_mask"]
