"""What adapters of several methods have in common: whose they are, what they hold, and what is checked before use."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from e4t_core.backbones.base import Backbone
from e4t_core.errors import CheckpointMismatch
from e4t_core.methods.base import Adapter

_NETWORKS = ("unet", "text_encoder")


def networks(backbone: Backbone) -> dict[str, str]:
    """Fingerprints of the networks that an adapter's numbers are relative to, for its ``meta``."""
    return {network: backbone.identity()[network] for network in _NETWORKS}


def check_method(adapter: Adapter, name: str) -> None:
    """Refuse an adapter of another method.

    Raises:
        CheckpointMismatch: naming both.
    """
    if adapter.method != name:
        raise CheckpointMismatch(
            f"the adapter of '{adapter.identity}' belongs to method '{adapter.method}', not '{name}'"
        )


def check_networks(adapter: Adapter, backbone: Backbone) -> None:
    """Refuse an adapter of other networks than :func:`networks` gives here.

    Raises:
        CheckpointMismatch: naming what differs.
    """
    for network, here in networks(backbone).items():
        there = adapter.meta.get(network)
        if there != here:
            raise CheckpointMismatch(
                f"the adapter of '{adapter.identity}' was tuned on {network} {there}, but here is {network} {here}; "
                "give the backbone that it was personalized with"
            )


def differences(
    prefix: str, now: Mapping[str, nn.Parameter], before: Mapping[str, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """``PREFIX.NAME`` -> what was added to a parameter, on the CPU; those that nothing was added to are left out. A
    difference loses far less in a short type than the weight itself would."""
    found = {}
    for name, parameter in now.items():
        delta = parameter.detach().float() - before[name].float()
        if bool(delta.any()):
            found[f"{prefix}.{name}"] = delta.to(dtype).cpu().contiguous()
    return found


def by_group(adapter: Adapter, groups: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
    """The adapter's tensors by what their names begin with.

    Raises:
        CheckpointMismatch: a tensor is of no group.
    """
    found: dict[str, dict[str, Tensor]] = {group: {} for group in groups}
    for key, tensor in adapter.tensors.items():
        group, _, name = key.partition(".")
        if group not in found:
            raise CheckpointMismatch(
                f"adapter of '{adapter.identity}': no tensor of method '{adapter.method}' is called '{key}'"
            )
        found[group][name] = tensor
    return found


def check_fit(adapter: Adapter, group: str, tensors: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
    """Whether every tensor is as large as what it is added to.

    Raises:
        CheckpointMismatch: names the first that is not.
    """
    for name, tensor in tensors.items():
        if name not in known or known[name].shape != tensor.shape:
            here = tuple(known[name].shape) if name in known else "nothing"
            raise CheckpointMismatch(
                f"adapter of '{adapter.identity}': {group}.{name} is {tuple(tensor.shape)}, but here it is {here}"
            )


def total_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Size of the tensors' content."""
    return sum(t.numel() * t.element_size() for t in tensors.values())
