"""Personalization methods, one file or folder each; methods never import each other."""

from e4t_core.methods.base import (
    Adapter,
    BackboneMethod,
    Conditioning,
    Identity,
    Losses,
    Method,
    MethodConfig,
    ParameterGroup,
    References,
)
from e4t_core.registry import Registry

METHODS: Registry[Method] = Registry("method", "e4t_core.methods", Method)

__all__ = [
    "METHODS",
    "Adapter",
    "BackboneMethod",
    "Conditioning",
    "Identity",
    "Losses",
    "Method",
    "MethodConfig",
    "ParameterGroup",
    "References",
]
