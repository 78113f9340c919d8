"""Whose an adapter is: what several methods check before they use one."""

from __future__ import annotations

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
