"""E4T: Encoder-based Domain Tuning for Fast Personalization of Text-to-Image Models (Gal et al. 2023)."""

from e4t_core.methods.e4t.config import E4TConfig, PersonalizeConfig
from e4t_core.methods.e4t.method import E4T
from e4t_core.methods.e4t.module import E4TModule

__all__ = ["E4T", "E4TConfig", "E4TModule", "PersonalizeConfig"]
