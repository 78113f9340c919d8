"""LoRA-DreamBooth: low-rank adaptation (Hu et al. 2021) tuned as DreamBooth tunes a whole model (Ruiz et al. 2022)."""

from e4t_core.methods.lora.config import LoRAConfig, PersonalizeConfig
from e4t_core.methods.lora.method import LoRA

__all__ = ["LoRA", "LoRAConfig", "PersonalizeConfig"]
