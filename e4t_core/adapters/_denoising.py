"""The denoising loss of many identities' samples, each computed with its own identity's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor

from e4t_core.adapters._samples import Pool, Samples
from e4t_core.adapters._slots import Rows
from e4t_core.adapters.tunable import Tunable
from e4t_core.backbones.base import Backbone
from e4t_core.losses import diffusion_loss


class Denoising:
    """What a frozen backbone with the identities' weights on it makes of their samples.

    Args:
        backbone: frozen.
        tunable: which weights an identity has.
        precision: see :class:`~e4t_core.adapters.subjects.TuneConfig`.
    """

    def __init__(self, backbone: Backbone, tunable: Tunable, precision: str) -> None:
        self.backbone, self.tunable, self.precision = backbone, tunable, precision

    @torch.no_grad()
    def text(self, ids_PT: Tensor) -> Tensor:
        """Ids where the weights act on the text encoder; otherwise its states (P, T, D), computed this once."""
        ids_PT = ids_PT.to(self.backbone.device)
        if self.tunable.in_text:
            return ids_PT
        with self._autocast():
            return self.backbone.encode_text(ids_PT)

    def put_on(self, flat_KP: Tensor, constants: Mapping[str, Tensor], scope: contextlib.ExitStack) -> None:
        """The weights are on until ``scope`` ends, because a backward pass computes checkpointed layers again."""
        with self._autocast():
            scope.enter_context(self.tunable.on(flat_KP, constants))

    def losses(
        self, flat_KP: Tensor, constants: Mapping[str, Tensor], pool: Pool, rows: Rows, samples: Samples
    ) -> Tensor:
        """(K,) each identity's mean over its samples; the weights ``flat_KP`` of the identities ``rows`` are on."""
        schedule = self.backbone.schedule
        with self._autocast():
            text_BTD = self._texts(flat_KP, constants, pool, rows, samples)
            x_t = schedule.add_noise(samples.x0, samples.eps, samples.t)
            prediction = self.backbone.denoise(x_t, samples.t, text_BTD)
        target = schedule.target(samples.x0, samples.eps, samples.t)
        return diffusion_loss(prediction, target, samples.mask).view(len(flat_KP), -1).mean(1)

    def _texts(
        self, flat_KP: Tensor, constants: Mapping[str, Tensor], pool: Pool, rows: Rows, samples: Samples
    ) -> Tensor:
        """(B, T, D), or (2B, T, D) with the tunable's second text of each sample behind the first."""
        if not self.tunable.in_text:
            return pool.prompts.items[samples.prompt]
        count = len(samples.t) // len(flat_KP)
        first_BTD = self._text_states(self.tunable.spliced(flat_KP), pool, rows, samples, count)
        companions_KD = self.tunable.companions(constants)
        if companions_KD is None:
            return first_BTD
        with torch.no_grad():
            second_BTD = self._text_states(companions_KD, pool, rows, samples, count)
        return torch.cat([first_BTD, second_BTD])

    def _text_states(self, spliced_K: Tensor | None, pool: Pool, rows: Rows, samples: Samples, count: int) -> Tensor:
        """(B, T, D). An only prompt is encoded once for all samples of its identity."""
        if pool.one_prompt:
            text_KTD = self.backbone.encode_text(pool.prompt_of(rows), spliced_K)
            return text_KTD if count == 1 else text_KTD.repeat_interleave(count, dim=0)
        spliced_B = None if spliced_K is None else spliced_K.repeat_interleave(count, dim=0)
        return self.backbone.encode_text(pool.prompts.items[samples.prompt], spliced_B)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.backbone.device.type, torch.bfloat16, enabled=self.precision == "bf16")
