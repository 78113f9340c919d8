"""The one sampler, which any method conditions through :class:`~e4t_core.methods.base.Conditioning`."""

from e4t_core.sampling.config import SamplerConfig
from e4t_core.sampling.sampler import sample
from e4t_core.sampling.text import TextConditioning

__all__ = ["SamplerConfig", "TextConditioning", "sample"]
