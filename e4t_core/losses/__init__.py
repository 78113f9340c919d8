"""Losses as the papers write them: one value per sample, so that a batch of N is the mean of N batches of one."""

from e4t_core.losses.diffusion import Noisy, diffusion_loss, draw_noise, latent_mask
from e4t_core.losses.embedding import embedding_l2
from e4t_core.losses.gathered import gathered
from e4t_core.losses.nearest_tokens import contrastive_loss, marks_of, nearest_cosine_loss, nearest_tokens
from e4t_core.losses.offsets import offset_l2

__all__ = [
    "Noisy",
    "contrastive_loss",
    "diffusion_loss",
    "draw_noise",
    "embedding_l2",
    "gathered",
    "latent_mask",
    "marks_of",
    "nearest_cosine_loss",
    "nearest_tokens",
    "offset_l2",
]
