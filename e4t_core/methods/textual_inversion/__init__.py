"""An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion (Gal et al. 2022)."""

from e4t_core.methods.textual_inversion.config import PersonalizeConfig, TextualInversionConfig
from e4t_core.methods.textual_inversion.method import TextualInversion

__all__ = ["PersonalizeConfig", "TextualInversion", "TextualInversionConfig"]
