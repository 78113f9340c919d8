"""HyperDreamBooth: HyperNetworks for Fast Personalization of Text-to-Image Models (Ruiz et al. 2023)."""

from e4t_core.methods.hyperdreambooth.config import HyperDreamBoothConfig, PersonalizeConfig
from e4t_core.methods.hyperdreambooth.method import HyperDreamBooth
from e4t_core.methods.hyperdreambooth.module import HyperDreamBoothModule

__all__ = ["HyperDreamBooth", "HyperDreamBoothConfig", "HyperDreamBoothModule", "PersonalizeConfig"]
