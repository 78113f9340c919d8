"""Random numbers of many identities at once, each identity's as if it were alone.

A number is a hash of (identity's seed, step, stream, index): there is no state to share, so who else is in the batch,
the order, the device and a restart change nothing. The hash is SplitMix64's finalizer (Steele et al. 2014), applied to
the seed, the step with the stream, and the index in turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

INITIAL, TIME, POSTERIOR, NOISE, IMAGE, PROMPT, PREDICTED_POSTERIOR, PREDICTED_NOISE = range(8)
"""What numbers are for: another purpose, other numbers."""
PROBE = 16
"""Added to a stream's number: the same purpose in measuring instead of in training."""
PRIOR = 32
"""Added to a stream's number: the same purpose for images of the class instead of the identity's own."""

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_STREAMS = 1 << 8


def as_seeds(seeds: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """(K,) int64 of Python integers of any size: their lowest 64 bits."""
    return torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64, device=device)


def uniforms(seeds_K: Tensor, steps_K: Tensor, stream: int, shape: Sequence[int]) -> Tensor:
    """(K, *shape) float64, uniform in (0, 1].

    Args:
        seeds_K: int64, see :func:`as_seeds`.
        steps_K: int64, each identity's own step.
        stream: what for, below 256.
        shape: of one identity's numbers.
    """
    words_KI = _words(seeds_K, steps_K, stream, math.prod(shape))
    return _unit(words_KI).unflatten(1, tuple(shape) or (1,)).reshape(len(seeds_K), *shape)


def normals(seeds_K: Tensor, steps_K: Tensor, stream: int, shape: Sequence[int]) -> Tensor:
    """(K, *shape) float32, standard normal (Box and Muller 1958, computed in float64)."""
    count = math.prod(shape)
    pairs = -(-count // 2)
    unit_KI = _unit(_words(seeds_K, steps_K, stream, 2 * pairs))
    radius, angle = (-2.0 * unit_KI[:, :pairs].log()).sqrt(), 2.0 * math.pi * unit_KI[:, pairs:]
    drawn_KI = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1).float()
    return drawn_KI[:, :count].reshape(len(seeds_K), *shape)


def integers(seeds_K: Tensor, steps_K: Tensor, stream: int, shape: Sequence[int], high_K: Tensor | int) -> Tensor:
    """(K, *shape) int64, uniform in [0, high)."""
    unit = 1.0 - uniforms(seeds_K, steps_K, stream, shape)  # in [0, 1)
    high = high_K.view(-1, *(1,) * len(shape)) if isinstance(high_K, Tensor) else high_K
    return (unit * high).long()


def _unit(words: Tensor) -> Tensor:
    """The highest 53 bits, in (0, 1]: a logarithm never meets a zero."""
    return (_shifted(words, 11).double() + 1.0) * 2.0**-53


def _words(seeds_K: Tensor, steps_K: Tensor, stream: int, count: int) -> Tensor:
    """(K, count) int64: 64 random bits each."""
    key_K = _mixed(_mixed(seeds_K + _signed(_GOLDEN)) + (steps_K * _STREAMS + stream + 1) * _signed(_GOLDEN))
    index_I = torch.arange(1, count + 1, device=seeds_K.device)
    return _mixed(key_K[:, None] + index_I * _signed(_GOLDEN))


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's finalizer; int64 products wrap."""
    for shift, factor in _MIX:
        x = (x ^ _shifted(x, shift)) * _signed(factor)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Right shift that fills with zeros; torch's own repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The int64 with the same lowest 64 bits."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
