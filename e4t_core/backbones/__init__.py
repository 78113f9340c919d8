"""Frozen diffusion and vision backbones behind small interfaces."""
