"""The identity network: pictures of one identity near each other, whatever their style and place."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from e4t_core.errors import UserError
from jobs._tiny_stack.config import IdentityTrainingConfig
from jobs._tiny_stack.files import StackFolder
from jobs._tiny_stack.identity_net import IdentityNet
from jobs._tiny_stack.identity_onnx import from_onnx, to_onnx
from jobs._tiny_stack.part import Part, Step
from jobs._tiny_stack.pool import Rows


class WithCentres(nn.Module):
    """The network, and a direction for every training identity; only the network is kept."""

    def __init__(self, net: IdentityNet, identities: int) -> None:
        super().__init__()
        self.net = net
        self.centres = nn.Parameter(torch.randn(identities, net.width) / net.width**0.5)


class IdentityPart(Part):
    """Learns to tell the identities of one domain apart."""

    name: ClassVar[str] = "identity"

    @property
    def config(self) -> IdentityTrainingConfig:
        return self.work.stack.identity

    @cached_property
    def _rows(self) -> list[Rows]:
        """Rows of each identity."""
        return list(self.work.pool.identities[self.config.domain].values())

    def build(self) -> nn.Module:
        net = IdentityNet(self.config.channels, self.config.width, self.work.stack.pictures.size)
        module: Any = WithCentres(net, len(self._rows))
        return module.to(memory_format=torch.channels_last)

    def warm_start(self, module: nn.Module, stack: StackFolder) -> None:
        """The network; the centres belong to the identities it saw and are learned anew."""
        path = stack.weights("identity")
        if not path.is_file():
            raise UserError(f"there is no identity network at {path}")
        assert isinstance(module, WithCentres)
        from_onnx(module.net, onnx.load(path))

    def losses(self, module: nn.Module, step: Step) -> dict[str, Tensor]:
        assert isinstance(module, WithCentres)
        config, device = self.config, self.work.device
        rows, who = self._batch(step.rng)
        embedded = F.normalize(module.net(self.work.pool.images(rows, device)).float(), dim=1)
        who = who.to(device)
        margin = config.margin * min(1.0, step.share / config.margin_warmup) if config.margin_warmup else config.margin
        with torch.autocast(device.type, enabled=False):
            to_centres = embedded @ F.normalize(module.centres, dim=1).T
            classes = margin_loss(to_centres, F.one_hot(who, len(module.centres)).bool(), margin, config.scale)
            pairs = pair_loss(embedded, who, margin, config.scale)
        return {"loss": config.classes * classes + config.pairs * pairs, "classes": classes, "pairs": pairs}

    def _batch(self, rng: np.random.Generator) -> tuple[np.ndarray, Tensor]:
        """Rows of several pictures of each of several identities, and whose they are."""
        each = self.config.pictures_per_identity
        count = max(2, self.config.batch_size // each)
        people = rng.choice(len(self._rows), size=count, replace=len(self._rows) < count)
        rows = [rng.choice(self._rows[p], size=each, replace=len(self._rows[p]) < each) for p in people]
        return np.concatenate(rows), torch.from_numpy(np.repeat(people, each))

    def export(self, module: nn.Module, stack: StackFolder) -> dict[str, Any]:
        assert isinstance(module, WithCentres)
        model = to_onnx(module.net, {"trained_on": f"tiny world, domain {self.config.domain}"})
        stack.save_bytes("identity", model.SerializeToString())
        return {"identities": len(module.centres)}


def margin_loss(cosines: Tensor, right: Tensor, margin: float, scale: float) -> Tensor:
    """ArcFace eq. 3 with any number of right answers a row: each is one term against all the wrong ones.

    ``-log( e^{s cos(t + m)} / (e^{s cos(t + m)} + sum_wrong e^{s cos t}) )``, averaged over the right answers.

    Args:
        cosines: (N, M). right: (N, M) bool; rows without a right answer have no term.
        margin: ``m`` in radians. Beyond ``t + m = pi`` the angle is bounded, so the loss keeps growing with ``t``.
        scale: ``s``.
    """
    angles = torch.acos(cosines.clamp(-1 + 1e-6, 1 - 1e-6))
    harder = scale * torch.cos((angles + margin).clamp(max=torch.pi))
    wrong = torch.logsumexp((scale * cosines).masked_fill(right, -torch.inf), dim=1, keepdim=True)
    terms = F.softplus(wrong - harder)
    return (terms * right).sum() / right.sum().clamp(min=1)


def pair_loss(embedded_BE: Tensor, who_B: Tensor, margin: float, scale: float) -> Tensor:
    """:func:`margin_loss` with the batch's other pictures in the centres' place (supervised contrast)."""
    same = who_B[:, None] == who_B[None]
    itself = torch.eye(len(who_B), dtype=torch.bool, device=who_B.device)
    cosines = (embedded_BE @ embedded_BE.T).masked_fill(itself, -1.0)
    return margin_loss(cosines, same & ~itself, margin, scale)
