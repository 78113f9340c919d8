"""One identity's layers in the form that every file format starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save
from torch import Tensor

from e4t_core.adapters.low_rank import LowRank
from e4t_core.record import RECORD_KEY, Record

NETWORKS = ("unet", "text_encoder")


@dataclass(frozen=True)
class Layers:
    """``dW = up @ down`` of one identity.

    Attributes:
        networks: ``unet`` and ``text_encoder``, each if it has layers: name inside the network -> up (M, R) and
            down (R, N), float32 on the CPU. The text encoder's names begin with ``text_model.``, as in Stable
            Diffusion's files.
        rank: R.
    """

    networks: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]
    rank: int

    @classmethod
    def of(cls, layers: Mapping[str, LowRank]) -> Layers:
        """Sort layers by network.

        Raises:
            ValueError: several identities, ranks that differ, or a layer of another network.
        """
        ranks = {pair.up.shape[2] for pair in layers.values()}
        if len(ranks) != 1:
            raise ValueError(f"a LoRA file has one rank; these {len(layers)} layers have {sorted(ranks)}")
        networks: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
        for name, pair in layers.items():
            network, _, inside = name.partition(".")
            if network not in NETWORKS or not inside:
                raise ValueError(f"layer '{name}' belongs to no network of {', '.join(NETWORKS)}")
            if pair.up.shape[0] != 1:
                raise ValueError(f"layer '{name}' has weights of {pair.up.shape[0]} identities; a file holds one")
            networks.setdefault(network, {})[inside] = (_stored(pair.up[0]), _stored(pair.down[0]))
        return cls(networks, ranks.pop())


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def safetensors_file(tensors: Mapping[str, Tensor], record: Record, **metadata: str) -> bytes:
    """A file whose metadata tells where it comes from; ``format`` is what other libraries look for."""
    return save(dict(tensors), metadata={"format": "pt", **metadata, RECORD_KEY: record.to_json()})
