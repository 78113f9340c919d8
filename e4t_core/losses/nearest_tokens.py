"""Keeping predicted embeddings near words (Domain-Agnostic Tuning-Encoder section 4.2), one value per sample."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from e4t_core.losses.gathered import gathered


@torch.no_grad()
def nearest_tokens(v_BD: Tensor, table_VD: Tensor, k: int, excluded: Sequence[int]) -> Tensor:
    """(B, k) int64: N(v), the rows of the table nearest to each embedding by cosine, nearest first.

    Args:
        v_BD: predicted embeddings.
        table_VD: the text encoder's token embeddings.
        k: how many.
        excluded: rows that are no words, see :attr:`Backbone.special_ids`.
    """
    with torch.autocast(v_BD.device.type, enabled=False):
        cos_BV = F.normalize(v_BD.float(), dim=1) @ F.normalize(table_VD.float(), dim=1).mT
    cos_BV[:, list(excluded)] = -torch.inf
    return cos_BV.topk(k, dim=1).indices


def contrastive_loss(v_BD: Tensor, positives_BkD: Tensor, marks_B: Tensor, tau: float) -> Tensor:
    """Nearest-neighbour contrastive loss (eq. 3, in the form of MIL-NCE, Miech et al. 2020).

    ``-log( sum_i exp(cos(v, T_i) / tau) / (sum_i exp(cos(v, T_i) / tau) + sum_v' exp(cos(v, v') / tau)) )``

    Args:
        v_BD: this worker's embeddings; those of all workers serve as negatives v'.
        positives_BkD: T_i, the tokens nearest to each.
        marks_B: int64 of each sample's image; samples of one image are no negatives of each other.
        tau: temperature.

    Returns:
        (B,) float32, 0 where a sample has no negative. Its mean over workers and samples does not depend on how many
        workers share a batch.
    """
    v_BD = F.normalize(v_BD.float(), dim=1)
    everyone_GD, marks_G = gathered(v_BD), gathered(marks_B)
    with torch.autocast(v_BD.device.type, enabled=False):
        near_Bk = torch.einsum("bd,bkd->bk", v_BD, F.normalize(positives_BkD.float(), dim=2)) / tau
        others_BG = (v_BD @ everyone_GD.mT / tau).masked_fill(marks_B[:, None] == marks_G, -torch.inf)
    return torch.logsumexp(torch.cat([near_Bk, others_BG], dim=1), dim=1) - torch.logsumexp(near_Bk, dim=1)


def nearest_cosine_loss(v_BD: Tensor, nearest_BD: Tensor) -> Tensor:
    """``1 - cos(v, T)`` with the nearest token T alone (section 5.2's third setting, after VQGAN's codebook loss): (B,)
    float32."""
    return 1 - F.cosine_similarity(v_BD.float(), nearest_BD.float(), dim=1)


def marks_of(names: Sequence[str], device: torch.device) -> Tensor:
    """(B,) int64, equal for equal names on all workers."""
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    return torch.tensor([int.from_bytes(d, "big", signed=True) for d in digests], dtype=torch.int64, device=device)
