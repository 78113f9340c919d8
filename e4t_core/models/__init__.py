"""Networks that are ours: encoders and hypernetworks over frozen features."""

from e4t_core.models.domain_agnostic_encoder import DomainAgnosticEncoder
from e4t_core.models.e4t_encoder import E4TEncoder
from e4t_core.models.linear import seeded_linear

__all__ = ["DomainAgnosticEncoder", "E4TEncoder", "seeded_linear"]
