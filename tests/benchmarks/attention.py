"""Forward and backward pass of a UNet attention layer on CPUs in bfloat16: plain matrices against the fused kernel."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from tests.benchmarks.measure import Figure, interleaved

SHAPES = {
    "tiny, self, 256 tokens": (16, 256, None, 2, 32),
    "tiny, cross, 256 to 48": (16, 256, 48, 2, 32),
    "quarter SD1.5, self, 1024 tokens": (4, 1024, None, 2, 40),
    "quarter SD1.5, cross, 1024 to 77": (4, 1024, 77, 2, 40),
}
"""(batch, tokens, text tokens or None, heads, width of a head)"""


def run(quick: bool) -> list[Figure]:
    """The fused kernel's time in units of the plain one's: above 1, plain matrices are faster."""
    torch.set_num_threads(1)
    return [_compared(name, 5 if quick else 20, *shape) for name, shape in SHAPES.items()]


def _compared(name: str, rounds: int, batch: int, tokens: int, text: int | None, heads: int, width: int) -> Figure:
    torch.manual_seed(0)
    x = torch.randn(batch, tokens, heads * width, requires_grad=True)
    states = None if text is None else torch.randn(batch, text, heads * width)
    context = None if text is None else heads * width
    layer = Attention(heads * width, context, heads=heads, dim_head=width).requires_grad_(False)

    def both(processor: AttnProcessor | AttnProcessor2_0) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            out = processor(layer, x, states)
        out.float().square().mean().backward()

    plain, fused = AttnProcessor(), AttnProcessor2_0()
    times = interleaved({"plain": lambda: both(plain), "fused": lambda: both(fused)}, rounds)
    note = f"plain {times['plain'] * 1e3:.1f} ms, fused {times['fused'] * 1e3:.1f} ms, one thread"
    return Figure(f"attention: fused / plain, {name}", times["fused"] / times["plain"], "x", note=note)
