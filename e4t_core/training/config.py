"""The recipe section of pre-training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from e4t_core.config import Config

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(Config):
    """How a method's module is pre-trained.

    Attributes:
        init_from: the ``--out`` of an earlier pre-training whose module is the start, its URI, or ``bundled:NAME``;
            None starts with a new one. Optimizer and schedule begin anew.
        steps: optimizer steps.
        batch_size: samples per worker and micro-batch.
        base_lr: AdamW's learning rate before scaling.
        scale_lr: multiply it by batch size, workers and accumulation, as the Stable Diffusion codebase does.
        betas, weight_decay: AdamW's.
        grad_clip: largest gradient norm; None does not clip.
        grad_accum: micro-batches in an optimizer step; losses are averaged over them.
        warmup_steps: steps over which the rate rises linearly from 0.
        precision: ``bf16`` computes under autocast; weights and optimizer stay float32.
        ema_decay: keep an exponential moving average of the weights.
        gradient_checkpointing: recompute the denoiser's activations in the backward pass.
        shard_optimizer: each worker keeps the optimizer's state and the average of its own share of the weights (ZeRO
            stage 1), and no other's; the result is the same, and any number of workers goes on from its checkpoints.
        checkpoint_every: steps between checkpoints; the last step is always one.
        log_every: steps between log lines; the first and last step are always logged.
    """

    later: ClassVar[frozenset[str]] = frozenset({"shard_optimizer"})

    init_from: str | None = None
    steps: Count
    batch_size: Count = 16
    base_lr: Annotated[float, Field(gt=0)] = 1e-6
    scale_lr: bool = True
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    grad_clip: Annotated[float, Field(gt=0)] | None = None
    grad_accum: Count = 1
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    ema_decay: Share | None = None
    gradient_checkpointing: bool = False
    shard_optimizer: bool = False
    checkpoint_every: Count = 1000
    log_every: Count = 50

    def learning_rate(self, step: int, world_size: int) -> float:
        """The rate of 0-based ``step``."""
        scale = self.batch_size * world_size * self.grad_accum if self.scale_lr else 1
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.base_lr * scale * warm
