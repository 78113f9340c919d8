"""Changing parameters that belong to somebody else, and giving them back bit for bit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def borrowed(parameters: Sequence[nn.Parameter], tuned: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, ``tuned`` are float32 copies that take gradients and everything else of ``parameters`` is frozen.

    Outside, also after an exception, every parameter has its old tensor, flag and gradient. The originals stay
    resident and are never written, so giving back costs nothing and is exact for any dtype.

    Args:
        parameters: everything that is touched.
        tuned: those of them that an optimizer will change.
    """
    before = [(p, p.data, p.requires_grad, p.grad) for p in parameters]
    try:
        for p in parameters:
            p.grad = None
            p.requires_grad_(False)
        for p in tuned:
            p.data = p.data.to(torch.float32, copy=True)
            p.requires_grad_(True)
        yield
    finally:
        for p, data, requires_grad, grad in before:
            p.grad = None
            p.data = data
            p.requires_grad_(requires_grad)
            p.grad = grad


@contextlib.contextmanager
def shifted(parameters: Mapping[str, nn.Parameter], deltas: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, each named parameter is itself plus its delta, summed in float32; outside it is as it was."""
    before = {name: parameters[name].data for name in deltas}
    try:
        for name, delta in deltas.items():
            old = before[name]  # a copy keeps its memory layout, which decides which kernels run
            summed = old.to(torch.float32, copy=True).add_(delta.to(old.device, torch.float32))
            parameters[name].data = summed.to(old.dtype)
        yield
    finally:
        for name, old in before.items():
            parameters[name].data = old


@contextlib.contextmanager
def replaced(
    network: nn.Module, originals: Mapping[str, nn.Parameter], by: Mapping[str, nn.Parameter]
) -> Iterator[None]:
    """Inside, the network computes with other parameters in the places of its own, which collect the gradients; outside
    its own are back, the same objects, never written.

    Args:
        network: whose layers.
        originals: its parameters by name.
        by: for some or all of these names, what takes the place.
    """
    places = {p: (layer, leaf) for layer in network.modules() for leaf, p in layer.named_parameters(recurse=False)}
    try:
        for name, parameter in by.items():
            layer, leaf = places[originals[name]]
            setattr(layer, leaf, parameter)
        yield
    finally:
        for name in by:
            layer, leaf = places[originals[name]]
            setattr(layer, leaf, originals[name])


@contextlib.contextmanager
def away(module: nn.Module) -> Iterator[None]:
    """Inside, a module that is not needed lies in the host's memory and takes none of its device's; outside it is back,
    the same parameters with the same bits."""
    home = next(module.parameters()).device
    module.to("cpu")
    try:
        yield
    finally:
        module.to(home)
