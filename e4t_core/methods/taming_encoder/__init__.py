"""Taming Encoder for Zero Fine-tuning Image Customization with Text-to-Image Diffusion Models (Jia et al. 2023)."""

from e4t_core.methods.taming_encoder.config import TamingEncoderConfig
from e4t_core.methods.taming_encoder.method import TamingEncoder
from e4t_core.methods.taming_encoder.module import TamingEncoderModule

__all__ = ["TamingEncoder", "TamingEncoderConfig", "TamingEncoderModule"]
