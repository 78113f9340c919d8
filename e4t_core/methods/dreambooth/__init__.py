"""DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation (Ruiz et al. 2022)."""

from e4t_core.methods.dreambooth.config import DreamBoothConfig, PersonalizeConfig
from e4t_core.methods.dreambooth.method import DreamBooth

__all__ = ["DreamBooth", "DreamBoothConfig", "PersonalizeConfig"]
