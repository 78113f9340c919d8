"""The kinds of concepts of the tiny world, one file or folder each."""

from e4t_core.registry import Registry
from pipelines.sources.tiny_world.domains.base import AnyDomain, Domain, Subject

DOMAINS: Registry[AnyDomain] = Registry("domain", "pipelines.sources.tiny_world.domains", Domain)

__all__ = ["DOMAINS", "AnyDomain", "Domain", "Subject"]
