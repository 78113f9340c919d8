"""Domain-Agnostic Tuning-Encoder for Fast Personalization of Text-To-Image Models (Arar et al. 2023)."""

from e4t_core.methods.domain_agnostic.config import DomainAgnosticConfig, PersonalizeConfig
from e4t_core.methods.domain_agnostic.method import DomainAgnostic
from e4t_core.methods.domain_agnostic.module import DomainAgnosticModule

__all__ = ["DomainAgnostic", "DomainAgnosticConfig", "DomainAgnosticModule", "PersonalizeConfig"]
