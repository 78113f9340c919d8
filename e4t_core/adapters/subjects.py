"""What is tuned, how, and what comes out: the words of :mod:`e4t_core.adapters.concurrent`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from e4t_core.config import Config

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class StopConfig(Config):
    """When an identity stops before its last step.

    Attributes:
        every: steps between two looks at the loss on the identity's fixed probe.
        patience: looks in a row without enough gain after which it stops.
        min_gain: the share of the best loss so far by which the loss must fall to count as a gain.
    """

    every: Count = 25
    patience: Count = 2
    min_gain: Share = 0.01


class TuneConfig(Config):
    """How identities are tuned. All but ``identities`` and ``precision`` decide what comes out.

    Attributes:
        steps: optimizer steps of an identity.
        seconds: an identity stops after the step with which its share of the time reaches this, if it has not taken
            ``steps`` by then; K identities that are tuned together have K times as long. What comes out then depends
            on the machine. None: time does not matter.
        samples: noise levels of an identity in each of its steps; its loss is their mean.
        identities: how many are tuned at once. Fewer run where memory does not hold so many.
        lr: AdamW's rate, per identity and never scaled by how many there are.
        betas, weight_decay: AdamW's.
        eps: AdamW's. Its usual 1e-8 turns a gradient that is all rounding into a whole step, and rounding depends on
            the batch; with 1e-6 an identity comes out the same, whoever is tuned beside it.
        grad_clip: largest norm of one identity's gradient; None does not clip.
        schedule: of the rate over an identity's own steps, after the warm-up: constant, or falling to 0 on a line or
            half a cosine.
        warmup_steps: steps over which the rate rises linearly from 0.
        stop: when to stop early; None takes every step.
        probe: noise levels, the same every time, on which the loss is measured before, after and for ``stop``.
        precision: ``bf16`` computes under autocast; what is trained stays float32.
    """

    later: ClassVar[frozenset[str]] = frozenset({"seconds"})

    steps: Count
    seconds: Positive | None = None
    samples: Count = 1
    identities: Count = 16
    lr: Positive
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Positive = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    grad_clip: Positive | None = 1.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    stop: StopConfig | None = None
    probe: Count = 4
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Subject:
    """One identity to tune. Identities in one batch may differ in their numbers of images and prompts.

    Attributes:
        id: its name.
        seed: of its own noise and initial weights; two identities with one seed see the same noise.
        moments_N2Chw: VAE moments of its images, as :meth:`Backbone.to_moments` gives them; each sample takes one.
        ids_PT: tokens of its prompts; each sample takes one. They hold the placeholder only if the weights splice it.
        masks_N1hw: weights of the loss at latent resolution, one for each image; None weighs all alike.
        start: tensors to start from, by the names and shapes of :attr:`Tunable.shapes`; None starts at
            :meth:`Tunable.initial`.
        constants: frozen tensors of its own, by the names and shapes of :attr:`Tunable.constant_shapes`.
    """

    id: str
    seed: int
    moments_N2Chw: Tensor
    ids_PT: Tensor
    masks_N1hw: Tensor | None = None
    start: Mapping[str, Tensor] | None = None
    constants: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Prior:
    """What the untouched model draws of a class, for prior preservation (Ruiz et al. 2022 eq. 2): weights that learn an
    identity are held to still draw any other of its class.

    Attributes:
        moments_M2Chw: VAE moments of the drawn images, the same for all identities; each sample takes one.
        ids_1T: tokens of the class's prompt, "a [class noun]".
        weight: lambda.
    """

    moments_M2Chw: Tensor
    ids_1T: Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class Tuned:
    """What tuning gave an identity.

    Attributes:
        id: its name.
        tensors: float32 on the CPU, by the names and shapes of :attr:`Tunable.shapes`. After a divergence, the last
            with which its loss and gradient were finite.
        steps: optimizer steps whose result ``tensors`` holds.
        seconds: its share of the time that was spent.
        loss_before, loss_after: mean over the same samples and noise, at the start and with ``tensors``.
        losses: of each step's own samples, before the step's change.
        diverged_at: the step (0 the first) at which its loss or gradient was not finite, or None.
    """

    id: str
    tensors: dict[str, Tensor]
    steps: int
    seconds: float
    loss_before: float
    loss_after: float
    losses: list[float]
    diverged_at: int | None = None
