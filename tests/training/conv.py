"""A small network with every kind of parameter that matters to an optimizer, and a run of it in one of several
processes; `python -m tests.training.conv FOLDER RANK RANKS` is one of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from e4t_core.methods import Losses, Method, ParameterGroup
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training import TrainConfig, TrainState, save_state, train

RECORD = Record.of("checkpoint", {"seed": 0})


class Conv(Method):
    """A convolution, channels last as the denoiser's are, and a linear layer with a rate of its own."""

    name = "conv"
    columns = ()

    def __init__(self) -> None:
        super().__init__(None)

    def build(self, backbone: Any = None, clip_dims: Any = None) -> nn.Module:
        g = torch.Generator().manual_seed(1)
        module = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "linear": nn.Linear(4, 2)})
        with torch.no_grad():
            for p in module.parameters():
                p.copy_(torch.randn(p.shape, generator=g) * 0.3)
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def parameter_groups(self, module: nn.Module) -> list[ParameterGroup]:
        conv, linear = module.children()
        return [ParameterGroup(list(conv.parameters())), ParameterGroup(list(linear.parameters()), 0.5)]

    def pretrain_loss(self, module: Any, backbone: Any, batch: Mapping[str, Any], rng: torch.Generator) -> Losses:
        found = module["linear"](module["conv"](batch["x"]).mean((2, 3)))
        return Losses((found - batch["y"]).square().mean())

    personalize = conditioning = export = None  # type: ignore[assignment]


class Nowhere:
    """All that the loop asks of a backbone."""

    device = torch.device("cpu")


class Stream:
    """Endless batches of one rank: each is its part of one that is drawn from its number alone."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.rank, self.ranks, self.position = rank, ranks, 0

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> dict[str, Any]:
        g = torch.Generator().manual_seed(100 + self.position)
        x, y = torch.randn(12, 3, 6, 6, generator=g), torch.randn(12, 2, generator=g)
        self.position += 1
        return {"x": x.chunk(self.ranks)[self.rank], "y": y.chunk(self.ranks)[self.rank]}

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = state["position"]


def fit(
    rank: int = 0, ranks: int = 1, start: TrainState | None = None, steps: int = 6, **fields: Any
) -> tuple[TrainState, list[TrainState]]:
    """Train; returns the end and the checkpoints on the way."""
    hooks = {k: fields.pop(k) for k in ("all_reduce", "broadcast") if k in fields}
    cfg = TrainConfig(
        steps=steps, batch_size=1, base_lr=0.05, scale_lr=False, grad_clip=1.0, ema_decay=0.9, checkpoint_every=3,
        **fields,
    )  # fmt: skip
    kept: list[TrainState] = []
    batches: Any = Stream(rank, ranks)
    here: Any = Nowhere()
    end = train(
        Conv(), Conv().build(), here, batches, cfg, seed=0, rank=rank, world_size=ranks, start=start,
        on_checkpoint=kept.append, **hooks,
    )  # fmt: skip
    return end, kept


def main(folder: str, rank: int, ranks: int) -> None:
    """Be one process of several: a run without sharding and one with it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)

    def all_reduce(tensor: Tensor) -> None:
        dist.all_reduce(tensor)

    def broadcast(tensor: Tensor, owner: int) -> None:
        dist.broadcast(tensor, src=owner)

    for kind in ("whole", "sharded"):
        _, kept = fit(rank, ranks, all_reduce=all_reduce, broadcast=broadcast, shard_optimizer=kind == "sharded")
        for state in kept:
            save_state(Store(Path(folder)), f"{kind}-{rank}/{state.step}", state, RECORD)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
